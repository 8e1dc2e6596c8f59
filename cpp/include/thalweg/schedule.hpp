// Schedules as data: a Plan is a flat, relocatable buffer of 64-bit words, evaluated by value_at(). Host and device.
// No allocation, no exceptions, no recursion.
//
// words[0] magic and version, words[1] number of words, words[2] offset of the root node. A node is its kind followed
// by its fields (doubles and int64 as bits); children are named by their offset, stand before their one parent, and the
// root is the last node, so that the whole is a tree by construction and memcpy moves it to a device:
//   leaf shapes               see leaf_value()
//   sequence n b_i c_i        child i sees step - b_i from step b_i on; found by binary search
//   product  n c_i            product of the children; sum, minimum, maximum likewise
//   every    c n              child at step / n, rounded down
//   advance  c n              child at step + n
//   clip     c lo hi          child's value within [lo, hi]
//   repeat   c period count   child at step mod period; count < 0 without end, then held at the child's f(period)
//   hold     c length         child's f(length) from step `length` on
#pragma once

#include <cstdint>

#include "dtype.hpp"
#include "schedule_cycles.hpp"

namespace thalweg {

constexpr std::uint64_t kPlanMagic = 0x746877'706c0002ull;  // "thw" "pl", version 2
constexpr int kPlanHeaderWords = 3;
constexpr int kMaxPlanDepth = 32;  // nodes on the way from the root to a leaf

enum class Node : std::int64_t {
  kConstant = 1,      // value
  kLinear = 2,        // a b begin end
  kCosine = 3,        // a b begin end
  kPolynomial = 4,    // a b n power
  kExponential = 5,   // a gamma
  kGeometric = 6,     // a b n
  kStep = 7,          // a gamma step_size
  kMultistep = 8,     // a gamma count milestones...
  kSgdr = 9,          // lr eta_min t_0 t_mult decay total (negative: without end)
  kSplit = 10,        // lr eta_min total_steps cycles even
  kTriangular = 11,   // base_lr max_lr up down mode gamma
  kTable = 12,        // count values...
  kSqrt = 13,         // a b begin end
  kSquare = 14,       // a b begin end
  kRex = 15,          // a b begin end
  kTanh = 16,         // a b n lower upper
  kInverseTime = 17,  // a rate n
  kInverseSqrt = 18,  // a timescale shift
  kApproach = 19,     // a b tau begin
  kSequence = 20,
  kProduct = 21,
  kClip = 22,
  kRepeat = 23,
  kHold = 24,
  kSum = 25,
  kMinimum = 26,
  kMaximum = 27,
  kEvery = 28,
  kAdvance = 29,
  kDecayed = 30,   // a b n k exponent wave
  kNoise = 31,     // scale uniform low span seed
  kListed = 32,    // the seven fields of Restart, count begins..., the last of which is the end
  kWarmSgdr = 33,  // the seven fields of Restart, t_0 t_mult total
};

namespace plan {

THALWEG_HD double real(std::uint64_t word) { return bit_cast<double>(word); }
THALWEG_HD std::int64_t integer(std::uint64_t word) { return static_cast<std::int64_t>(word); }

// Index of the child of a sequence that covers step k: the last begin <= k. f points at the number of children.
THALWEG_HD std::int64_t child_at(const std::uint64_t* f, std::int64_t k) {
  const std::int64_t passed = milestones_passed(f + 1, integer(f[0]), k);
  return passed > 0 ? passed - 1 : 0;
}

// Step that the child of a repeat node sees. f points at the child.
THALWEG_HD std::int64_t repeat_step(const std::uint64_t* f, std::int64_t k) {
  const std::int64_t period = integer(f[1]);
  const std::int64_t count = integer(f[2]);
  return count >= 0 && k / period >= count ? period : k % period;
}

// Step that the child of an advance node sees; stops far beyond every schedule instead of overflowing.
THALWEG_HD std::int64_t advance_step(const std::uint64_t* f, std::int64_t k) {
  constexpr std::int64_t kFar = std::int64_t{1} << 62;
  return k < kFar - integer(f[1]) ? k + integer(f[1]) : kFar;
}

// Nodes that combine the values of all their children at the same step.
THALWEG_HD bool combines(Node kind) {
  return kind == Node::kProduct || kind == Node::kSum || kind == Node::kMinimum || kind == Node::kMaximum;
}

THALWEG_HD double combine(Node kind, double a, double b) {
  return kind == Node::kProduct   ? a * b
         : kind == Node::kSum     ? a + b
         : kind == Node::kMinimum ? (a < b ? a : b)
                                  : (a > b ? a : b);
}

THALWEG_HD Restart restart(const std::uint64_t* f) {
  return {real(f[0]), real(f[1]), real(f[2]), integer(f[3]), real(f[4]), real(f[5]), real(f[6])};
}

// Restarts whose lengths are powers, with a ramp in every cycle or without.
struct Sgdr {
  Restart restart;
  std::int64_t t_0;
  std::int64_t t_mult;
  std::int64_t total;  // negative: without end
};

THALWEG_HD Sgdr sgdr(Node kind, const std::uint64_t* f) {
  if (kind == Node::kWarmSgdr) return {restart(f), integer(f[7]), integer(f[8]), integer(f[9])};
  return {{real(f[0]), real(f[1]), real(f[4]), 0, 0.0, 0.0, 1.0}, integer(f[2]), integer(f[3]), integer(f[5])};
}

}  // namespace plan

// Value of a leaf; f points at its fields.
THALWEG_HD double leaf_value(Node kind, const std::uint64_t* f, std::int64_t k) {
  using plan::integer;
  using plan::real;
  const double t = static_cast<double>(k);
  switch (kind) {
    case Node::kConstant:
      return real(f[0]);
    case Node::kLinear:
      return linear_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kCosine:
      return cosine_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kPolynomial:
      return polynomial_value(real(f[0]), real(f[1]), static_cast<double>(integer(f[2])), real(f[3]), t);
    case Node::kExponential:
      return exponential_value(real(f[0]), real(f[1]), t);
    case Node::kGeometric:
      return geometric_value(real(f[0]), real(f[1]), static_cast<double>(integer(f[2])), t);
    case Node::kStep:
      return exponential_value(real(f[0]), real(f[1]), static_cast<double>(k / integer(f[2])));
    case Node::kMultistep:
      return exponential_value(real(f[0]), real(f[1]), static_cast<double>(milestones_passed(f + 3, integer(f[2]), k)));
    case Node::kSgdr:
    case Node::kWarmSgdr: {
      const plan::Sgdr sgdr = plan::sgdr(kind, f);
      return sgdr_value(sgdr.restart, sgdr.t_0, sgdr.t_mult, sgdr.total, k);
    }
    case Node::kListed:
      return listed_value(plan::restart(f), f + 8, integer(f[7]), k);
    case Node::kSplit:
      return split_value(real(f[0]), real(f[1]), integer(f[2]), integer(f[3]), integer(f[4]) != 0, k);
    case Node::kTriangular:
      return triangular_value(real(f[0]), real(f[1]), integer(f[2]), integer(f[3]),
                              static_cast<TriangularMode>(integer(f[4])), real(f[5]), k);
    case Node::kTable:
      return real(f[1 + (k < integer(f[0]) ? k : integer(f[0]) - 1)]);
    case Node::kSqrt:
      return one_minus_sqrt_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kSquare:
      return one_minus_square_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kRex:
      return rex_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kTanh:
      return tanh_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), real(f[4]), t);
    case Node::kInverseTime:
      return inverse_time_value(real(f[0]), real(f[1]), real(f[2]), t);
    case Node::kInverseSqrt:
      return inverse_sqrt_value(real(f[0]), real(f[1]), real(f[2]), t);
    case Node::kApproach:
      return approach_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), t);
    case Node::kDecayed:
      return decayed_value(real(f[0]), real(f[1]), real(f[2]), real(f[3]), real(f[4]), integer(f[5]) != 0, t);
    case Node::kNoise:
      return noise_value(real(f[0]), integer(f[1]) != 0, real(f[2]), real(f[3]), integer(f[4]), k);
    default:
      return 0.0;  // not a leaf; a validated plan never comes here
  }
}

