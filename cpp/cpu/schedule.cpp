// Host side of schedule.hpp: whole arrays of values. Recursion is as deep as the plan, at most kMaxPlanDepth.
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

void fill_combined(const std::uint64_t* words, Node kind, const std::uint64_t* f, std::int64_t k, std::int64_t n,
                   double* out) {
  constexpr std::int64_t kBlock = 4096;
  std::vector<double> other(static_cast<std::size_t>(std::min(n, kBlock)));
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const std::int64_t size = std::min(kBlock, n - at);
    fill(words, f[1], k + at, size, out + at);
    for (std::int64_t c = 1; c < integer(f[0]); ++c) {
      fill(words, f[1 + c], k + at, size, other.data());
      for (std::int64_t i = 0; i < size; ++i)
        out[at + i] = plan::combine(kind, out[at + i], other[static_cast<std::size_t>(i)]);
    }
  }
}

// Each value of the child stands for `period` steps.
void fill_every(const std::uint64_t* words, const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  const std::int64_t period = integer(f[1]);
  for (std::int64_t done = 0; done < n;) {
    const std::int64_t size = std::min(n - done, period - (k + done) % period);
    fill(words, f[0], (k + done) / period, 1, out + done);
    std::fill(out + done + 1, out + done + size, out[done]);
    done += size;
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

// Cycle by cycle, each one a ramp and a cosine of its own.
void fill_restarts(Node kind, const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  const bool listed = kind == Node::kListed;
  const plan::Sgdr sgdr =
      listed ? plan::Sgdr{plan::restart(f), 1, 1, integer(f[7 + integer(f[7])])} : plan::sgdr(kind, f);
  const Restart& r = sgdr.restart;
  const std::int64_t total = sgdr.total;
  for (std::int64_t done = 0; done < n;) {
    const std::int64_t here = k + done;
    if (total >= 0 && here >= total) return std::fill(out + done, out + n, leaf_value(kind, f, here));
    const Cycle cycle = listed ? listed_cycle(f + 8, integer(f[7]), here) : sgdr_cycle(sgdr.t_0, sgdr.t_mult, here);
    const std::int64_t ramp = restart_warmup(r, cycle.length);
    if (cycle.position < ramp) {
      out[done++] = restart_value(r, cycle, false);
      continue;
    }
    std::int64_t size = std::min(n - done, cycle.length - cycle.position);
    if (total >= 0) size = std::min(size, total - here);
    fill_ramp<Cosine>(sgdr_peak(r.lr, r.eta_min, r.decay, cycle.index), r.eta_min, 0.0,
                      static_cast<double>(cycle.length - ramp), cycle.position - ramp, size, out + done);
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
  if (exact && (kind == Node::kSgdr || kind == Node::kWarmSgdr || kind == Node::kListed))
    return fill_restarts(kind, f, k, n, out);
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
    case Node::kSum:
    case Node::kMinimum:
    case Node::kMaximum:
      return fill_combined(words, kind, f, k, n, out);
    case Node::kEvery:
      return fill_every(words, f, k, n, out);
    case Node::kAdvance:
      for (std::int64_t i = 0; i < n;) {  // beyond the reach of steps the child is asked for one and the same
        const std::int64_t here = plan::advance_step(f, k + i);
        const bool far = here - integer(f[1]) < k + i;
        const std::int64_t size = far ? 1 : n - i;
        fill(words, f[0], here, size, out + i);
        i += size;
      }
      return;
    case Node::kClip:
      fill(words, f[0], k, n, out);
      for (std::int64_t i = 0; i < n; ++i)
        out[i] = out[i] < real(f[1]) ? real(f[1]) : out[i] > real(f[2]) ? real(f[2]) : out[i];
      return;
    default:
      return fill_leaf(kind, f, k, n, out);
  }
}

}  // namespace

void fill_values(const std::uint64_t* words, std::int64_t begin, std::int64_t count, double* out) {
  fill(words, words[2], begin, count, out);
}

}  // namespace thalweg
