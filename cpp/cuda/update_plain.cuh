// The update kernels of float32 tensors that lie in memory as they are computed: one block per chunk of a tensor, all
// groups and tensors in one launch. Device only.
//
// Streams that begin at the same distance from a multiple of 16 bytes are read and written in packs of 16 bytes, with
// single elements before the first and after the last. Others go element by element, neighbours by neighbouring
// threads, as many elements per thread and turn as a pack has, so that as many loads are in flight.
#pragma once

#include "update.cuh"
#include "walk.cuh"

namespace thalweg::cuda {
namespace {

// One tensor's streams from the beginning of a chunk on.
template <class T>
struct Streams {
  T* param;
  T* grad;
  T* states[kMaxStates];  // those that the variant keeps
  T* ema;                 // or null
  GradWrite grad_write;
};

// kWhole: a pack from `data + i` on. Otherwise elements i, i + kThreads ... below `end`.
template <bool kWhole, class T>
__device__ Pack<T> load_pack(const T* data, int i, int end) {
  if constexpr (kWhole) {
    return *reinterpret_cast<const Pack<T>*>(data + i);
  } else {
    Pack<T> out;
#pragma unroll
    for (int j = 0; j < Pack<T>::kSize; ++j) out.value[j] = i + j * kThreads < end ? data[i + j * kThreads] : T(0);
    return out;
  }
}

template <bool kWhole, class T>
__device__ void store_pack(T* data, int i, int end, const Pack<T>& pack) {
  if constexpr (kWhole) {
    *reinterpret_cast<Pack<T>*>(data + i) = pack;
  } else {
#pragma unroll
    for (int j = 0; j < Pack<T>::kSize; ++j)
      if (i + j * kThreads < end) data[i + j * kThreads] = pack.value[j];
  }
}

// kExtra: there is a moving average or the gradient is written.
template <class Op, int V, class T, bool kExtra, bool kWhole>
__device__ void update_pack(const Constants<Op, T>& c, const Streams<T>& to, int i, int end) {
  Pack<T> p = load_pack<kWhole>(to.param, i, end);
  const Pack<T> g = load_pack<kWhole>(to.grad, i, end);
  Pack<T> s[kMaxStates], e{};
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if (keeps<Op, V>(k)) s[k] = load_pack<kWhole>(to.states[k], i, end);
  if constexpr (kExtra)
    if (to.ema != nullptr) e = load_pack<kWhole>(to.ema, i, end);
#pragma unroll
  for (int j = 0; j < Pack<T>::kSize; ++j) {
    T state[kMaxStates] = {};
#pragma unroll
    for (int k = 0; k < kMaxStates; ++k)
      if (keeps<Op, V>(k)) state[k] = s[k].value[j];
    Op::template update<V>(c.scalars, p.value[j], conditioned(g.value[j], c.scale, c.limit), state);
#pragma unroll
    for (int k = 0; k < kMaxStates; ++k)
      if (keeps<Op, V>(k)) s[k].value[j] = state[k];
    if constexpr (kExtra) e.value[j] = weighted_mean(e.value[j], p.value[j], c.keep, c.take);
  }
  store_pack<kWhole>(to.param, i, end, p);
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if (keeps<Op, V>(k)) store_pack<kWhole>(to.states[k], i, end, s[k]);
  if constexpr (kExtra) {
    if (to.ema != nullptr) store_pack<kWhole>(to.ema, i, end, e);
    if (to.grad_write != GradWrite::kKeep) {
      Pack<T> after;
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) after.value[j] = grad_after(to.grad_write, g.value[j], c.unscale);
      store_pack<kWhole>(to.grad, i, end, after);
    }
  }
}

template <class Op, int V, class T, bool kExtra>
struct Unconverted {
  static __device__ void run(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
    const Constants<Op, T> c = constants_of<Op, T>(table, chunk.item);
    const Part part = part_of(chunk, item);
    Streams<T> to;
    to.param = static_cast<T*>(item.param) + part.begin;
    to.grad = static_cast<T*>(table.grads[chunk.item]) + part.begin;
    to.ema = item.ema != nullptr ? static_cast<T*>(item.ema) + part.begin : nullptr;
    to.grad_write = item.grad_write;
    const int head = head_of(to.param, part.numel);
    bool alike = is_aligned(to.grad + head) && (to.ema == nullptr || is_aligned(to.ema + head));
#pragma unroll
    for (int k = 0; k < kMaxStates; ++k) {
      if (!keeps<Op, V>(k)) continue;
      to.states[k] = static_cast<T*>(item.states[k]) + part.begin;
      alike = alike && is_aligned(to.states[k] + head);
    }
    constexpr int kSize = Pack<T>::kSize;
    const int t = static_cast<int>(threadIdx.x);
    if (!alike) {
      for (int i = t; i < part.numel; i += kThreads * kSize) update_pack<Op, V, T, kExtra, false>(c, to, i, part.numel);
      return;
    }
    const int packs = (part.numel - head) / kSize;
    for (int p = t; p < packs; p += kThreads) update_pack<Op, V, T, kExtra, true>(c, to, head + p * kSize, part.numel);
    // What is left, at most kSize - 1 elements on either side, goes to the first threads.
    const int tail = head + packs * kSize;
    const int i = t < head ? t : tail + t - head;
    if (i < part.numel) update_pack<Op, V, T, kExtra, false>(c, to, i, i + 1);
  }
};

// Blocks of a multiprocessor, at least: bounds the registers. Four states, or four loop bodies, do not fit into 64.
template <class Op>
constexpr int kPlainBlocks = Op::kStateNames.size() > 3 || Op::kVariants > 3 ? 3 : 4;

template <class Op, int V, class T>
struct PlainUpdate : Unconverted<Op, V, T, false> {};
template <class Op, int V, class T>
struct ExtraUpdate : Unconverted<Op, V, T, true> {};

template <class Op>
__global__ __launch_bounds__(kThreads, kPlainBlocks<Op>) void update_kernel(StepTable table, Share share) {
  update_block<PlainUpdate, Op, float>(table, share);
}
template <class Op>
__global__ __launch_bounds__(kThreads, kPlainBlocks<Op> - 1) void extra_kernel(StepTable table, Share share) {
  update_block<ExtraUpdate, Op, float>(table, share);
}

}  // namespace

template <class Op>
void load_update_plain() {
  load(update_kernel<Op>), load(extra_kernel<Op>);
}

// first: whether no other launch of this step has moved the schedules on.
template <class Op>
void launch_update_plain(const StepTable& table, bool first, void* stream) {
  first = !launch_class(extra_kernel<Op>, table, kExtra32, first, false, stream) && first;
  launch_class(update_kernel<Op>, table, kPlain32, first, first, stream);
}

}  // namespace thalweg::cuda