// f(k) of a validated plan: the value that update k + 1 uses; steps below 0 count as 0.
THALWEG_HD double value_at(const std::uint64_t* words, std::int64_t k) {
  struct Frame {
    std::uint64_t node;
    std::int64_t next;  // child of a product or the like that comes next
    std::int64_t step;
    double value;
  };
  Frame stack[kMaxPlanDepth];
  int depth = 0;
  std::uint64_t at = words[2];
  k = k < 0 ? 0 : k;
  while (true) {
    const Node kind = static_cast<Node>(words[at]);
    const std::uint64_t* f = words + at + 1;
    if (kind == Node::kSequence) {
      const std::int64_t i = plan::child_at(f, k);
      k -= plan::integer(f[1 + i]);
      at = f[1 + plan::integer(f[0]) + i];
      continue;
    }
    if (kind == Node::kRepeat) {
      k = plan::repeat_step(f, k);
      at = f[0];
      continue;
    }
    if (kind == Node::kHold) {
      k = k < plan::integer(f[1]) ? k : plan::integer(f[1]);
      at = f[0];
      continue;
    }
    if (kind == Node::kEvery) {
      k /= plan::integer(f[1]);
      at = f[0];
      continue;
    }
    if (kind == Node::kAdvance) {
      k = plan::advance_step(f, k);
      at = f[0];
      continue;
    }
    if (plan::combines(kind) || kind == Node::kClip) {
      stack[depth++] = {at, 1, k, 0.0};
      at = kind == Node::kClip ? f[0] : f[1];
      continue;
    }
    double value = leaf_value(kind, f, k);
    while (true) {  // hand the value up
      if (depth == 0) return value;
      Frame& frame = stack[depth - 1];
      const std::uint64_t* up = words + frame.node + 1;
      const Node above = static_cast<Node>(words[frame.node]);
      if (above == Node::kClip) {
        value = value < plan::real(up[1]) ? plan::real(up[1]) : value > plan::real(up[2]) ? plan::real(up[2]) : value;
        --depth;
        continue;
      }
      frame.value = frame.next == 1 ? value : plan::combine(above, frame.value, value);
      if (frame.next < plan::integer(up[0])) {
        at = up[1 + frame.next++];
        k = frame.step;
        break;
      }
      value = frame.value;
      --depth;
    }
  }
}

// ---- host only (cpp/cpu/schedule.cpp, cpp/cuda/schedule.cu)
// -------------------------------------------------------------------

// Throws std::invalid_argument unless the words form a plan that value_at() may walk.
void validate_plan(const std::uint64_t* words, std::int64_t count);

// out[i] = value_at(words, begin + i) for i < count, to the bit, piece by piece instead of step by step.
void fill_values(const std::uint64_t* words, std::int64_t begin, std::int64_t count, double* out);

// out[i] = value_at(words, steps[i]) for i < count, evaluated on `device`; words [word_count] lie on the host, steps
// and out on the device. Waits for it.
void fill_values_cuda(const std::uint64_t* words, std::int64_t word_count, const std::int64_t* steps,
                      std::int64_t count, double* out, int device, void* stream);

// The cycle that step k lies in; index -1 where the plan has none. Of nested cycles the innermost kind counts, of the
// factors of a product the first that has any.
Cycle cycle_at(const std::uint64_t* words, std::int64_t k);

}  // namespace thalweg
