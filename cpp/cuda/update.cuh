// What the update kernels share: a tensor's constants in this step, and the way from a chunk to its variant's code.
// Device only.
#pragma once

#include "runtime.cuh"
#include "step_tables.cuh"
#include "thalweg/step_elements.hpp"

namespace thalweg::cuda {

template <class Op, class T>
struct Constants {
  typename Op::template Scalars<T> scalars;
  T scale, limit;  // of gradients
  T keep, take;    // of the moving average
  T unscale;       // of gradients that are written
};

template <class Op, class T>
__device__ Constants<Op, T> constants_of(const StepTable& table, std::int32_t item) {
  const char* from = table.scalars + item * kScalarBytes;
  Constants<Op, T> out;
  memcpy(&out.scalars, from, sizeof(out.scalars));
  out.scale = static_cast<T>(table.verdict->grad_scale);
  out.unscale = static_cast<T>(table.verdict->unscale);
  out.limit = static_cast<T>(table.verdict->grad_limit);
  const T* average = reinterpret_cast<const T*>(from + kEmaWeights);
  out.keep = average[0];
  out.take = average[1];
  return out;
}

// Whether variant V keeps state k.
template <class Op, int V>
__device__ constexpr bool keeps(int k) {
  return (Op::states(V) >> k & 1) != 0;
}

// The part of a tensor that a block updates.
struct Part {
  std::int64_t begin;  // first element within the tensor
  int numel;           // elements
};

__device__ inline Part part_of(const DeviceChunk& chunk, const DeviceItem& item) {
  const std::int64_t begin = chunk.index * kChunk;
  const std::int64_t left = item.numel - begin;
  return {begin, static_cast<int>(left < kChunk ? left : kChunk)};
}

// Calls Update<Op, V, T>::run(table, chunk, item) with the item's variant V.
template <template <class, int, class> class Update, class Op, class T, int V = 0>
__device__ void update_variant(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
  if (item.variant == V) {
    Update<Op, V, T>::run(table, chunk, item);
  } else if constexpr (V + 1 < Op::kVariants) {
    update_variant<Update, Op, T, V + 1>(table, chunk, item);
  }
}

// What a skipped step does: gradients that shall be zeroed are, or the next backward pass would add to infinities.
__device__ inline void zero_part(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
  const Part part = part_of(chunk, item);
  const int size = size_of(static_cast<DType>(item.grad_dtype));
  char* grad = static_cast<char*>(table.grads[chunk.item]) + part.begin * size;
  for (int i = static_cast<int>(threadIdx.x); i < part.numel * size; i += kThreads) grad[i] = 0;
}

// What one launch updates: chunks [begin, end) of the table. The first launch of a step also moves the schedules on:
// every tick of this step is done by then.
struct Share {
  std::int64_t begin, end;
  bool advances;
};

template <template <class, int, class> class Update, class Op, class T>
__device__ void update_block(const StepTable& table, const Share& share) {
  const bool skip = table.verdict->skip;
  if (share.advances && !skip && blockIdx.x == 0 && threadIdx.x == 0) ++*table.clock;
  const std::int64_t place = share.begin + blockIdx.x;
  if (place >= share.end) return;  // tensors without elements have no chunk
  const DeviceChunk chunk = table.chunks[place];
  const DeviceItem& item = table.items[chunk.item];
  if (!skip) {
    update_variant<Update, Op, T>(table, chunk, item);
  } else if (item.grad_write == GradWrite::kZero) {
    zero_part(table, chunk, item);
  }
}

// Launches `kernel` over a class of chunks, where there are any; true when it did. always: once at least.
template <class Kernel>
bool launch_class(Kernel* kernel, const StepTable& table, ChunkClass chunks, bool advances, bool always, void* stream) {
  const Share share{table.class_begin[chunks], table.class_begin[chunks + 1], advances};
  if (share.begin == share.end && !always) return false;
  const std::int64_t blocks = share.begin == share.end ? 1 : share.end - share.begin;
  launch("the update kernel", kernel, blocks, kThreads, stream, table, share);
  return true;
}

}  // namespace thalweg::cuda
