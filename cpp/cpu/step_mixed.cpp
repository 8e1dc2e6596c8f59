// What a step does beside the plain loop, block by block while the block is in the first cache: conversion of other
// storage types, master weights, stochastic rounding, the moving average, zeroed gradients.
#include <algorithm>
#include <cmath>

#include "step_spans.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace {

constexpr std::int64_t kBlock = 256;  // elements; 1,024 and 4,096 were slower (benchmarks/README.md)

// ---- loops over one stream; Type is its storage, T what is computed in ----
template <class Type, class T>
THALWEG_HD void widen_body(T* __restrict out, const void* data, std::int64_t begin, std::int64_t n) {
  const auto* in = static_cast<const typename Type::Storage*>(data) + begin;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(Type::load(in[i]));
}

template <class Type, class T>
THALWEG_HD void grad_body(T* __restrict out, const void* data, std::int64_t begin, std::int64_t n, T scale, T limit) {
  const auto* in = static_cast<const typename Type::Storage*>(data) + begin;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) out[i] = conditioned(static_cast<T>(Type::load(in[i])), scale, limit);
}

template <class Type, class T>
THALWEG_HD void narrow_body(void* data, const T* __restrict values, std::int64_t begin, std::int64_t n) {
  auto* out = static_cast<typename Type::Storage*>(data) + begin;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) out[i] = Type::store(static_cast<typename Type::Compute>(values[i]));
}

template <class Type, class T>
THALWEG_HD void average_body(void* data, const T* __restrict values, std::int64_t begin, std::int64_t n, T keep,
                             T take) {
  auto* ema = static_cast<typename Type::Storage*>(data) + begin;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const T old = static_cast<T>(Type::load(ema[i]));
    ema[i] = Type::store(static_cast<typename Type::Compute>(weighted_mean(old, values[i], keep, take)));
  }
}

// The loops, each compiled for every instruction set.
template <class T>
struct Loops {
  void (*widen)(T*, const void*, std::int64_t, std::int64_t);
  void (*grad)(T*, const void*, std::int64_t, std::int64_t, T, T);
  void (*narrow)(void*, const T*, std::int64_t, std::int64_t);
  void (*average)(void*, const T*, std::int64_t, std::int64_t, T, T);
};

#define THALWEG_LOOPS(suffix, target)                                                                             \
  template <class Type, class T>                                                                                  \
  target void widen_##suffix(T* out, const void* data, std::int64_t begin, std::int64_t n) {                      \
    widen_body<Type, T>(out, data, begin, n);                                                                     \
  }                                                                                                               \
  template <class Type, class T>                                                                                  \
  target void grad_##suffix(T* out, const void* data, std::int64_t begin, std::int64_t n, T scale, T limit) {     \
    grad_body<Type, T>(out, data, begin, n, scale, limit);                                                        \
  }                                                                                                               \
  template <class Type, class T>                                                                                  \
  target void narrow_##suffix(void* data, const T* values, std::int64_t begin, std::int64_t n) {                  \
    narrow_body<Type, T>(data, values, begin, n);                                                                 \
  }                                                                                                               \
  template <class Type, class T>                                                                                  \
  target void average_##suffix(void* data, const T* values, std::int64_t begin, std::int64_t n, T keep, T take) { \
    average_body<Type, T>(data, values, begin, n, keep, take);                                                    \
  }
