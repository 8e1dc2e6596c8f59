// The norm kernel: one sum of squares per chunk, added in the order that step_control.hpp defines.
//
// A thread owns kPack neighbouring lanes from beginning to end. Where the gradient does not begin at a multiple of 16
// bytes, the lanes it owns are shifted by as much, so that its accesses stay whole and the order of additions the same.
#include "lanes.cuh"
#include "runtime.cuh"
#include "step_tables.cuh"
#include "thalweg/storage.hpp"

namespace thalweg::cuda {
namespace {

template <class Type>
__device__ double square_of(typename Type::Storage stored) {
  const double value = static_cast<double>(Type::load(stored));
  return value * value;
}

// A whole chunk that begins at a multiple of 16 bytes, the usual case: all loads of a lane stand before the first
// addition, so that they are in flight together.
template <class Type, class T = typename Type::Storage>
__device__ void add_whole_chunk(const T* values, int owned, double* sums) {
  constexpr int kRows = static_cast<int>(kChunk / kNormLanes);
  Pack<T> packs[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row)
    packs[row] = *reinterpret_cast<const Pack<T>*>(values + owned + row * kNormLanes);
#pragma unroll
  for (int row = 0; row < kRows; ++row)
#pragma unroll
    for (int j = 0; j < Pack<T>::kSize; ++j) sums[j] += square_of<Type>(packs[row].value[j]);
}

// Sums of the squares of values[0, numel) by lanes.
template <class Type, class T = typename Type::Storage>
__device__ void squares_by_lane(const void* data, std::int64_t begin, int numel, double* lanes) {
  const T* values = static_cast<const T*>(data) + begin;
  constexpr int kPack = Pack<T>::kSize;
  const auto address = reinterpret_cast<std::uintptr_t>(values) / sizeof(T);
  const int shift = static_cast<int>((kPack - address % kPack) % kPack);  // elements before the first whole pack
  for (int owned = threadIdx.x * kPack; owned < kNormLanes; owned += kThreads * kPack) {
    double sums[kPack] = {};
    if (shift == 0 && numel == kChunk) {
      add_whole_chunk<Type>(values, owned, sums);
    } else {
      for (int at = owned + shift - kNormLanes; at < numel; at += kNormLanes) {
        if (at >= 0 && at + kPack <= numel) {
          const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(values + at);
          for (int j = 0; j < kPack; ++j) sums[j] += square_of<Type>(pack.value[j]);
        } else {
          for (int j = 0; j < kPack; ++j)
            if (at + j >= 0 && at + j < numel) sums[j] += square_of<Type>(values[at + j]);
        }
      }
    }
    for (int j = 0; j < kPack; ++j) lanes[(owned + shift + j) % kNormLanes] = sums[j];
  }
}

__global__ __launch_bounds__(kThreads, 4) void norm_kernel(StepTable table) {
  __shared__ double lanes[kNormLanes];
  const DeviceChunk chunk = table.chunks[blockIdx.x];
  const DeviceItem& item = table.items[chunk.item];
  const std::int64_t begin = chunk.index * kChunk;
  const std::int64_t left = item.numel - begin;
  const int numel = static_cast<int>(left < kChunk ? left : kChunk);
  const void* grad = table.grads[chunk.item];
  switch (static_cast<DType>(item.grad_dtype)) {
    case DType::kFloat64:
      squares_by_lane<Native64>(grad, begin, numel, lanes);
      break;
    case DType::kFloat32:
      squares_by_lane<Native32>(grad, begin, numel, lanes);
      break;
    case DType::kBFloat16:
      squares_by_lane<Brain16>(grad, begin, numel, lanes);
      break;
    default:
      squares_by_lane<Half16>(grad, begin, numel, lanes);
  }
  fold_lanes(lanes);
  if (threadIdx.x == 0) table.parts[chunk.part] = lanes[0];
}

// Block k adds the chunks' sums of class k.
__global__ __launch_bounds__(kThreads, 1) void class_kernel(StepTable table, double* squares) {
  __shared__ double lanes[kNormLanes];
  const std::int64_t begin = table.part_begin[blockIdx.x];
  const double sum = sum_of_parts(table.parts + begin, table.part_begin[blockIdx.x + 1] - begin, lanes);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

}  // namespace

void load_norm() { load(norm_kernel), load(class_kernel); }

void launch_class_sums(const StepTable& table, int classes, double* squares, void* stream) {
  launch("the kernel that adds a norm's classes", class_kernel, classes, kThreads, stream, table, squares);
}

void launch_norm(const StepTable& table, void* stream) {
  if (table.chunk_count > 0) launch("the norm kernel", norm_kernel, table.chunk_count, kThreads, stream, table);
}

}  // namespace thalweg::cuda
