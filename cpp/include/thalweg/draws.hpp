// Directions that are not stored: normal variates of a counter-based generator times a factor, drawn again wherever
// they are needed. Host and device, the only definition. Knows no tensors of any framework.
#pragma once

#include <cstdint>

#include "config.hpp"
#include "philox.hpp"

namespace thalweg {

// What multiplies the variates of a tensor: nothing, a number per row, or the weights themselves.
enum class DrawFactor : std::int32_t { kOne, kRow, kWeight };

// One direction of one tensor. Element e in order of the dimensions (the last one fastest) is variate e of the stream;
// where the tensor lies in memory in another order, element ((o * swap_a + a) * swap_b + b) of the memory is element
// (o * swap_b + b) * swap_a + a: channels last and transposed matrices are of this kind.
struct Draw {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  const double* scales = nullptr;  // [numel / row], for kRow
  std::int64_t row = 1;            // elements of a row
  std::int64_t swap_a = 1;
  std::int64_t swap_b = 1;
  DrawFactor factor = DrawFactor::kOne;
};

// Whether memory and dimensions have one order.
THALWEG_HD bool is_straight(const Draw& draw) { return draw.swap_a == 1 || draw.swap_b == 1; }

// Number of the element that stands at place `memory`.
THALWEG_HD std::int64_t element_of(const Draw& draw, std::int64_t memory) {
  if (is_straight(draw)) return memory;
  const std::int64_t b = memory % draw.swap_b;
  const std::int64_t rest = memory / draw.swap_b;
  return (rest / draw.swap_a * draw.swap_b + b) * draw.swap_a + rest % draw.swap_a;
}

// A variate times its factor: in float64, rounded once to the direction's type.
template <class T>
THALWEG_HD T scaled(float normal, double factor) {
  return static_cast<T>(static_cast<double>(normal) * factor);
}

}  // namespace thalweg
