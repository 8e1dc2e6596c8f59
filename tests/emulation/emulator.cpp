// The host side of cuda_runtime.h beside it: fibers, memory that starts as NaN, captures that can be replayed.
#include <ucontext.h>

#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

struct EmulatedStream {};
struct EmulatedEvent {};

namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

std::recursive_mutex device_mutex;  // one launch at a time: `__shared__` is static, threadIdx global
ucontext_t scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;  // of one block, reused from block to block
Fiber* current = nullptr;
const std::function<void()>* thread_body = nullptr;

void fiber_main() {
  while (true) {
    (*thread_body)();
    current->done = true;
    swapcontext(&current->context, &scheduler);
  }
}

void resume(std::size_t thread, unsigned index) {
  while (fibers.size() <= thread) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = std::make_unique<char[]>(kStackBytes);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStackBytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
    fibers.push_back(std::move(fiber));
  }
  current = fibers[thread].get();
  threadIdx = dim3(index);
  swapcontext(&scheduler, &current->context);
}

// A thread that meets no barrier runs through on the first fiber; from the first barrier on each has its own.
void run_block(unsigned threads) {
  std::vector<unsigned> waiting;  // threadIdx of the fiber at each place
  for (unsigned t = 0; t < threads; ++t) {
    const std::size_t place = waiting.size();
    if (fibers.size() > place) fibers[place]->done = false;
    resume(place, t);
    if (!fibers[place]->done) waiting.push_back(t);
  }
  if (!waiting.empty() && waiting.size() != threads) std::abort();  // a barrier that not all threads of a block reach
  for (bool running = !waiting.empty(); running;) {
    std::size_t ended = 0;
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      resume(i, waiting[i]);
      ended += fibers[i]->done ? 1 : 0;
    }
    if (ended != 0 && ended != waiting.size()) std::abort();
    running = ended == 0;
  }
}

// ---- captures: what a graph would hold, in order
bool capturing = false;
bool relaxed = false;
std::vector<std::vector<std::function<void()>>> graphs;
std::set<void*> device_memory;
cudaStream_t capture_stream = nullptr;

// ---- what the tests ask to fail
int devices = 1;
int allocations_left = -1;  // until one fails; negative: none does

bool refuses(cudaStream_t stream) { return capturing && !relaxed && stream == capture_stream; }

cudaError_t run(cudaStream_t stream, std::function<void()> work) {
  const std::lock_guard<std::recursive_mutex> lock(device_mutex);
  if (capturing && stream == capture_stream) {
    graphs.back().push_back(std::move(work));
  } else {
    work();
  }
  return cudaSuccess;
}

}  // namespace

void __syncthreads() { swapcontext(&current->context, &scheduler); }

cudaError_t emulation::launch(const cudaLaunchConfig_t& config, std::function<void()> thread) {
  if (config.gridDim.x == 0 || config.blockDim.x == 0 || config.blockDim.x > 1024) std::abort();
  return run(config.stream, [config, thread] {
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    thread_body = &thread;
    for (unsigned y = 0; y < config.gridDim.y; ++y)
      for (unsigned x = 0; x < config.gridDim.x; ++x) {
        blockIdx = dim3(x, y);
        run_block(config.blockDim.x);
      }
  });
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess                   ? "no error"
         : error == cudaErrorInsufficientDriver ? "CUDA driver version is insufficient for CUDA runtime version"
         : error == cudaErrorMemoryAllocation   ? "out of memory"
                                                : "operation not permitted when stream is capturing";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 1, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 1, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices;
  return devices > 0 ? cudaSuccess : cudaErrorInsufficientDriver;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  if (allocations_left >= 0 && allocations_left-- == 0) return cudaErrorMemoryAllocation;
  if (refuses(capture_stream)) return cudaErrorStreamCaptureUnsupported;
  const std::lock_guard<std::recursive_mutex> lock(device_mutex);
  *address = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*address == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*address, 0xFF, bytes);
  device_memory.insert(*address);
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  if (refuses(capture_stream)) std::abort();  // CUDA would invalidate the capture, for a null pointer too
  const std::lock_guard<std::recursive_mutex> lock(device_mutex);
  if (address != nullptr && device_memory.erase(address) == 0) std::abort();
  std::free(address);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** address, std::size_t bytes) {
  if (refuses(capture_stream)) return cudaErrorStreamCaptureUnsupported;
  *address = std::malloc(bytes);
  return *address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* address) {
  if (refuses(capture_stream)) std::abort();
  return std::free(address), cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return run(stream, [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return run(stream, [=] { std::memset(to, value, bytes); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = new EmulatedStream, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return refuses(stream) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = capturing && stream == capture_stream ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const bool before = relaxed;
  relaxed = *mode == cudaStreamCaptureModeRelaxed;
  *mode = before ? cudaStreamCaptureModeRelaxed : cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new EmulatedEvent, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t stream) {
  return refuses(stream) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) {
  return refuses(capture_stream) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return refuses(capture_stream) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }

// ---- what the tests call through ctypes; the stream of torch's host tensors is the null stream
extern "C" {
__attribute__((visibility("default"))) void thalweg_emulated_capture_begin() {
  graphs.emplace_back();
  capture_stream = nullptr;
  capturing = true;
}
__attribute__((visibility("default"))) int thalweg_emulated_capture_end() {
  capturing = false;
  return static_cast<int>(graphs.size()) - 1;
}
__attribute__((visibility("default"))) void thalweg_emulated_failures(int device_count, int allocations) {
  devices = device_count;
  allocations_left = allocations;
}
__attribute__((visibility("default"))) int thalweg_emulated_replay(int graph) {
  const std::lock_guard<std::recursive_mutex> lock(device_mutex);
  for (const auto& work : graphs[static_cast<std::size_t>(graph)]) work();
  return static_cast<int>(graphs[static_cast<std::size_t>(graph)].size());
}
}
