// Host side of schedule.hpp: whole arrays of values, cycles. Recursion is as deep as the plan, at most kMaxPlanDepth.
#include "thalweg/schedule.hpp"

#include <algorithm>
#include <vector>

#include "isa.hpp"

namespace thalweg {
namespace {

using plan::integer;
using plan::real;

// Values of the sub-plan at `at` for steps [k, k + n).
void fill(const std::uint64_t* words, std::uint64_t at, std::int64_t k, std::int64_t n, double* out);

void fill_product(const std::uint64_t* words, const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  constexpr std::int64_t kBlock = 4096;
  std::vector<double> factor(static_cast<std::size_t>(std::min(n, kBlock)));
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const std::int64_t size = std::min(kBlock, n - at);
    fill(words, f[1], k + at, size, out + at);
    for (std::int64_t c = 1; c < integer(f[0]); ++c) {
      fill(words, f[1 + c], k + at, size, factor.data());
      for (std::int64_t i = 0; i < size; ++i) out[at + i] *= factor[static_cast<std::size_t>(i)];
    }
  }
}

// Ramps have a loop of their own, which the compiler turns into vector code; the bits are those of the shape alone.
// out[i] = shape(a, b, begin, end, first + i); the lane is an int because every instruction set converts those.
template <class Shape>
THALWEG_HD void ramp_body(Shape shape, double a, double b, double begin, double end, double first, std::int64_t n,
                          double* __restrict out) {
  constexpr int kLanes = 16;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const double here = first + static_cast<double>(i);  // whole numbers below 2^53: here + lane is exact
    for (int lane = 0; lane < kLanes; ++lane) out[i + lane] = shape(a, b, begin, end, here + lane);
  }
  for (; i < n; ++i) out[i] = shape(a, b, begin, end, first + static_cast<double>(i));
}

struct Cosine {
  THALWEG_HD double operator()(double a, double b, double begin, double end, double t) const {
    return cosine_value(a, b, begin, end, t);
  }
};
struct Linear {
  THALWEG_HD double operator()(double a, double b, double begin, double end, double t) const {
    return linear_value(a, b, begin, end, t);
  }
};

using RampFn = void (*)(double, double, double, double, double, std::int64_t, double*);

template <class Shape>
void ramp_base(double a, double b, double begin, double end, double first, std::int64_t n, double* out) {
  ramp_body(Shape{}, a, b, begin, end, first, n, out);
}
#if THALWEG_HAS_X86_ISA
template <class Shape>
THALWEG_TARGET_AVX2 void ramp_avx2(double a, double b, double begin, double end, double first, std::int64_t n,
                                   double* out) {
  ramp_body(Shape{}, a, b, begin, end, first, n, out);
}
template <class Shape>
THALWEG_TARGET_AVX512 void ramp_avx512(double a, double b, double begin, double end, double first, std::int64_t n,
                                       double* out) {
  ramp_body(Shape{}, a, b, begin, end, first, n, out);
}
template <class Shape>
constexpr RampFn kRamp[kNumIsas] = {&ramp_base<Shape>, &ramp_avx2<Shape>, &ramp_avx512<Shape>};
#else
template <class Shape>
constexpr RampFn kRamp[kNumIsas] = {&ramp_base<Shape>, nullptr, nullptr};
#endif

template <class Shape>
void fill_ramp(double a, double b, double begin, double end, std::int64_t first, std::int64_t n, double* out) {
  kRamp<Shape>[static_cast<int>(active_isa())](a, b, begin, end, static_cast<double>(first), n, out);
}

// Cycle by cycle, each one a cosine of its own.
void fill_sgdr(const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  const std::int64_t total = integer(f[5]);
  for (std::int64_t done = 0; done < n;) {
    if (total >= 0 && k + done >= total) return std::fill(out + done, out + n, leaf_value(Node::kSgdr, f, k + done));
    const Cycle cycle = sgdr_cycle(integer(f[2]), integer(f[3]), k + done);
    std::int64_t size = std::min(n - done, cycle.length - cycle.position);
    if (total >= 0) size = std::min(size, total - (k + done));
    fill_ramp<Cosine>(sgdr_peak(real(f[0]), real(f[1]), real(f[4]), cycle.index), real(f[1]), 0.0,
                      static_cast<double>(cycle.length), cycle.position, size, out + done);
    done += size;
  }
}

