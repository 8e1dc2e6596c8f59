// How the drivers bring tables to the device: through pinned memory without waiting, or at once while a graph is being
// captured. Knows no kernel.
#pragma once

#include <array>
#include <cstring>

#include "runtime.cuh"

namespace thalweg::cuda {

// Pinned memory for copies that the host does not wait for; a piece of it is used again only after its copy.
class PinnedRing {
 public:
  PinnedRing() = default;
  ~PinnedRing() {
    const RelaxedCapture relaxed;  // see DeviceBuffer::release()
    for (Slot& slot : slots_) {
      if (slot.event != nullptr) cudaEventSynchronize(slot.event), cudaEventDestroy(slot.event);
      cudaFreeHost(slot.data);
    }
  }
  PinnedRing(const PinnedRing&) = delete;
  PinnedRing& operator=(const PinnedRing&) = delete;

  void copy(void* to, const void* from, std::size_t bytes, void* stream) {
    Slot& slot = slots_[next_++ % kSlots];
    if (slot.event == nullptr) {
      check(cudaEventCreateWithFlags(&slot.event, cudaEventDisableTiming), "creating an event");
    } else {
      check(cudaEventSynchronize(slot.event), "waiting for an earlier copy");
    }
    if (bytes > slot.bytes) {
      cudaFreeHost(slot.data);
      slot.data = nullptr;
      slot.bytes = 0;
      void* grown = nullptr;
      check(cudaMallocHost(&grown, bytes), "allocating pinned memory");
      slot.data = static_cast<char*>(grown);
      slot.bytes = bytes;
    }
    std::memcpy(slot.data, from, bytes);
    const auto on = static_cast<cudaStream_t>(stream);
    check(cudaMemcpyAsync(to, slot.data, bytes, cudaMemcpyHostToDevice, on), "copying a table to the device");
    check(cudaEventRecord(slot.event, on), "recording an event");
  }

 private:
  struct Slot {
    char* data = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t event = nullptr;
  };
  static constexpr std::size_t kSlots = 16;  // copies that the host may be ahead of the device
  std::array<Slot, kSlots> slots_;
  std::size_t next_ = 0;
};

// Copies to the device now, on a stream of its own, and waits; allowed while another stream captures.
inline void copy_now(void* to, const void* from, std::size_t bytes) {
  cudaStream_t own = nullptr;
  check(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking), "creating a stream");
  const cudaError_t copied = cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, own);
  const cudaError_t waited = cudaStreamSynchronize(own);
  cudaStreamDestroy(own);
  check(copied, "copying a table to the device");
  check(waited, "copying a table to the device");
}

}  // namespace thalweg::cuda
