// Host side of schedule.hpp: validation, whole arrays of values, cycles.
#include "thalweg/schedule.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "isa.hpp"
#include "thalweg/error.hpp"

namespace thalweg {
namespace {

using plan::integer;
using plan::real;

// Number of words of the node at words[at], kind included; throws for an unknown kind or one that does not fit.
std::int64_t node_words(const std::uint64_t* words, std::int64_t at, std::int64_t count) {
  const auto counted = [&](std::int64_t place, std::int64_t per_item) {
    if (at + place >= count) throw std::invalid_argument("plan: it ends inside a node");
    const std::int64_t items = integer(words[at + place]);
    if (items < 1 || items > count) throw std::invalid_argument("plan: a list has an impossible length");
    return place + 1 + items * per_item;
  };
  switch (static_cast<Node>(words[at])) {
    case Node::kConstant:
      return 2;
    case Node::kLinear:
    case Node::kCosine:
    case Node::kPolynomial:
      return 5;
    case Node::kExponential:
    case Node::kHold:
      return 3;
    case Node::kGeometric:
    case Node::kStep:
    case Node::kClip:
    case Node::kRepeat:
      return 4;
    case Node::kMultistep:
      return counted(3, 1);
    case Node::kSgdr:
    case Node::kSplit:
      return 6;
    case Node::kTriangular:
      return 7;
    case Node::kTable:
      return counted(1, 1);
    case Node::kSequence:
      return counted(1, 2);
    case Node::kProduct:
      return counted(1, 1);
  }
  throw std::invalid_argument(message("plan: unknown kind of node ", words[at]));
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(message("plan: ", what));
}

void check_leaf(Node kind, const std::uint64_t* f) {
  constexpr std::int64_t kLongest = std::numeric_limits<std::int64_t>::max() / 4;
  const auto length = [&](int field) {
    require(integer(f[field]) >= 1 && integer(f[field]) <= kLongest, "a length is not in [1, 2^61]");
  };
  switch (kind) {
    case Node::kLinear:
    case Node::kCosine:
      return require(real(f[2]) < real(f[3]), "a ramp must end after it begins");
    case Node::kPolynomial:
    case Node::kGeometric:
    case Node::kStep:
      return length(2);
    case Node::kSgdr:
      length(2);
      return length(3);
    case Node::kSplit:
      length(2);
      length(3);
      require(integer(f[3]) <= integer(f[2]), "more cycles than steps");
      return require(integer(f[2]) <= kLongest / integer(f[3]), "total_steps * cycles is too large");
    case Node::kTriangular:
      length(2);
      return length(3);
    default:
      return;
  }
}

// Children of the node: their offsets, wherever the kind keeps them.
std::vector<std::int64_t> children_of(Node kind, const std::uint64_t* f) {
  std::vector<std::int64_t> children;
  if (kind == Node::kSequence || kind == Node::kProduct) {
    const std::int64_t n = integer(f[0]);
    const std::int64_t first = kind == Node::kSequence ? 1 + n : 1;
    for (std::int64_t i = 0; i < n; ++i) children.push_back(integer(f[first + i]));
  } else if (kind == Node::kClip || kind == Node::kRepeat || kind == Node::kHold) {
    children.push_back(integer(f[0]));
  }
  return children;
}

void check_inner(Node kind, const std::uint64_t* f) {
  if (kind == Node::kSequence) {
    require(integer(f[1]) == 0, "a sequence must begin at step 0");
    for (std::int64_t i = 1; i < integer(f[0]); ++i)
      require(integer(f[1 + i]) > integer(f[i]), "the pieces of a sequence must follow each other");
  } else if (kind == Node::kClip) {
    require(real(f[1]) <= real(f[2]), "clip needs lo <= hi");
  } else if (kind == Node::kRepeat) {
    require(integer(f[1]) >= 1, "a period must be positive");
  } else if (kind == Node::kHold) {
    require(integer(f[1]) >= 0, "a length must not be negative");
  }
}

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

// The cosine has a loop of its own, which the compiler turns into vector code; the bits are those of cosine_value.
THALWEG_HD void cosine_body(const std::uint64_t* f, std::int64_t k, std::int64_t n, double* __restrict out) {
  const double a = real(f[0]), b = real(f[1]), begin = real(f[2]), end = real(f[3]);
  constexpr int kLanes = 16;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const double first = static_cast<double>(k + i);  // whole numbers below 2^53: first + lane is exact
    for (int lane = 0; lane < kLanes; ++lane) out[i + lane] = cosine_value(a, b, begin, end, first + lane);
  }
  for (; i < n; ++i) out[i] = cosine_value(a, b, begin, end, static_cast<double>(k + i));
}

using CosineFn = void (*)(const std::uint64_t*, std::int64_t, std::int64_t, double*);

void cosine_base(const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) { cosine_body(f, k, n, out); }
#if THALWEG_HAS_X86_ISA
THALWEG_TARGET_AVX2 void cosine_avx2(const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  cosine_body(f, k, n, out);
}
THALWEG_TARGET_AVX512 void cosine_avx512(const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  cosine_body(f, k, n, out);
}
constexpr CosineFn kCosine[kNumIsas] = {&cosine_base, &cosine_avx2, &cosine_avx512};
#else
constexpr CosineFn kCosine[kNumIsas] = {&cosine_base, nullptr, nullptr};
#endif

void fill_leaf(Node kind, const std::uint64_t* f, std::int64_t k, std::int64_t n, double* out) {
  constexpr std::int64_t kExact = std::int64_t{1} << 53;
  if (kind == Node::kCosine && k < kExact - n) return kCosine[static_cast<int>(active_isa())](f, k, n, out);
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

// Cycle of step k under the node at `at`, with the cycles of earlier pieces and repetitions counted in.
Cycle find_cycle(const std::uint64_t* words, std::uint64_t at, std::int64_t k) {
  constexpr Cycle kNone{-1, 0, 0};
  const Node kind = static_cast<Node>(words[at]);
  const std::uint64_t* f = words + at + 1;
  switch (kind) {
    case Node::kSgdr:
      return sgdr_cycle(integer(f[2]), integer(f[3]), k);
    case Node::kSplit:
      return k < integer(f[2]) ? split_cycle(integer(f[2]), integer(f[3]), integer(f[4]) != 0, k) : kNone;
    case Node::kTriangular: {
      const std::int64_t period = integer(f[2]) + integer(f[3]);
      return {k / period, k % period, period};
    }
    case Node::kSequence: {
      const std::int64_t n = integer(f[0]);
      const std::int64_t here = plan::child_at(f, k);
      Cycle cycle = find_cycle(words, f[1 + n + here], k - integer(f[1 + here]));
      for (std::int64_t i = 0; cycle.index >= 0 && i < here; ++i)
        cycle.index += find_cycle(words, f[1 + n + i], integer(f[2 + i]) - integer(f[1 + i]) - 1).index + 1;
      return cycle;
    }
    case Node::kRepeat: {
      const std::int64_t period = integer(f[1]);
      if (integer(f[2]) >= 0 && k / period >= integer(f[2])) return kNone;
      Cycle cycle = find_cycle(words, f[0], k % period);
      if (cycle.index < 0) return {k / period, k % period, period};
      cycle.index += k / period * (find_cycle(words, f[0], period - 1).index + 1);
      return cycle;
    }
    case Node::kHold:
      return k < integer(f[1]) ? find_cycle(words, f[0], k) : kNone;
    case Node::kClip:
      return find_cycle(words, f[0], k);
    case Node::kProduct:
      for (std::int64_t i = 0; i < integer(f[0]); ++i)
        if (const Cycle cycle = find_cycle(words, f[1 + i], k); cycle.index >= 0) return cycle;
      return kNone;
    default:
      return kNone;
  }
}

}  // namespace

void validate_plan(const std::uint64_t* words, std::int64_t count) {
  require(count > kPlanHeaderWords, "too short");
  require(words[0] == kPlanMagic, "not a plan of this version");
  require(integer(words[1]) == count, "its length does not match its header");
  std::vector<int> depth(static_cast<std::size_t>(count), -1);  // of the node that begins here
  for (std::int64_t at = kPlanHeaderWords; at < count;) {
    const std::int64_t size = node_words(words, at, count);
    require(at + size <= count, "it ends inside a node");
    const Node kind = static_cast<Node>(words[at]);
    const std::uint64_t* f = words + at + 1;
    int deepest = 0;
    for (const std::int64_t child : children_of(kind, f)) {
      require(child >= kPlanHeaderWords && child < at && depth[static_cast<std::size_t>(child)] >= 0,
              "a child does not stand before its parent");
      deepest = std::max(deepest, depth[static_cast<std::size_t>(child)]);
    }
    check_leaf(kind, f);
    check_inner(kind, f);
    deepest += kind == Node::kProduct || kind == Node::kClip ? 1 : 0;
    require(deepest <= kMaxPlanDepth, "more than 16 products and clips inside each other");
    depth[static_cast<std::size_t>(at)] = deepest;
    at += size;
  }
  const std::int64_t root = integer(words[2]);
  require(root >= kPlanHeaderWords && root < count && depth[static_cast<std::size_t>(root)] >= 0, "it has no root");
}

void fill_values(const std::uint64_t* words, std::int64_t begin, std::int64_t count, double* out) {
  fill(words, words[2], begin, count, out);
}

Cycle cycle_at(const std::uint64_t* words, std::int64_t k) { return find_cycle(words, words[2], k); }

}  // namespace thalweg