void fill_leaf(Node kind, const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  constexpr std::int64_t kExact = std::int64_t{1} << 53;
  const bool exact = k < kExact - n;
  if (exact && kind == Node::kCosine)
    return fill_ramp<Cosine>(real(f[0]), real(f[1]), real(f[2]), real(f[3]), k, n, out);
  if (exact && kind == Node::kLinear)
    return fill_ramp<Linear>(real(f[0]), real(f[1]), real(f[2]), real(f[3]), k, n, out);
  if (exact && kind == Node::kSgdr) return fill_sgdr(f, k, n, out);
  for (std::int64_t i = 0; i < n; ++i) out[i] = leaf_value(kind, f, k + i);
}

void fill(const std::uint64_t* words, std::uint64_t at, std::int64_t k, std::int64_t n, double* out) {
  const Node kind = static_cast<Node>(words[at]);
  const std::uint64_t* f = words + at + 1;
  switch (kind) {
    case Node::kSequence:
      for (std::int64_t done = 0; done < n;) {
        const std::int64_t i = plan::child_at(f, k + done);
        const bool last = i + 1 == integer(f[0]);
        const std::int64_t size = last ? n - done : std::min(n - done, integer(f[2 + i]) - (k + done));
        fill(words, f[1 + integer(f[0]) + i], k + done - integer(f[1 + i]), size, out + done);
        done += size;
      }
      return;
    case Node::kRepeat:
      for (std::int64_t done = 0; done < n;) {
        const std::int64_t step = plan::repeat_step(f, k + done);
        const bool over = step == integer(f[1]);
        const std::int64_t size = over ? 1 : std::min(n - done, integer(f[1]) - step);
        fill(words, f[0], step, size, out + done);
        done += size;
        if (over && done < n) std::fill(out + done, out + n, out[done - 1]), done = n;
      }
      return;
    case Node::kHold: {
      const std::int64_t size = std::clamp<std::int64_t>(integer(f[1]) - k, 0, n);
      fill(words, f[0], k, size, out);
      if (size == n) return;
      fill(words, f[0], integer(f[1]), 1, out + size);
      return std::fill(out + size, out + n, out[size]);
    }
    case Node::kProduct:
      return fill_product(words, f, k, n, out);
    case Node::kClip:
      fill(words, f[0], k, n, out);
      for (std::int64_t i = 0; i < n; ++i)
        out[i] = out[i] < real(f[1]) ? real(f[1]) : out[i] > real(f[2]) ? real(f[2]) : out[i];
      return;
    default:
      return fill_leaf(kind, f, k, n, out);
  }
}

// Whether any shape below is cyclic; a repeat always is.
bool has_cycles(const std::uint64_t* words, std::uint64_t at) {
  const Node kind = static_cast<Node>(words[at]);
  const std::uint64_t* f = words + at + 1;
  if (kind == Node::kClip || kind == Node::kHold) return has_cycles(words, f[0]);
  if (kind == Node::kSequence || kind == Node::kProduct) {
    const std::uint64_t* child = f + 1 + (kind == Node::kSequence ? integer(f[0]) : 0);
    return std::any_of(child, child + integer(f[0]), [&](std::uint64_t c) { return has_cycles(words, c); });
  }
  return kind == Node::kSgdr || kind == Node::kSplit || kind == Node::kTriangular || kind == Node::kRepeat;
}

// The factor of a product whose cycles count: the first that has any.
std::uint64_t cyclic_factor(const std::uint64_t* words, const std::uint64_t* f) {
  for (std::int64_t i = 1; i < integer(f[0]); ++i)
    if (has_cycles(words, f[i])) return f[i];
  return f[integer(f[0])];
}

Cycle find_cycle(const std::uint64_t* words, std::uint64_t at, std::int64_t k);

