// The update kernels of all other tensors: 16-bit parameters, gradients and states, master weights, stochastic
// rounding, eight neighbours per thread and turn in accesses of 16 bytes; float64, element by element. Device only.
#pragma once

#include "streams.cuh"
#include "update.cuh"
#include "walk.cuh"

namespace thalweg::cuda {
namespace {

// N neighbours of a stream, as loaded.
template <class T, int N>
struct Raw {
  T value;
};
template <>
struct Raw<float, kEight> {
  RawEight value;
};

template <class T, int N>
__device__ Raw<T, N> load_raw(DType dtype, const void* data, std::int64_t i) {
  if constexpr (N == kEight) {
    return {load_eight(dtype, data, i)};
  } else {
    return {load_as<T>(dtype, data, i)};
  }
}

template <class T, int N>
__device__ void decode(DType dtype, const Raw<T, N>& raw, T* out) {
  if constexpr (N == kEight) {
    decode_eight(dtype, raw.value, out);
  } else {
    out[0] = raw.value;
  }
}

template <class T, int N>
__device__ void store_values(DType dtype, void* data, std::int64_t i, const T* values) {
  if constexpr (N == kEight) {
    store_eight(dtype, data, i, values);
  } else {
    store_as(dtype, data, i, values[0]);
  }
}

// The parameter itself, rounded to nearest or by chance; values become what it is worth then where `reads_back`.
template <class T, int N>
__device__ void store_param(const StepVerdict& verdict, const DeviceItem& item, std::int64_t i, T* values,
                            bool reads_back) {
  const DType dtype = static_cast<DType>(item.dtype);
  if (item.stochastic == 0) {
    store_values<T, N>(dtype, item.param, i, values);
    if (!reads_back || sizeof(T) == 8 || dtype == DType::kFloat32) return;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float value = static_cast<float>(values[j]);
      values[j] = static_cast<T>(dtype == DType::kBFloat16 ? bfloat16_to_float(float_to_bfloat16(value))
                                                           : float16_to_float(float_to_float16(value)));
    }
    return;
  }
  const Philox4 bits = rounding_bits(verdict.seed, item.place, verdict.step, i / kRoundingBlock);
  const int first = static_cast<int>(i % kRoundingBlock);  // 0 for eight
  std::uint16_t halves[N];
#pragma unroll
  for (int j = 0; j < N; ++j) halves[j] = stochastic_bfloat16(static_cast<float>(values[j]), bits, first + j);
  if constexpr (N == kEight) {
    store_words(dtype, item.param, i, paired(halves));
  } else {
    static_cast<std::uint16_t*>(item.param)[i] = halves[0];
  }
  if (!reads_back) return;
#pragma unroll
  for (int j = 0; j < N; ++j) values[j] = static_cast<T>(bfloat16_to_float(halves[j]));
}

// Elements i ... i + N - 1 of the tensor.
template <class Op, int V, class T, int N>
__device__ void update_mixed(const StepTable& table, const Constants<Op, T>& c, const DeviceItem& item, void* grad,
                             std::int64_t i) {
  const DType param_dtype = item.master != nullptr ? DType::kFloat32 : static_cast<DType>(item.dtype);
  const DType grad_dtype = static_cast<DType>(item.grad_dtype);
  const DType state_dtype = static_cast<DType>(item.state_dtype);
  const DType ema_dtype = static_cast<DType>(item.ema_dtype);
  Raw<T, N> raw_state[kMaxStates], raw_ema{};
  const Raw<T, N> raw_param = load_raw<T, N>(param_dtype, item.master != nullptr ? item.master : item.param, i);
  const Raw<T, N> raw_grad = load_raw<T, N>(grad_dtype, grad, i);
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if (keeps<Op, V>(k)) raw_state[k] = load_raw<T, N>(state_dtype, item.states[k], i);
  if (item.ema != nullptr) raw_ema = load_raw<T, N>(ema_dtype, item.ema, i);
  T p[N], g[N], s[kMaxStates][N], e[N];
  decode<T, N>(param_dtype, raw_param, p);
  decode<T, N>(grad_dtype, raw_grad, g);
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if (keeps<Op, V>(k)) decode<T, N>(state_dtype, raw_state[k], s[k]);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    T state[kMaxStates] = {};
#pragma unroll
    for (int k = 0; k < kMaxStates; ++k)
      if (keeps<Op, V>(k)) state[k] = s[k][j];
    Op::template update<V>(c.scalars, p[j], conditioned(g[j], c.scale, c.limit), state);
#pragma unroll
    for (int k = 0; k < kMaxStates; ++k)
      if (keeps<Op, V>(k)) s[k][j] = state[k];
  }
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if (keeps<Op, V>(k)) store_values<T, N>(state_dtype, item.states[k], i, s[k]);
  if (item.master != nullptr) store_values<T, N>(DType::kFloat32, item.master, i, p);
  store_param<T, N>(*table.verdict, item, i, p, item.master == nullptr);
  if (item.ema != nullptr) {
    decode<T, N>(ema_dtype, raw_ema, e);
#pragma unroll
    for (int j = 0; j < N; ++j) e[j] = weighted_mean(e[j], p[j], c.keep, c.take);
    store_values<T, N>(ema_dtype, item.ema, i, e);
  }
  if (item.grad_write != GradWrite::kKeep) {
#pragma unroll
    for (int j = 0; j < N; ++j) g[j] = grad_after(item.grad_write, g[j], c.unscale);
    store_values<T, N>(grad_dtype, grad, i, g);
  }
}

