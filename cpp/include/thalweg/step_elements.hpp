// What happens to one element around the update rule: conditioning of the gradient, rounding of the result, the moving
// average. Host and device, the only definition. Knows no tensors.
#pragma once

#include <cstdint>

#include "config.hpp"
#include "dtype.hpp"
#include "optimizers/common.hpp"
#include "philox.hpp"
#include "step_control.hpp"

namespace thalweg {

// The gradient as the update rule sees it: unscaled and clipped by norm (both in `scale`), then clipped by value to
// [-limit, limit]. NaN stays NaN.
template <class T>
THALWEG_HD T conditioned(T grad, T scale, T limit) {
  const T g = grad * scale;
  return g > limit ? limit : g < -limit ? -limit : g;
}

// What a gradient becomes where it is written; unscale is one over the loss's scale.
template <class T>
THALWEG_HD T grad_after(GradWrite write, T grad, T unscale) {
  return write == GradWrite::kZero ? T(0) : grad * unscale;
}

// Random words of stochastic rounding: eight neighbouring elements share one Philox block, half a word each. `place` is
// that of the parameter in its optimizer, `step` the number of updates before this one.
THALWEG_HD Philox4 rounding_bits(std::uint64_t seed, std::uint32_t place, std::int64_t step, std::int64_t block) {
  const std::uint64_t stream = (static_cast<std::uint64_t>(place) << 32) | static_cast<std::uint32_t>(step);
  return philox_block(seed, stream, static_cast<std::uint64_t>(block));
}

constexpr int kRoundingBlock = 8;  // elements

// Element `lane` of its block, rounded up with a probability equal to the fraction that rounding down would lose, so
// that the mean over many steps is exact. Infinity and NaN are kept.
THALWEG_HD std::uint16_t stochastic_bfloat16(float value, const Philox4& bits, int lane) {
  const std::uint32_t word = bit_cast<std::uint32_t>(value);
  if ((word & 0x7F800000u) == 0x7F800000u) return float_to_bfloat16(value);
  const std::uint32_t random = (bits.word[lane / 2] >> (16 * (lane % 2))) & 0xFFFFu;
  return static_cast<std::uint16_t>((word + random) >> 16);
}

// Decay of the moving average in this step: the first one copies, as torch.optim.swa_utils.AveragedModel does.
struct AverageWeights {
  double keep;
  double take;
};
THALWEG_HD AverageWeights average_weights(double decay, bool first) {
  return first ? AverageWeights{0.0, 1.0} : AverageWeights{decay, 1.0 - decay};
}

}  // namespace thalweg
