// Validation of plans: what passes cannot make value_at() read outside the buffer, loop for ever or overflow its stack.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "thalweg/error.hpp"
#include "thalweg/schedule.hpp"

namespace thalweg {
namespace {

using plan::integer;
using plan::real;

// Fields of a node in their order: f float64, i int64, c offset of a child. Where `lists` is not empty, a count n
// follows the fixed fields, and then n values of each code in it.
struct Layout {
  Node kind;
  const char* fixed;
  const char* lists;
};

constexpr Layout kLayouts[] = {
    {Node::kConstant, "f", ""},
    {Node::kLinear, "ffff", ""},
    {Node::kCosine, "ffff", ""},
    {Node::kPolynomial, "ffif", ""},
    {Node::kExponential, "ff", ""},
    {Node::kGeometric, "ffi", ""},
    {Node::kStep, "ffi", ""},
    {Node::kMultistep, "ff", "i"},
    {Node::kSgdr, "ffiifi", ""},
    {Node::kSplit, "ffiii", ""},
    {Node::kTriangular, "ffiiif", ""},
    {Node::kTable, "", "f"},
    {Node::kSqrt, "ffff", ""},
    {Node::kSquare, "ffff", ""},
    {Node::kRex, "ffff", ""},
    {Node::kTanh, "fffff", ""},
    {Node::kInverseTime, "fff", ""},
    {Node::kInverseSqrt, "fff", ""},
    {Node::kApproach, "ffff", ""},
    {Node::kDecayed, "fffffi", ""},
    {Node::kNoise, "fiffi", ""},
    {Node::kListed, "fffifff", "i"},
    {Node::kWarmSgdr, "fffifffiii", ""},
    {Node::kSequence, "", "ic"},
    {Node::kProduct, "", "c"},
    {Node::kClip, "cff", ""},
    {Node::kRepeat, "cii", ""},
    {Node::kHold, "ci", ""},
    {Node::kSum, "", "c"},
    {Node::kMinimum, "", "c"},
    {Node::kMaximum, "", "c"},
    {Node::kEvery, "ci", ""},
    {Node::kAdvance, "ci", ""},
};

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(message("plan: ", what));
}

const Layout& layout_of(std::uint64_t word) {
  for (const Layout& layout : kLayouts)
    if (static_cast<std::uint64_t>(layout.kind) == word) return layout;
  throw std::invalid_argument(message("plan: unknown kind of node ", word));
}

void check_restart(const std::uint64_t* f) {
  require(real(f[2]) >= 0, "a factor must not be negative");
  require(integer(f[3]) >= 0 && integer(f[3]) <= std::int64_t{1} << 53, "a warm-up is not in [0, 2^53]");
}

// Ranges of the fields of a leaf; that floats are finite is known.
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
      require(real(f[3]) > 0, "a power must be positive");
      return length(2);
    case Node::kExponential:
      return require(real(f[1]) >= 0, "a factor must not be negative");
    case Node::kGeometric:
      require(real(f[0]) > 0 && real(f[1]) > 0, "both ends of a geometric ramp must be positive");
      return length(2);
    case Node::kStep:
      require(real(f[1]) >= 0, "a factor must not be negative");
      return length(2);
    case Node::kMultistep:
      require(real(f[1]) >= 0 && integer(f[3]) >= 0, "a factor or milestone must not be negative");
      for (std::int64_t i = 1; i < integer(f[2]); ++i)
        require(integer(f[3 + i]) >= integer(f[2 + i]), "milestones must ascend");
      return;
    case Node::kSgdr:
      require(real(f[4]) >= 0 && integer(f[5]) != 0, "a factor must not be negative, a length not 0");
      length(2);
      return length(3);
    case Node::kWarmSgdr:
      check_restart(f);
      require(integer(f[9]) != 0, "a total length must not be 0");
      length(7);
      return length(8);
    case Node::kListed:
      check_restart(f);
      require(integer(f[7]) >= 2 && integer(f[8]) == 0, "cycles must begin at step 0 and end");
      for (std::int64_t i = 1; i < integer(f[7]); ++i)
        require(integer(f[8 + i]) > integer(f[7 + i]), "the beginnings of cycles must ascend");
      return;
    case Node::kSqrt:
    case Node::kSquare:
    case Node::kRex:
      return require(real(f[2]) != real(f[3]), "a ramp must end elsewhere than it begins");
    case Node::kTanh:
      return require(real(f[2]) > 0, "a ramp must end after it begins");
    case Node::kInverseTime:
      return require(real(f[1]) >= 0 && real(f[2]) > 0, "a rate must not be negative, a length must be positive");
    case Node::kInverseSqrt:
      return require(real(f[1]) > 0 && real(f[2]) > 0, "a timescale and a shift must be positive");
    case Node::kApproach:
      return require(real(f[2]) > 0 && real(f[3]) <= 0, "a time constant must be positive, a beginning not");
    case Node::kDecayed:
      return require(real(f[2]) > 0 && real(f[3]) > 0 && real(f[4]) > 0, "a length or power must be positive");
    case Node::kNoise:
      return require(real(f[2]) > 0 && real(f[3]) >= 0 && real(f[2]) + real(f[3]) < 1,
                     "quantiles must lie between 0 and 1");
    case Node::kSplit:
      length(2);
      length(3);
      require(integer(f[3]) <= integer(f[2]), "more cycles than steps");
      return require(integer(f[2]) <= kLongest / integer(f[3]), "total_steps * cycles is too large");
    case Node::kTriangular:
      require(integer(f[4]) >= 0 && integer(f[4]) <= 2 && real(f[5]) >= 0, "unknown triangular mode or bad factor");
      length(2);
      return length(3);
    default:
      return;
  }
}