__device__ inline bool is_whole(const void* data, DType dtype, std::int64_t i) {
  return data == nullptr || is_aligned(static_cast<const char*>(data) + i * size_of(dtype));
}

template <class Op, int V, class T>
struct MixedUpdate {
  static __device__ void run(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
    const Constants<Op, T> c = constants_of<Op, T>(table, chunk.item);
    const Part part = part_of(chunk, item);
    void* grad = table.grads[chunk.item];
    const int t = static_cast<int>(threadIdx.x);
    int eights = 0;
    if constexpr (sizeof(T) == 4) {
      // A chunk begins at a multiple of eight elements; a stream that does not begin at one of 16 bytes is rare.
      bool whole = is_whole(item.param, static_cast<DType>(item.dtype), part.begin) &&
                   is_whole(grad, static_cast<DType>(item.grad_dtype), part.begin) &&
                   is_whole(item.master, DType::kFloat32, part.begin) &&
                   is_whole(item.ema, static_cast<DType>(item.ema_dtype), part.begin) &&
                   static_cast<DType>(item.grad_dtype) != DType::kFloat64 &&
                   static_cast<DType>(item.ema_dtype) != DType::kFloat64 &&
                   static_cast<DType>(item.state_dtype) != DType::kFloat64;
#pragma unroll
      for (int k = 0; k < kMaxStates; ++k)
        if (keeps<Op, V>(k))
          whole = whole && is_whole(item.states[k], static_cast<DType>(item.state_dtype), part.begin);
      if (whole) eights = part.numel / kEight;
      for (int n = t; n < eights; n += kThreads)
        update_mixed<Op, V, float, kEight>(table, c, item, grad, part.begin + n * kEight);
    }
    for (int n = eights * kEight + t; n < part.numel; n += kThreads)
      update_mixed<Op, V, T, 1>(table, c, item, grad, part.begin + n);
  }
};

template <class Op, class T>
__global__ __launch_bounds__(kThreads, 2) void mixed_kernel(StepTable table, Share share) {
  update_block<MixedUpdate, Op, T>(table, share);
}

}  // namespace

template <class Op>
void load_update_mixed() {
  load(mixed_kernel<Op, float>), load(mixed_kernel<Op, double>);
}

// True when there was anything to launch.
template <class Op>
bool launch_update_mixed(const StepTable& table, void* stream) {
  const bool done = launch_class(mixed_kernel<Op, float>, table, kMixed32, true, false, stream);
  return launch_class(mixed_kernel<Op, double>, table, kMixed64, !done, false, stream) || done;
}

}  // namespace thalweg::cuda
