// The update kernel of tensors that lie in memory as they are computed: one block per chunk of a tensor, all groups and
// tensors of one compute type in one launch.
//
// Streams that begin at the same distance from a multiple of 16 bytes are read and written in packs of 16 bytes, with
// single elements before the first and after the last. Others go element by element, neighbours by neighbouring
// threads, as many elements per thread and turn as a pack has, so that as many loads are in flight.
#include "update.cuh"
#include "walk.cuh"

namespace thalweg::cuda {
namespace {

// One tensor's streams from the beginning of a chunk on.
template <class T, int kStates>
struct Streams {
  T* param;
  T* grad;
  T* states[kStates > 0 ? kStates : 1];
  T* ema;  // or null
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
template <class Op, int V, class T, bool kExtra, bool kWhole, int kStates>
__device__ void update_pack(const Constants<Op, T>& c, const Streams<T, kStates>& to, int i, int end) {
  Pack<T> p = load_pack<kWhole>(to.param, i, end);
  const Pack<T> g = load_pack<kWhole>(to.grad, i, end);
  Pack<T> s[kStates > 0 ? kStates : 1], e{};
#pragma unroll
  for (int k = 0; k < kStates; ++k) s[k] = load_pack<kWhole>(to.states[k], i, end);
  if constexpr (kExtra)
    if (to.ema != nullptr) e = load_pack<kWhole>(to.ema, i, end);
#pragma unroll
  for (int j = 0; j < Pack<T>::kSize; ++j) {
    T state[kMaxStates] = {};
#pragma unroll
    for (int k = 0; k < kStates; ++k) state[k] = s[k].value[j];
    Op::template update<V>(c.scalars, p.value[j], conditioned(g.value[j], c.scale, c.limit), state);
#pragma unroll
    for (int k = 0; k < kStates; ++k) s[k].value[j] = state[k];
    if constexpr (kExtra) e.value[j] = weighted_mean(e.value[j], p.value[j], c.keep, c.take);
  }
  store_pack<kWhole>(to.param, i, end, p);
#pragma unroll
  for (int k = 0; k < kStates; ++k) store_pack<kWhole>(to.states[k], i, end, s[k]);
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
  static constexpr int kStates = Op::state_count(V);

  static __device__ void run(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
    const Constants<Op, T> c = constants_of<Op, T>(table, chunk.item);
    const Part part = part_of(chunk, item);
    Streams<T, kStates> to;
    to.param = static_cast<T*>(item.param) + part.begin;
    to.grad = static_cast<T*>(table.grads[chunk.item]) + part.begin;
    to.ema = item.ema != nullptr ? static_cast<T*>(item.ema) + part.begin : nullptr;
    to.grad_write = item.grad_write;
    const int head = head_of(to.param, part.numel);
    bool alike = is_aligned(to.grad + head) && (to.ema == nullptr || is_aligned(to.ema + head));
    for (int k = 0; k < kStates; ++k) {
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

template <class Op, int V, class T>
struct PlainUpdate : Unconverted<Op, V, T, false> {};
template <class Op, int V, class T>
struct ExtraUpdate : Unconverted<Op, V, T, true> {};

template <class T>
constexpr int kBlocks = sizeof(T) == 4 ? 4 : 2;  // of a multiprocessor, at least: bounds the registers

template <class Op, class T>
__global__ __launch_bounds__(kThreads, kBlocks<T>) void update_kernel(StepTable table, Share share) {
  update_block<PlainUpdate, Op, T>(table, share);
}
template <class Op, class T>
__global__ __launch_bounds__(kThreads, kBlocks<T> - 1) void extra_kernel(StepTable table, Share share) {
  update_block<ExtraUpdate, Op, T>(table, share);
}

}  // namespace

void load_update(int optimizer) {
  for_each_optimizer(
      [&](auto op, int index) {
        using Op = decltype(op);
        if (index != optimizer) return;
        load(update_kernel<Op, float>), load(update_kernel<Op, double>);
        load(extra_kernel<Op, float>), load(extra_kernel<Op, double>);
      },
      OptimizerList{});
  load_update_mixed(optimizer);
}

void launch_update(int optimizer, const StepTable& table, void* stream) {
  bool done = launch_update_mixed(optimizer, table, stream);
  for_each_optimizer(
      [&](auto op, int index) {
        using Op = decltype(op);
        if (index != optimizer) return;
        done = launch_class(extra_kernel<Op, float>, table, kExtra32, !done, false, stream) || done;
        done = launch_class(extra_kernel<Op, double>, table, kExtra64, !done, false, stream) || done;
        done = launch_class(update_kernel<Op, double>, table, kPlain64, !done, false, stream) || done;
        launch_class(update_kernel<Op, float>, table, kPlain32, !done, !done, stream);
      },
      OptimizerList{});
}

}  // namespace thalweg::cuda
