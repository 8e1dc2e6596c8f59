// CPU side of winograd.hpp: blocks of tiles, each transformed, multiplied place by place, transformed back.
// Compiled with contraction of x * y + z, which nothing else in the core is: the values are exact to rounding only.
#include "thalweg/winograd.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "isa.hpp"
#include "thalweg/config.hpp"

namespace thalweg {
namespace {

// Eight channels; compilers split it where registers are narrower.
typedef float Lanes __attribute__((vector_size(32)));
constexpr int kLanes = kWinogradChannels;
constexpr int kTile = 4;                    // outputs of a tile, per side
constexpr int kPatch = 6;                   // inputs of a tile, per side
constexpr int kRows = 6;                    // tiles of one register block: 6 x 16 sums in 12 registers
constexpr std::int64_t kBlockFloats = 384;  // tiles x channels of a block: its transforms stay in the second cache

THALWEG_HD Lanes load(const float* from) {
  Lanes value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

THALWEG_HD void store(float* to, const Lanes& value) { __builtin_memcpy(to, &value, sizeof(value)); }

// Where a tile lies: its sample and the pixel of its first output.
struct Tile {
  std::int64_t sample, y, x;
};

THALWEG_HD Tile tile_at(const Convolution3x3& w, std::int64_t index) {
  const std::int64_t across = (w.width + kTile - 1) / kTile;
  const std::int64_t down = (w.height + kTile - 1) / kTile;
  return {index / (across * down), index / across % down * kTile, index % across * kTile};
}

// B^T d of one column or row.
THALWEG_HD void into(const Lanes* d, int step, Lanes* t) {
  const Lanes even = d[4 * step] - 4.0f * d[2 * step];
  const Lanes odd = d[3 * step] - 4.0f * d[step];
  const Lanes low = d[4 * step] - d[2 * step];
  const Lanes high = 2.0f * (d[3 * step] - d[step]);
  t[0] = 4.0f * d[0] - 5.0f * d[2 * step] + d[4 * step];
  t[step] = even + odd;
  t[2 * step] = even - odd;
  t[3 * step] = low + high;
  t[4 * step] = low - high;
  t[5 * step] = 4.0f * d[step] - 5.0f * d[3 * step] + d[5 * step];
}

// A^T m of one column or row: six numbers to four.
THALWEG_HD void out_of(const Lanes* m, int step, Lanes* y, int to) {
  const Lanes sum = m[step] + m[2 * step];
  const Lanes difference = m[step] - m[2 * step];
  const Lanes far_sum = m[3 * step] + m[4 * step];
  const Lanes far = m[3 * step] - m[4 * step];
  y[0] = m[0] + sum + far_sum;
  y[to] = difference + 2.0f * far;
  y[2 * to] = sum + 4.0f * far_sum;
  y[3 * to] = difference + 8.0f * far + m[5 * step];
}

// The patch of a tile, eight channels of it, transformed to v[place][tile][channel]. `from` is the patch's first pixel;
// with Edge only rows [y0, y1) and columns [x0, x1) of it are inside the image, the others count as zeros.
template <bool Edge>
THALWEG_HD void transform_input(const float* from, std::int64_t row, std::int64_t pixel, int y0, int y1, int x0, int x1,
                                float* v, std::int64_t place_step) {
  Lanes t[kPatch * kPatch];
  for (int j = 0; j < kPatch; ++j) {
    Lanes d[kPatch];
    for (int i = 0; i < kPatch; ++i) {
      const bool inside = !Edge || (i >= y0 && i < y1 && j >= x0 && j < x1);
      d[i] = inside ? load(from + i * row + j * pixel) : Lanes{};
    }
    Lanes column[kPatch];
    into(d, 1, column);
    for (int i = 0; i < kPatch; ++i) t[i * kPatch + j] = column[i];
  }
  for (int i = 0; i < kPatch; ++i) {
    Lanes out[kPatch];
    into(t + i * kPatch, 1, out);
    for (int j = 0; j < kPatch; ++j) store(v + (i * kPatch + j) * place_step, out[j]);
  }
}

// All channels of a tile to v, place by place.
THALWEG_HD void gather(const Convolution3x3& w, const Tile& tile, float* v, std::int64_t place_step) {
  const std::int64_t row = w.width * w.inputs;
  const float* from = w.input + ((tile.sample * w.height + tile.y - 1) * w.width + tile.x - 1) * w.inputs;
  const int y0 = tile.y == 0 ? 1 : 0;
  const int x0 = tile.x == 0 ? 1 : 0;
  const int y1 = static_cast<int>(std::min<std::int64_t>(kPatch, w.height + 1 - tile.y));
  const int x1 = static_cast<int>(std::min<std::int64_t>(kPatch, w.width + 1 - tile.x));
  if (y0 == 0 && x0 == 0 && y1 == kPatch && x1 == kPatch) {
    for (std::int64_t c = 0; c < w.inputs; c += kLanes)
      transform_input<false>(from + c, row, w.inputs, 0, kPatch, 0, kPatch, v + c, place_step);
  } else {
    for (std::int64_t c = 0; c < w.inputs; c += kLanes)
      transform_input<true>(from + c, row, w.inputs, y0, y1, x0, x1, v + c, place_step);
  }
}

// m[place][tile][channel] of a tile, eight channels, to its pixels.
THALWEG_HD void transform_output(const Convolution3x3& w, const Tile& tile, std::int64_t channel, const float* m,
                                 std::int64_t place_step) {
  Lanes t[kTile * kPatch];
  for (int j = 0; j < kPatch; ++j) {
    Lanes column[kPatch];
    for (int i = 0; i < kPatch; ++i) column[i] = load(m + (i * kPatch + j) * place_step);
    out_of(column, 1, t + j, kPatch);
  }
  const Lanes bias = w.bias == nullptr ? Lanes{} : load(w.bias + channel);
  const Lanes zero{};
  for (int i = 0; i < kTile; ++i) {
    if (tile.y + i >= w.height) return;
    Lanes row[kTile];
    out_of(t + i * kPatch, 1, row, 1);
    const std::int64_t place = ((tile.sample * w.height + tile.y + i) * w.width + tile.x) * w.outputs + channel;
    for (int j = 0; j < kTile; ++j) {
      if (tile.x + j >= w.width) break;
      Lanes value = row[j] + bias;
      if (w.added != nullptr) value += load(w.added + place + j * w.outputs);
      if (w.relu) value = value < zero ? zero : value;
      store(w.output + place + j * w.outputs, value);
    }
  }
}

// m[row][column] = sum over i of v[row][i] u[i][column], kRows rows and 8 * Columns columns.
template <int Columns>
THALWEG_HD void multiply(const float* v, const float* u, float* m, std::int64_t inputs, std::int64_t outputs) {
  Lanes sums[kRows][Columns] = {};
  for (std::int64_t i = 0; i < inputs; ++i) {
    Lanes right[Columns];
    for (int c = 0; c < Columns; ++c) right[c] = load(u + i * outputs + c * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float left = v[r * inputs + i];
      for (int c = 0; c < Columns; ++c) sums[r][c] += left * right[c];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < Columns; ++c) store(m + r * outputs + c * kLanes, sums[r][c]);
}

// Tiles [begin, end); v [36, tiles, inputs] and m [36, tiles, outputs] are room for `tiles` of them, a multiple of
// kRows.
THALWEG_HD void block_body(const Convolution3x3& w, std::int64_t begin, std::int64_t end, std::int64_t tiles, float* v,
                           float* m) {
  const std::int64_t v_step = tiles * w.inputs;
  const std::int64_t m_step = tiles * w.outputs;
  for (std::int64_t t = begin; t < end; ++t) {
    gather(w, tile_at(w, t), v + (t - begin) * w.inputs, v_step);
  }
  for (std::int64_t place = 0; place < kWinogradPlaces; ++place) {
    const float* u = w.weights + place * w.inputs * w.outputs;
    for (std::int64_t row = 0; row < end - begin; row += kRows) {
      const float* left = v + place * v_step + row * w.inputs;
      float* to = m + place * m_step + row * w.outputs;
      std::int64_t column = 0;
      for (; column + 2 * kLanes <= w.outputs; column += 2 * kLanes)
        multiply<2>(left, u + column, to + column, w.inputs, w.outputs);
      if (column < w.outputs) multiply<1>(left, u + column, to + column, w.inputs, w.outputs);
    }
  }
  for (std::int64_t t = begin; t < end; ++t) {
    const Tile tile = tile_at(w, t);
    const float* from = m + (t - begin) * w.outputs;
    for (std::int64_t c = 0; c < w.outputs; c += kLanes) transform_output(w, tile, c, from + c, m_step);
  }
}

using BlockFn = void (*)(const Convolution3x3&, std::int64_t, std::int64_t, std::int64_t, float*, float*);

void block_base(const Convolution3x3& w, std::int64_t begin, std::int64_t end, std::int64_t tiles, float* v, float* m) {
  block_body(w, begin, end, tiles, v, m);
}
#if THALWEG_HAS_X86_ISA
THALWEG_TARGET_AVX2 void block_avx2(const Convolution3x3& w, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                                    float* v, float* m) {
  block_body(w, begin, end, tiles, v, m);
}
THALWEG_TARGET_AVX512 void block_avx512(const Convolution3x3& w, std::int64_t begin, std::int64_t end,
                                        std::int64_t tiles, float* v, float* m) {
  block_body(w, begin, end, tiles, v, m);
}
constexpr BlockFn kBlocks[kNumIsas] = {&block_base, &block_avx2, &block_avx512};
#else
constexpr BlockFn kBlocks[kNumIsas] = {&block_base, nullptr, nullptr};
#endif

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};

std::unique_ptr<float, Free> room(std::int64_t floats) {
  const auto bytes = static_cast<std::size_t>((floats * 4 + 63) / 64 * 64);
  return std::unique_ptr<float, Free>(static_cast<float*>(std::calloc(bytes + 64, 1)));
}

}  // namespace

void convolve_3x3_cpu(const Convolution3x3& work, int num_threads) {
  const std::int64_t widest = std::max(work.inputs, work.outputs);
  const std::int64_t tiles = std::max<std::int64_t>(kBlockFloats / widest / kRows, 1) * kRows;
  const std::int64_t count = work.samples * ((work.height + kTile - 1) / kTile) * ((work.width + kTile - 1) / kTile);
  const std::int64_t blocks = (count + tiles - 1) / tiles;
  const BlockFn block = kBlocks[static_cast<int>(active_isa())];
  static_cast<void>(num_threads);  // unused without OpenMP
#pragma omp parallel num_threads(num_threads) if (blocks > 1 && num_threads > 1)
  {
    const auto v = room(kWinogradPlaces * tiles * work.inputs);
    const auto m = room(kWinogradPlaces * tiles * work.outputs);
#pragma omp for schedule(static)
    for (std::int64_t b = 0; b < blocks; ++b)
      block(work, b * tiles, std::min((b + 1) * tiles, count), tiles, v.get(), m.get());
  }
}

}  // namespace thalweg
