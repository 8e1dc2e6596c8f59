// Schedules evaluated on the device, one step per thread: the same value_at() that the tick calls.
#include "runtime.cuh"
#include "thalweg/schedule.hpp"
#include "upload.cuh"

namespace thalweg {
namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void values_kernel(const std::uint64_t* words, const std::int64_t* steps,
                                                          std::int64_t count, double* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) out[i] = value_at(words, steps[i]);
}

}  // namespace

void fill_values_cuda(const std::uint64_t* words, std::int64_t word_count, const std::int64_t* steps,
                      std::int64_t count, double* out, int device, void* stream) {
  if (count == 0) return;
  cuda::require_device(device);
  const cuda::DeviceGuard guard(device);
  cuda::DeviceBuffer plan;
  plan.reserve(static_cast<std::size_t>(word_count) * sizeof(std::uint64_t));
  cuda::copy_now(plan.data(), words, static_cast<std::size_t>(word_count) * sizeof(std::uint64_t));
  cuda::launch("the schedule kernel", values_kernel, (count + kThreads - 1) / kThreads, kThreads, stream,
               reinterpret_cast<const std::uint64_t*>(plan.data()), steps, count, out);
  cuda::check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "the schedule kernel");
}

}  // namespace thalweg
