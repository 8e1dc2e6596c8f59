// The plain loops of the CPU steps: from a functor to one loop body per variant, compute type and instruction set.
#pragma once

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "isa.hpp"
#include "thalweg/optimizers/scalars.hpp"
#include "thalweg/step.hpp"
#include "thalweg/step_elements.hpp"

namespace thalweg {

// Elements [begin, end) of an item that lies in memory in its compute type. Gradients are scaled, not clipped by value:
// that costs small tensors a tenth, and step_mixed.cpp has done it before where it is wanted.
using SpanFn = void (*)(const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                        std::int64_t begin, std::int64_t end);

constexpr int kMaxVariants = 4;
using SpanTable = SpanFn[2][kMaxVariants];  // [0 float, 1 double][variant]

template <class Op, int V, class T>
THALWEG_HD void span_body(const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                          std::int64_t begin, std::int64_t end) {
  constexpr int kStates = Op::state_count(V);
  typename Op::template Scalars<T> c;
  if constexpr (sizeof(T) == 4) {
    std::memcpy(&c, scalars.f32, sizeof(c));
  } else {
    std::memcpy(&c, scalars.f64, sizeof(c));
  }
  const T scale = static_cast<T>(verdict.grad_scale);
  T* __restrict p = static_cast<T*>(item.param);
  const T* __restrict g = static_cast<const T*>(item.grad);
  T* __restrict s0 = static_cast<T*>(kStates > 0 ? item.states[0] : nullptr);
  T* __restrict s1 = static_cast<T*>(kStates > 1 ? item.states[1] : nullptr);
  T* __restrict s2 = static_cast<T*>(kStates > 2 ? item.states[2] : nullptr);
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    T s[kMaxStates] = {kStates > 0 ? s0[i] : T(0), kStates > 1 ? s1[i] : T(0), kStates > 2 ? s2[i] : T(0)};
    T value = p[i];
    Op::template update<V>(c, value, g[i] * scale, s);
    p[i] = value;
    if constexpr (kStates > 0) s0[i] = s[0];
    if constexpr (kStates > 1) s1[i] = s[1];
    if constexpr (kStates > 2) s2[i] = s[2];
  }
}

template <class Op, int V, class T>
void span_base(const StepScalars& c, const StepVerdict& v, const StepItem& item, std::int64_t begin, std::int64_t end) {
  span_body<Op, V, T>(c, v, item, begin, end);
}
#if THALWEG_HAS_X86_ISA
template <class Op, int V, class T>
THALWEG_TARGET_AVX2 void span_avx2(const StepScalars& c, const StepVerdict& v, const StepItem& item, std::int64_t begin,
                                   std::int64_t end) {
  span_body<Op, V, T>(c, v, item, begin, end);
}
template <class Op, int V, class T>
THALWEG_TARGET_AVX512 void span_avx512(const StepScalars& c, const StepVerdict& v, const StepItem& item,
                                       std::int64_t begin, std::int64_t end) {
  span_body<Op, V, T>(c, v, item, begin, end);
}
#endif

template <class Op, int V>
void fill_variant(SpanTable* tables) {
  tables[0][0][V] = &span_base<Op, V, float>, tables[0][1][V] = &span_base<Op, V, double>;
#if THALWEG_HAS_X86_ISA
  tables[1][0][V] = &span_avx2<Op, V, float>, tables[1][1][V] = &span_avx2<Op, V, double>;
  tables[2][0][V] = &span_avx512<Op, V, float>, tables[2][1][V] = &span_avx512<Op, V, double>;
#endif
}

// tables: [kNumIsas]
template <class Op, int... V>
void fill_spans(SpanTable* tables, std::integer_sequence<int, V...>) {
  (fill_variant<Op, V>(tables), ...);
}

// Whether the plain loop is all that an item needs.
inline bool is_bare(const StepItem& item, const StepVerdict& verdict) {
  return is_plain(item) && item.ema == nullptr && item.grad_write == GradWrite::kKeep && verdict.grad_limit == INFINITY;
}

// Elements [begin, end) of any item: other types in memory, master weights, moving average, zeroing (step_mixed.cpp).
void run_item(const SpanTable& spans, int states, const StepScalars& scalars, const StepVerdict& verdict,
              const StepItem& item, std::int64_t begin, std::int64_t end);

}  // namespace thalweg