void check_inner(Node kind, const std::uint64_t* f) {
  if (kind == Node::kSequence) {
    require(integer(f[1]) == 0, "a sequence must begin at step 0");
    for (std::int64_t i = 1; i < integer(f[0]); ++i)
      require(integer(f[1 + i]) > integer(f[i]), "the pieces of a sequence must follow each other");
  } else if (kind == Node::kClip) {
    require(real(f[1]) <= real(f[2]), "clip needs lo <= hi");
  } else if (kind == Node::kRepeat || kind == Node::kEvery) {
    require(integer(f[1]) >= 1, "a period must be positive");
  } else if (kind == Node::kHold || kind == Node::kAdvance) {
    require(integer(f[1]) >= 0, "a length must not be negative");
  }
}

}  // namespace

void validate_plan(const std::uint64_t* words, std::int64_t count) {
  require(count > kPlanHeaderWords, "too short");
  require(words[0] == kPlanMagic, "not a plan of this version");
  require(integer(words[1]) == count, "its length does not match its header");
  std::vector<int> depth(static_cast<std::size_t>(count), 0);  // under the node that begins here and waits for a parent
  std::int64_t last = 0;
  for (std::int64_t at = kPlanHeaderWords; at < count;) {
    const Layout& layout = layout_of(words[at]);
    const std::uint64_t* f = words + at + 1;
    const auto fixed = static_cast<std::int64_t>(std::strlen(layout.fixed));
    const auto lists = static_cast<std::int64_t>(std::strlen(layout.lists));
    std::int64_t fields = fixed;
    std::int64_t items = 0;
    if (lists > 0) {
      require(fixed < count - at - 1, "it ends inside a node");
      items = integer(f[fixed]);
      require(items >= 1 && items < count, "a list has an impossible length");
      fields += 1 + items * lists;
    }
    require(fields < count - at, "it ends inside a node");
    int below = 0;
    for (std::int64_t i = 0; i < fields; ++i) {
      const char code = i < fixed ? layout.fixed[i] : i == fixed ? 'i' : layout.lists[(i - fixed - 1) / items];
      if (code == 'f') require(std::isfinite(real(f[i])), "a value is not finite");
      if (code != 'c') continue;
      const std::int64_t child = integer(f[i]);
      require(child >= kPlanHeaderWords && child < at && depth[static_cast<std::size_t>(child)] > 0,
              "a child does not stand before its only parent");
      below = std::max(below, depth[static_cast<std::size_t>(child)]);
      depth[static_cast<std::size_t>(child)] = 0;
    }
    check_leaf(layout.kind, f);
    check_inner(layout.kind, f);
    require(below < kMaxPlanDepth, "schedules are nested more than 32 deep; a table of the values is flat");
    depth[static_cast<std::size_t>(at)] = below + 1;
    last = at;
    at += 1 + fields;
  }
  require(integer(words[2]) == last, "its root is not the last node");
  require(std::count(depth.begin(), depth.end(), 0) == count - 1, "a node has no parent");
}

}  // namespace thalweg
