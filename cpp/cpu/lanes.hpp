// Sums over lanes, in the order that step_control.hpp defines.
#pragma once

#include <cstdint>

#include "thalweg/step_control.hpp"

namespace thalweg {

// Lanes that no term reaches stay zero, and adding zero changes nothing: a short sum folds only as many lanes as the
// next power of two.
THALWEG_HD int lane_width(std::int64_t count) {
  int width = 1;
  while (width < kNormLanes && width < count) width *= 2;
  return width;
}

// Sum of lanes [width], a power of two, which it overwrites.
THALWEG_HD double folded(double* lanes, int width) {
  for (int w = width / 2; w >= 1; w /= 2)
    for (int j = 0; j < w; ++j) lanes[j] += lanes[j + w];
  return lanes[0];
}

// Sum of term(i) for i < count. The rows of a whole chunk are added lane by lane in registers: sums that went through
// memory at every term took three times as long.
template <class Term>
THALWEG_HD double lane_sum(std::int64_t count, const Term& term) {
  alignas(64) double lanes[kNormLanes];
  constexpr std::int64_t kRows = kNormChunk / kNormLanes;
  static_assert(kRows == 8, "write the rows out");
  const int width = lane_width(count);
  std::int64_t i = 0;
  if (count >= kNormChunk) {
    for (int j = 0; j < kNormLanes; ++j) {
      double sum = term(j);
      sum += term(kNormLanes + j);
      sum += term(2 * kNormLanes + j);
      sum += term(3 * kNormLanes + j);
      sum += term(4 * kNormLanes + j);
      sum += term(5 * kNormLanes + j);
      sum += term(6 * kNormLanes + j);
      sum += term(7 * kNormLanes + j);
      lanes[j] = sum;
    }
    i = kNormChunk;
  } else {
    for (int j = 0; j < width; ++j) lanes[j] = 0.0;
  }
  for (; i + kNormLanes <= count; i += kNormLanes)
    for (int j = 0; j < kNormLanes; ++j) lanes[j] += term(i + j);
  for (int j = 0; i + j < count; ++j) lanes[j] += term(i + j);
  return folded(lanes, width);
}

}  // namespace thalweg
