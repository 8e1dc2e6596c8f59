// Host side of schedule.hpp: in which cycle a step lies. Recursion is as deep as the plan, at most kMaxPlanDepth.
#include <algorithm>
#include <cstdint>

#include "thalweg/schedule.hpp"

namespace thalweg {
namespace {

using plan::integer;

// Whether any shape below is cyclic; a repeat always is.
bool has_cycles(const std::uint64_t* words, std::uint64_t at) {
  const Node kind = static_cast<Node>(words[at]);
  const std::uint64_t* f = words + at + 1;
  if (kind == Node::kClip || kind == Node::kHold || kind == Node::kEvery || kind == Node::kAdvance)
    return has_cycles(words, f[0]);
  if (kind == Node::kSequence || plan::combines(kind)) {
    const std::uint64_t* child = f + 1 + (kind == Node::kSequence ? integer(f[0]) : 0);
    return std::any_of(child, child + integer(f[0]), [&](std::uint64_t c) { return has_cycles(words, c); });
  }
  return kind == Node::kSgdr || kind == Node::kWarmSgdr || kind == Node::kListed || kind == Node::kSplit ||
         kind == Node::kTriangular || kind == Node::kRepeat;
}

// The part of a product, sum and so on whose cycles count: the first that has any.
std::uint64_t cyclic_factor(const std::uint64_t* words, const std::uint64_t* f) {
  for (std::int64_t i = 1; i < integer(f[0]); ++i)
    if (has_cycles(words, f[i])) return f[i];
  return f[integer(f[0])];
}

Cycle find_cycle(const std::uint64_t* words, std::uint64_t at, std::int64_t k);
std::int64_t cycles_begun(const std::uint64_t* words, std::uint64_t at, std::int64_t k);

// How many cycles of its child an advance node leaves out; the one that it begins within is cycle 0.
std::int64_t cycles_skipped(const std::uint64_t* words, const std::uint64_t* f) {
  const Cycle first = find_cycle(words, f[0], integer(f[1]));
  return first.index >= 0 ? first.index : cycles_begun(words, f[0], integer(f[1]));
}

// How many cycles begin in steps [0, k) under the node at `at`.
std::int64_t cycles_begun(const std::uint64_t* words, std::uint64_t at, std::int64_t k) {
  if (k <= 0 || !has_cycles(words, at)) return 0;
  const std::uint64_t* f = words + at + 1;
  const Node kind = static_cast<Node>(words[at]);
  switch (kind) {
    case Node::kSgdr:
    case Node::kWarmSgdr: {
      const std::int64_t total = plan::sgdr(kind, f).total;
      return find_cycle(words, at, total >= 0 ? std::min(k, total) - 1 : k - 1).index + 1;
    }
    case Node::kListed:
      return find_cycle(words, at, std::min(k, integer(f[7 + integer(f[7])])) - 1).index + 1;
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
    case Node::kEvery:
      return cycles_begun(words, f[0], (k - 1) / integer(f[1]) + 1);
    case Node::kAdvance:
      return cycles_begun(words, f[0], plan::advance_step(f, k)) - cycles_skipped(words, f);
    case Node::kProduct:
    case Node::kSum:
    case Node::kMinimum:
    case Node::kMaximum:
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
    case Node::kWarmSgdr: {
      const plan::Sgdr sgdr = plan::sgdr(kind, f);
      return sgdr.total >= 0 && k >= sgdr.total ? kNone : sgdr_cycle(sgdr.t_0, sgdr.t_mult, k);
    }
    case Node::kListed:
      return k < integer(f[7 + integer(f[7])]) ? listed_cycle(f + 8, integer(f[7]), k) : kNone;
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
    case Node::kEvery: {
      const std::int64_t n = integer(f[1]);
      const Cycle cycle = find_cycle(words, f[0], k / n);
      if (cycle.index < 0) return kNone;
      constexpr std::int64_t kFar = INT64_MAX / 2;  // the end of such a cycle is never reached
      if (cycle.length > kFar / n)
        return {cycle.index, cycle.position > kFar / n ? kFar : cycle.position * n, INT64_MAX};
      return {cycle.index, cycle.position * n + k % n, cycle.length * n};
    }
    case Node::kAdvance: {
      Cycle cycle = find_cycle(words, f[0], plan::advance_step(f, k));
      if (cycle.index >= 0) cycle.index -= cycles_skipped(words, f);
      return cycle;
    }
    case Node::kProduct:
    case Node::kSum:
    case Node::kMinimum:
    case Node::kMaximum:
      return find_cycle(words, cyclic_factor(words, f), k);
    default:
      return kNone;
  }
}

}  // namespace

Cycle cycle_at(const std::uint64_t* words, std::int64_t k) { return find_cycle(words, words[2], k); }

}  // namespace thalweg