#define THALWEG_LOOPS_OF(suffix, Type) \
  {widen_##suffix<Type, T>, grad_##suffix<Type, T>, narrow_##suffix<Type, T>, average_##suffix<Type, T>}
#define THALWEG_LOOPS_ROW(suffix)                                                                             \
  {THALWEG_LOOPS_OF(suffix, Native64), THALWEG_LOOPS_OF(suffix, Native32), THALWEG_LOOPS_OF(suffix, Brain16), \
   THALWEG_LOOPS_OF(suffix, Half16)}

THALWEG_LOOPS(base, )
#if THALWEG_HAS_X86_ISA
THALWEG_LOOPS(avx2, THALWEG_TARGET_AVX2)
THALWEG_LOOPS(avx512, THALWEG_TARGET_AVX512)
template <class T>
constexpr Loops<T> kLoops[kNumIsas][kNumDTypes] = {THALWEG_LOOPS_ROW(base), THALWEG_LOOPS_ROW(avx2),
                                                   THALWEG_LOOPS_ROW(avx512)};
#else
template <class T>
constexpr Loops<T> kLoops[kNumIsas][kNumDTypes] = {THALWEG_LOOPS_ROW(base)};
#endif

template <class T>
const Loops<T>& loops(DType dtype) {
  return kLoops<T>[static_cast<int>(active_isa())][static_cast<int>(dtype)];
}

template <class T>
void round_by_chance(const StepVerdict& verdict, const StepItem& item, const T* values, std::int64_t begin,
                     std::int64_t n) {
  auto* out = static_cast<std::uint16_t*>(item.param);
  Philox4 bits{};
  for (std::int64_t i = begin; i < begin + n; ++i) {
    const int lane = static_cast<int>(i % kRoundingBlock);
    if (lane == 0 || i == begin) bits = rounding_bits(verdict.seed, item.place, verdict.step, i / kRoundingBlock);
    out[i] = stochastic_bfloat16(static_cast<float>(values[i - begin]), bits, lane);
  }
}

// values: room for n.
template <class T>
void write_grads(const StepVerdict& verdict, const StepItem& item, std::int64_t at, std::int64_t n, T* values) {
  const Loops<T>& own = loops<T>(item.grad_dtype);
  if (item.grad_write == GradWrite::kZero) {
    const std::int64_t size = size_of(item.grad_dtype);
    std::memset(static_cast<char*>(item.grad) + at * size, 0, static_cast<std::size_t>(n * size));
    return;
  }
  own.grad(values, item.grad, at, n, static_cast<T>(verdict.unscale), static_cast<T>(INFINITY));
  own.narrow(item.grad, values, at, n);
}

// A block of values in the compute type.
template <class T>
struct Scratch {
  alignas(64) T param[kBlock];
  alignas(64) T grad[kBlock];
  alignas(64) T states[kMaxStates][kBlock];
};

// An item whose streams are the scratch, filled with elements [at, at + n); its gradients are conditioned.
template <class T>
StepItem load_block(const StepVerdict& verdict, const StepItem& item, std::int64_t at, std::int64_t n,
                    Scratch<T>& scratch) {
  const bool has_master = item.master != nullptr;
  loops<T>(has_master ? DType::kFloat32 : item.dtype)
      .widen(scratch.param, has_master ? item.master : item.param, at, n);
  loops<T>(item.grad_dtype)
      .grad(scratch.grad, item.grad, at, n, static_cast<T>(verdict.grad_scale), static_cast<T>(verdict.grad_limit));
  StepItem inner;
  inner.param = scratch.param;
  inner.grad = scratch.grad;
  for (int k = 0; k < kMaxStates; ++k) {
    if (item.states[k] == nullptr) continue;
    loops<T>(item.state_dtype).widen(scratch.states[k], item.states[k], at, n);
    inner.states[k] = scratch.states[k];
  }
  return inner;
}

// What the plain loops see of a step whose gradients are conditioned already.
StepVerdict without_scale(const StepVerdict& verdict) {
  StepVerdict done = verdict;
  done.grad_scale = 1;
  return done;
}

// Converts, updates and converts back; scratch.param is then what the parameter is worth.
template <class T>
void run_converted(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                   std::int64_t at, std::int64_t n, Scratch<T>& scratch) {
  const bool has_master = item.master != nullptr;
  const StepItem inner = load_block<T>(verdict, item, at, n, scratch);
  spans.update[sizeof(T) == 8][item.variant](scalars, without_scale(verdict), inner, 0, n);
  for (int k = 0; k < kMaxStates; ++k)
    if (item.states[k] != nullptr) loops<T>(item.state_dtype).narrow(item.states[k], scratch.states[k], at, n);
  if (has_master) loops<T>(DType::kFloat32).narrow(item.master, scratch.param, at, n);
  if (item.stochastic) {
    round_by_chance(verdict, item, scratch.param, at, n);
  } else {
    loops<T>(item.dtype).narrow(item.param, scratch.param, at, n);
  }
  if (!has_master && item.ema != nullptr) loops<T>(item.dtype).widen(scratch.param, item.param, at, n);
}

// The average is read after the other streams of a block; its memory is asked for before them.
void prefetch_average(const StepItem& item, std::int64_t at, std::int64_t n) {
  if (item.ema == nullptr) return;
  const char* from = static_cast<const char*>(item.ema) + at * size_of(item.ema_dtype);
  for (std::int64_t byte = 0; byte < n * size_of(item.ema_dtype); byte += 64) __builtin_prefetch(from + byte, 1, 2);
}

template <class T>
void run_blocks(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                std::int64_t begin, std::int64_t end) {
  Scratch<T> scratch;
  const bool plain = is_plain(item) && verdict.grad_limit == INFINITY;
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t n = std::min(end - at, kBlock);
    prefetch_average(item, at, n);
    if (plain) {
      spans.update[sizeof(T) == 8][item.variant](scalars, verdict, item, at, at + n);
    } else {
      run_converted<T>(spans, scalars, verdict, item, at, n, scratch);
    }
    if (item.ema != nullptr) {
      const T* values = plain ? static_cast<const T*>(item.param) + at : scratch.param;
      loops<T>(item.ema_dtype)
          .average(item.ema, values, at, n, static_cast<T>(scalars.ema_keep), static_cast<T>(scalars.ema_take));
    }
    if (item.grad_write != GradWrite::kKeep) write_grads<T>(verdict, item, at, n, scratch.grad);
  }
}

template <class T>
void measure_blocks(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict,
                    const StepItem& item, std::int64_t begin, std::int64_t end, double* first, double* second) {
  Scratch<T> scratch;
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t n = std::min(end - at, kBlock);
    const StepItem inner = load_block<T>(verdict, item, at, n, scratch);
    spans.measure[sizeof(T) == 8][item.variant](scalars, without_scale(verdict), inner, 0, n, first + (at - begin),
                                                second + (at - begin));
  }
}

}  // namespace

void run_item(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
              std::int64_t begin, std::int64_t end) {
  if (item.dtype == DType::kFloat64) return run_blocks<double>(spans, scalars, verdict, item, begin, end);
  run_blocks<float>(spans, scalars, verdict, item, begin, end);
}

void measure_item(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                  std::int64_t begin, std::int64_t end, double* first, double* second) {
  if (item.dtype == DType::kFloat64)
    return measure_blocks<double>(spans, scalars, verdict, item, begin, end, first, second);
  measure_blocks<float>(spans, scalars, verdict, item, begin, end, first, second);
}

}  // namespace thalweg