// How many cycles begin in steps [0, k) under the node at `at`.
std::int64_t cycles_begun(const std::uint64_t* words, std::uint64_t at, std::int64_t k) {
  if (k <= 0 || !has_cycles(words, at)) return 0;
  const std::uint64_t* f = words + at + 1;
  switch (static_cast<Node>(words[at])) {
    case Node::kSgdr:
      return find_cycle(words, at, integer(f[5]) >= 0 ? std::min(k, integer(f[5])) - 1 : k - 1).index + 1;
    case Node::kSplit:
      return find_cycle(words, at, std::min(k, integer(f[2])) - 1).index + 1;
    case Node::kTriangular:
      return find_cycle(words, at, k - 1).index + 1;
    case Node::kSequence: {
      const std::int64_t n = integer(f[0]);
      std::int64_t begun = 0;
      for (std::int64_t i = 0; i < n && integer(f[1 + i]) < k; ++i) {
        const std::int64_t until = i + 1 < n ? std::min(k, integer(f[2 + i])) : k;
        begun += cycles_begun(words, f[1 + n + i], until - integer(f[1 + i]));
      }
      return begun;
    }
    case Node::kRepeat: {
      const std::int64_t period = integer(f[1]);
      const bool own = !has_cycles(words, f[0]);
      const std::int64_t each = own ? 1 : cycles_begun(words, f[0], period);
      if (integer(f[2]) >= 0 && k / period >= integer(f[2])) return integer(f[2]) * each;
      return k / period * each + (own ? (k % period > 0 ? 1 : 0) : cycles_begun(words, f[0], k % period));
    }
    case Node::kHold:
      return cycles_begun(words, f[0], std::min(k, integer(f[1])));
    case Node::kClip:
      return cycles_begun(words, f[0], k);
    case Node::kProduct:
      return cycles_begun(words, cyclic_factor(words, f), k);
    default:
      return 0;
  }
}

// Cycle of step k under the node at `at`: of a cyclic shape, or of a repeat around shapes that have none. The index
// counts the cycles of earlier pieces and repetitions in.
Cycle find_cycle(const std::uint64_t* words, std::uint64_t at, std::int64_t k) {
  constexpr Cycle kNone{-1, 0, 0};
  const Node kind = static_cast<Node>(words[at]);
  const std::uint64_t* f = words + at + 1;
  switch (kind) {
    case Node::kSgdr:
      return integer(f[5]) >= 0 && k >= integer(f[5]) ? kNone : sgdr_cycle(integer(f[2]), integer(f[3]), k);
    case Node::kSplit:
      return k < integer(f[2]) ? split_cycle(integer(f[2]), integer(f[3]), integer(f[4]) != 0, k) : kNone;
    case Node::kTriangular: {
      const std::int64_t period = integer(f[2]) + integer(f[3]);
      return {k / period, k % period, period};
    }
    case Node::kSequence: {
      const std::int64_t here = plan::child_at(f, k);
      Cycle cycle = find_cycle(words, f[1 + integer(f[0]) + here], k - integer(f[1 + here]));
      if (cycle.index >= 0 && here > 0) cycle.index += cycles_begun(words, at, integer(f[1 + here]));
      return cycle;
    }
    case Node::kRepeat: {
      const std::int64_t period = integer(f[1]);
      if (integer(f[2]) >= 0 && k / period >= integer(f[2])) return kNone;
      if (!has_cycles(words, f[0])) return {k / period, k % period, period};
      Cycle cycle = find_cycle(words, f[0], k % period);
      if (cycle.index >= 0) cycle.index += k / period * cycles_begun(words, f[0], period);
      return cycle;
    }
    case Node::kHold:
      return k < integer(f[1]) ? find_cycle(words, f[0], k) : kNone;
    case Node::kClip:
      return find_cycle(words, f[0], k);
    case Node::kProduct:
      return find_cycle(words, cyclic_factor(words, f), k);
    default:
      return kNone;
  }
}

}  // namespace

void fill_values(const std::uint64_t* words, std::int64_t begin, std::int64_t count, double* out) {
  fill(words, words[2], begin, count, out);
}

Cycle cycle_at(const std::uint64_t* words, std::int64_t k) { return find_cycle(words, words[2], k); }

}  // namespace thalweg
