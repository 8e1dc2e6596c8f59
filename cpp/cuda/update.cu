// The update kernel: one block per chunk of a tensor, all groups and tensors of one compute type in one launch.
//
// Streams that begin at the same distance from a multiple of 16 bytes are read and written in packs of 16 bytes, with
// single elements before the first and after the last; others element by element, neighbours by neighbouring threads.
#include "runtime.cuh"
#include "step_tables.cuh"
#include "thalweg/optimizers/registry.hpp"

namespace thalweg::cuda {
namespace {

// One tensor's streams from the beginning of a chunk on.
template <class T, int kStates>
struct Streams {
  T* param;
  const T* grad;
  T* states[kStates > 0 ? kStates : 1];
};

template <class T>
__device__ int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(address) / sizeof(T) % Pack<T>::kSize);
}

template <class Op, int V, class T, int kStates>
__device__ void update_one(const typename Op::template Scalars<T>& c, T scale, const Streams<T, kStates>& to, int i) {
  T s[kMaxStates] = {};
  for (int k = 0; k < kStates; ++k) s[k] = to.states[k][i];
  T value = to.param[i];
  Op::template update<V>(c, value, to.grad[i] * scale, s);
  to.param[i] = value;
  for (int k = 0; k < kStates; ++k) to.states[k][i] = s[k];
}

// kUnroll packs per thread and turn: all loads stand before the first store, so that they are in flight together.
template <class Op, int V, class T, int kStates>
__device__ void update_packs(const typename Op::template Scalars<T>& c, T scale, const Streams<T, kStates>& to,
                             int packs) {
  constexpr int kUnroll = 1;  // more of them need registers, and so leave fewer threads to a multiprocessor
  for (int first = threadIdx.x; first < packs; first += kUnroll * kThreads) {
    Pack<T> p[kUnroll], g[kUnroll], s[kUnroll][kStates > 0 ? kStates : 1];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * kThreads;
      if (i >= packs) break;
      p[u] = reinterpret_cast<const Pack<T>*>(to.param)[i];
      g[u] = reinterpret_cast<const Pack<T>*>(to.grad)[i];
#pragma unroll
      for (int k = 0; k < kStates; ++k) s[u][k] = reinterpret_cast<const Pack<T>*>(to.states[k])[i];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * kThreads;
      if (i >= packs) break;
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) {
        T state[kMaxStates] = {};
#pragma unroll
        for (int k = 0; k < kStates; ++k) state[k] = s[u][k].value[j];
        Op::template update<V>(c, p[u].value[j], g[u].value[j] * scale, state);
#pragma unroll
        for (int k = 0; k < kStates; ++k) s[u][k].value[j] = state[k];
      }
      reinterpret_cast<Pack<T>*>(to.param)[i] = p[u];
#pragma unroll
      for (int k = 0; k < kStates; ++k) reinterpret_cast<Pack<T>*>(to.states[k])[i] = s[u][k];
    }
  }
}

template <class Op, int V, class T>
__device__ void update_chunk(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
  constexpr int kStates = Op::state_count(V);
  typename Op::template Scalars<T> c;
  memcpy(&c, table.scalars + chunk.item * kScalarBytes, sizeof(c));
  const T scale = static_cast<T>(table.verdict->grad_scale);
  const std::int64_t begin = chunk.index * kChunk;
  const int numel = static_cast<int>(item.numel - begin < kChunk ? item.numel - begin : kChunk);
  Streams<T, kStates> to;
  to.param = static_cast<T*>(item.param) + begin;
  to.grad = static_cast<const T*>(table.grads[chunk.item]) + begin;
  const int off = misalignment(to.param);
  bool alike = misalignment(to.grad) == off;
  for (int k = 0; k < kStates; ++k) {
    to.states[k] = static_cast<T*>(item.states[k]) + begin;
    alike = alike && misalignment(to.states[k]) == off;
  }
  if (!alike) {
    for (int i = threadIdx.x; i < numel; i += kThreads) update_one<Op, V>(c, scale, to, i);
    return;
  }
  int head = (Pack<T>::kSize - off) % Pack<T>::kSize;
  if (head > numel) head = numel;
  const int packs = (numel - head) / Pack<T>::kSize;
  const int tail = head + packs * Pack<T>::kSize;
  const int t = static_cast<int>(threadIdx.x);
  if (t < head) update_one<Op, V>(c, scale, to, t);
  if (tail + t < numel) update_one<Op, V>(c, scale, to, tail + t);
  to.param += head;
  to.grad += head;
  for (int k = 0; k < kStates; ++k) to.states[k] += head;
  update_packs<Op, V>(c, scale, to, packs);
}

template <class Op, class T, int V = 0>
__device__ void update_variant(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
  if (item.variant == V) {
    update_chunk<Op, V, T>(table, chunk, item);
  } else if constexpr (V + 1 < Op::kVariants) {
    update_variant<Op, T, V + 1>(table, chunk, item);
  }
}

// The launch of the first compute type also moves the schedules on: every tick of this step is done by then.
template <class Op, class T>
__global__ __launch_bounds__(kThreads, sizeof(T) == 4 ? 4 : 2) void update_kernel(StepTable table,
                                                                                  std::int64_t first_chunk,
                                                                                  bool advances) {
  if (table.verdict->skip) return;
  if (advances && blockIdx.x == 0 && threadIdx.x == 0) ++*table.clock;
  if (first_chunk + blockIdx.x >= table.chunk_count) return;  // tensors without elements have no chunk
  const DeviceChunk chunk = table.chunks[first_chunk + blockIdx.x];
  update_variant<Op, T>(table, chunk, table.items[chunk.item]);
}

}  // namespace

void load_update(int optimizer) {
  for_each_optimizer(
      [&](auto op, int index) {
        if (index != optimizer) return;
        load(update_kernel<decltype(op), float>);
        load(update_kernel<decltype(op), double>);
      },
      OptimizerList{});
}

void launch_update(int optimizer, const StepTable& table, void* stream) {
  const std::int64_t wide_chunks = table.chunk_count - table.narrow_chunks;
  for_each_optimizer(
      [&](auto op, int index) {
        using Op = decltype(op);
        if (index != optimizer) return;
        if (table.narrow_chunks > 0 || wide_chunks == 0)
          launch("the update kernel", update_kernel<Op, float>, table.narrow_chunks > 0 ? table.narrow_chunks : 1,
                 kThreads, stream, table, std::int64_t{0}, true);
        if (wide_chunks > 0)
          launch("the update kernel", update_kernel<Op, double>, wide_chunks, kThreads, stream, table,
                 table.narrow_chunks, table.narrow_chunks == 0);
      },
      OptimizerList{});
}

}  // namespace thalweg::cuda
