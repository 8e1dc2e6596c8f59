// The plain loops of the CPU steps: from a functor to one loop body per variant, compute type and instruction set.
#pragma once

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
// Adds the squares of what Op::measure says of them to one lane per element: [end - begin] each.
using MeasureFn = void (*)(const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                           std::int64_t begin, std::int64_t end, double* first, double* second);

constexpr int kMaxVariants = 4;
struct SpanTable {
  SpanFn update[2][kMaxVariants] = {};      // [0 float, 1 double][variant]
  MeasureFn measure[2][kMaxVariants] = {};  // null where the optimizer has one phase
};

template <class Op, class T>
THALWEG_HD typename Op::template Scalars<T> constants_of(const StepScalars& scalars) {
  typename Op::template Scalars<T> out;
  if constexpr (sizeof(T) == 4) {
    std::memcpy(&out, scalars.f32, sizeof(out));
  } else {
    std::memcpy(&out, scalars.f64, sizeof(out));
  }
  return out;
}

// The streams of one item; those of states that the variant does not keep are null and never touched.
template <class Op, int V, class T>
struct Streams {
  static constexpr bool keeps(int state) { return (Op::states(V) >> state & 1) != 0; }

  T* __restrict p;
  const T* __restrict g;
  T* __restrict s0;
  T* __restrict s1;
  T* __restrict s2;
  T* __restrict s3;

  explicit THALWEG_HD Streams(const StepItem& item)
      : p(static_cast<T*>(item.param)),
        g(static_cast<const T*>(item.grad)),
        s0(static_cast<T*>(keeps(0) ? item.states[0] : nullptr)),
        s1(static_cast<T*>(keeps(1) ? item.states[1] : nullptr)),
        s2(static_cast<T*>(keeps(2) ? item.states[2] : nullptr)),
        s3(static_cast<T*>(keeps(3) ? item.states[3] : nullptr)) {}
};

template <class Op, int V, class T>
THALWEG_HD void span_body(const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                          std::int64_t begin, std::int64_t end) {
  static_assert(kMaxStates == 4, "write the streams out");
  using In = Streams<Op, V, T>;
  const auto c = constants_of<Op, T>(scalars);
  const T scale = static_cast<T>(verdict.grad_scale);
  const In in(item);
  T* __restrict p = in.p;
  const T* __restrict g = in.g;
  T* __restrict s0 = in.s0, * __restrict s1 = in.s1, * __restrict s2 = in.s2, * __restrict s3 = in.s3;
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    T s[kMaxStates] = {In::keeps(0) ? s0[i] : T(0), In::keeps(1) ? s1[i] : T(0), In::keeps(2) ? s2[i] : T(0),
                       In::keeps(3) ? s3[i] : T(0)};
    T value = p[i];
    Op::template update<V>(c, value, g[i] * scale, s);
    p[i] = value;
    if constexpr (In::keeps(0)) s0[i] = s[0];
    if constexpr (In::keeps(1)) s1[i] = s[1];
    if constexpr (In::keeps(2)) s2[i] = s[2];
    if constexpr (In::keeps(3)) s3[i] = s[3];
  }
}

template <class Op, int V, class T>
THALWEG_HD void measure_body(const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                             std::int64_t begin, std::int64_t end, double* __restrict first,
                             double* __restrict second) {
  using In = Streams<Op, V, T>;
  const auto c = constants_of<Op, T>(scalars);
  const T scale = static_cast<T>(verdict.grad_scale);
  const In in(item);
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    T s[kMaxStates] = {In::keeps(0) ? in.s0[i] : T(0), In::keeps(1) ? in.s1[i] : T(0), In::keeps(2) ? in.s2[i] : T(0),
                       In::keeps(3) ? in.s3[i] : T(0)};
    const Measured<T> found = Op::template measure<V>(c, in.p[i], in.g[i] * scale, s);
    const double a = static_cast<double>(found.first), b = static_cast<double>(found.second);
    first[i - begin] += a * a;
    second[i - begin] += b * b;
  }
}

#define THALWEG_SPANS(suffix, target)                                                                                \
  template <class Op, int V, class T>                                                                                \
  target void span_##suffix(const StepScalars& c, const StepVerdict& v, const StepItem& item, std::int64_t begin,    \
                            std::int64_t end) {                                                                      \
    span_body<Op, V, T>(c, v, item, begin, end);                                                                     \
  }                                                                                                                  \
  template <class Op, int V, class T>                                                                                \
  target void measure_##suffix(const StepScalars& c, const StepVerdict& v, const StepItem& item, std::int64_t begin, \
                               std::int64_t end, double* first, double* second) {                                    \
    measure_body<Op, V, T>(c, v, item, begin, end, first, second);                                                   \
  }                                                                                                                  \
  template <class Op, int V>                                                                                         \
  void fill_##suffix(SpanTable& table) {                                                                             \
    table.update[0][V] = &span_##suffix<Op, V, float>, table.update[1][V] = &span_##suffix<Op, V, double>;           \
    if constexpr (Op::kTwoPhase)                                                                                     \
      table.measure[0][V] = &measure_##suffix<Op, V, float>, table.measure[1][V] = &measure_##suffix<Op, V, double>; \
  }

THALWEG_SPANS(base, )
#if THALWEG_HAS_X86_ISA
THALWEG_SPANS(avx2, THALWEG_TARGET_AVX2)
THALWEG_SPANS(avx512, THALWEG_TARGET_AVX512)
#endif

template <class Op, int V>
void fill_variant(SpanTable* tables) {
  fill_base<Op, V>(tables[0]);
#if THALWEG_HAS_X86_ISA
  fill_avx2<Op, V>(tables[1]);
  fill_avx512<Op, V>(tables[2]);
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
void run_item(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
              std::int64_t begin, std::int64_t end);
// The same for a MeasureFn: of elements whose gradients must be clipped by value, or that lie in other types in memory.
void measure_item(const SpanTable& spans, const StepScalars& scalars, const StepVerdict& verdict, const StepItem& item,
                  std::int64_t begin, std::int64_t end, double* first, double* second);

}  // namespace thalweg
