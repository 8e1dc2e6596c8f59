// Convolutions of 3 x 3 on the CPU with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3).
// Lavin, Gray: Fast algorithms for convolutional neural networks, arXiv 1509.09308, section 4.2. Knows addresses.
#pragma once

#include <cstdint>

namespace thalweg {

constexpr int kWinogradPlaces = 36;   // of a transformed filter: 6 x 6
constexpr int kWinogradChannels = 8;  // inputs and outputs are multiples of this

// A convolution of stride 1 with one row and column of zeros around the image; channels last, float32.
struct Convolution3x3 {
  const float* input;    // [samples, height, width, inputs]
  const float* weights;  // [36, inputs, outputs]: G g G^T of every filter g, with G of section 4.2
  const float* bias;     // [outputs], or null
  const float* added;    // like output, added to it, or null
  float* output;         // [samples, height, width, outputs]
  std::int64_t samples;
  std::int64_t height;  // pixels
  std::int64_t width;   // pixels
  std::int64_t inputs;
  std::int64_t outputs;
  bool relu;  // max(result, 0), NaN stays NaN
};

// The bits do not depend on num_threads; they may depend on the instruction set, which may fuse x * y + z.
void convolve_3x3_cpu(const Convolution3x3& work, int num_threads);

}  // namespace thalweg
