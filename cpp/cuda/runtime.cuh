// What every CUDA driver shares: errors, the device guard, launches, memory, 16-byte accesses. Knows no kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "thalweg/error.hpp"

namespace thalweg::cuda {

// Throws CudaError where a call of the runtime failed; `what` says in a few words what was being done.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the error is reported here; it must not surface again in somebody else's call
  throw CudaError(message("thalweg: ", what, " failed: ", cudaGetErrorString(status)));
}

// Throws unless this machine's driver and the device can run the kernels of this build.
void require_device(int device);

// Makes `device` the current one while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    if (device != before_) check(cudaSetDevice(device), "selecting the device");
    changed_ = device != before_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// kernel<<<blocks, threads, 0, stream>>>(arguments...), with errors as exceptions. `what` names the kernel.
template <class... Parameters, class... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), std::int64_t blocks, int threads, void* stream,
            Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(stream);
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), what);
}

// Brings a kernel's code to the current device now: loaded at its first launch it might wait for the device, which a
// capture does not allow.
template <class Kernel>
void load(Kernel* kernel) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel), "loading a kernel");
}

inline bool is_capturing(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "asking whether the stream is capturing");
  return status != cudaStreamCaptureStatusNone;
}

// While one lives, this thread may allocate and copy on other streams although some stream is capturing.
class RelaxedCapture {
 public:
  RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Device memory of its own; freed with it unless it was given to a capture by leak().
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer() { release(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept { return swap(other), *this; }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  // Makes room for `bytes`; what it held is lost when it has to grow.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_) return;
    void* grown = nullptr;
    check(cudaMalloc(&grown, bytes), "allocating device memory");
    release();
    data_ = grown;
    bytes_ = bytes;
  }
  char* data() const { return static_cast<char*>(data_); }
  std::size_t size() const { return bytes_; }   // bytes
  void leak() { data_ = nullptr, bytes_ = 0; }  // a graph that was captured may replay it at any time: never freed

 private:
  // May run while this thread captures, called by a garbage collection: cudaFree alone would break the capture, of a
  // null pointer too.
  void release() {
    if (data_ == nullptr) return;
    const RelaxedCapture relaxed;
    cudaFree(data_);
  }
  void swap(DeviceBuffer& other) noexcept { std::swap(data_, other.data_), std::swap(bytes_, other.bytes_); }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Sixteen bytes in one access.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T value[kSize];
};

}  // namespace thalweg::cuda
