// Normal variates in blocks, one body per instruction set: the words of a block first, then the common part of the
// transform for all of them, then the tails for those that lie there, so that every loop vectorises.
#include "draws.hpp"

#include <algorithm>

#include "isa.hpp"
#include "thalweg/landscape.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace {

constexpr std::int64_t kWords = kDrawBlock + 8;  // a block may begin and end within four words of the generator

using NormalsFn = void (*)(const std::uint32_t* words, std::int64_t numel, float* out);
using PicksFn = void (*)(std::uint64_t seed, std::uint64_t stream, const std::int64_t* elements, std::int64_t numel,
                         std::uint32_t* out);
using WordsFn = void (*)(std::uint64_t seed, std::uint64_t stream, std::int64_t first, std::int64_t blocks,
                         std::uint32_t* out);

// normal_of, word by word, to the bit.
THALWEG_HD void normals_body(const std::uint32_t* words, std::int64_t numel, float* out) {
  std::int32_t is_tail[kWords];
  for (std::int64_t i = 0; i < numel; ++i) {
    const double q = uniform_of(words[i]) - 0.5;
    out[i] = static_cast<float>(quantile_centre(q));  // wrong in the tails
    is_tail[i] = fabs(q) <= kQuantileCentre ? 0 : 1;
  }
  std::int32_t place[kWords];
  std::uint32_t word[kWords];
  std::int64_t tails = 0;
  for (std::int64_t i = 0; i < numel; ++i) {  // no branch: it would be guessed wrong all the time
    place[tails] = static_cast<std::int32_t>(i);
    word[tails] = words[i];
    tails += is_tail[i];
  }
  float value[kWords];
  for (std::int64_t k = 0; k < tails; ++k) {
    const double u = uniform_of(word[k]);
    const double q = u - 0.5;
    const double tail = quantile_tail(sqrt(-portable_log(q < 0 ? u : 1.0 - u)));
    value[k] = static_cast<float>(q < 0 ? -tail : tail);
  }
  for (std::int64_t k = 0; k < tails; ++k) out[place[k]] = value[k];
}

THALWEG_HD void words_body(std::uint64_t seed, std::uint64_t stream, std::int64_t first, std::int64_t blocks,
                           std::uint32_t* out) {
  for (std::int64_t b = 0; b < blocks; ++b) {
    const Philox4 bits = philox_block(seed, stream, static_cast<std::uint64_t>(first + b));
    for (int lane = 0; lane < 4; ++lane) out[4 * b + lane] = bits.word[lane];
  }
}

// The words of any elements, each from a block of its own.
THALWEG_HD void picks_body(std::uint64_t seed, std::uint64_t stream, const std::int64_t* elements, std::int64_t numel,
                           std::uint32_t* out) {
  for (std::int64_t i = 0; i < numel; ++i) {
    const auto element = static_cast<std::uint64_t>(elements[i]);
    const Philox4 bits = philox_block(seed, stream, element >> 2);
    const std::uint32_t low = element & 1 ? bits.word[1] : bits.word[0];
    const std::uint32_t high = element & 1 ? bits.word[3] : bits.word[2];
    out[i] = element & 2 ? high : low;
  }
}

#define THALWEG_DRAWS(NAME, TARGET)                                                                                    \
  TARGET void normals_##NAME(const std::uint32_t* words, std::int64_t numel, float* out) {                             \
    normals_body(words, numel, out);                                                                                   \
  }                                                                                                                    \
  TARGET void words_##NAME(std::uint64_t seed, std::uint64_t stream, std::int64_t first, std::int64_t blocks,          \
                           std::uint32_t* out) {                                                                       \
    words_body(seed, stream, first, blocks, out);                                                                      \
  }                                                                                                                    \
  TARGET void picks_##NAME(std::uint64_t seed, std::uint64_t stream, const std::int64_t* elements, std::int64_t numel, \
                           std::uint32_t* out) {                                                                       \
    picks_body(seed, stream, elements, numel, out);                                                                    \
  }
THALWEG_DRAWS(base, )
#if THALWEG_HAS_X86_ISA
THALWEG_DRAWS(avx2, THALWEG_TARGET_AVX2)
THALWEG_DRAWS(avx512, THALWEG_TARGET_AVX512)
#define THALWEG_EACH(NAME) {&NAME##_base, &NAME##_avx2, &NAME##_avx512}
#else
#define THALWEG_EACH(NAME) {&NAME##_base, nullptr, nullptr}
#endif
constexpr NormalsFn kNormals[kNumIsas] = THALWEG_EACH(normals);
constexpr WordsFn kBlocks[kNumIsas] = THALWEG_EACH(words);
constexpr PicksFn kPicks[kNumIsas] = THALWEG_EACH(picks);

// element_of for neighbouring places of the memory, without a division for each.
void elements_at(const Draw& draw, std::int64_t begin, std::int64_t numel, std::int64_t* out) {
  const std::int64_t a = draw.swap_a;
  const std::int64_t b = draw.swap_b;
  std::int64_t outer = begin / (a * b);
  std::int64_t i = begin / b % a;
  std::int64_t j = begin % b;
  for (std::int64_t n = 0; n < numel; ++n) {
    out[n] = (outer * b + j) * a + i;
    if (++j < b) continue;
    j = 0;
    if (++i < a) continue;
    i = 0;
    ++outer;
  }
}

// out[i] = variate of the element at place begin + i.
void normals(const Draw& draw, std::int64_t begin, std::int64_t numel, float* out) {
  const int isa = static_cast<int>(active_isa());
  std::uint32_t words[kWords];
  std::int64_t lead = 0;
  if (is_straight(draw)) {
    lead = begin & 3;
    kBlocks[isa](draw.seed, draw.stream, begin >> 2, (lead + numel + 3) / 4, words);
  } else {
    std::int64_t elements[kDrawBlock];
    elements_at(draw, begin, numel, elements);
    kPicks[isa](draw.seed, draw.stream, elements, numel, words);
  }
  kNormals[isa](words + lead, numel, out);
}

template <class T>
void draw_as(const Draw& draw, const void* weight, DType weight_dtype, std::int64_t begin, std::int64_t numel, T* out) {
  float drawn[kDrawBlock];
  normals(draw, begin, numel, drawn);
  switch (draw.factor) {
    case DrawFactor::kOne:
      for (std::int64_t i = 0; i < numel; ++i) out[i] = static_cast<T>(drawn[i]);
      return;
    case DrawFactor::kWeight:
      for (std::int64_t i = 0; i < numel; ++i)
        out[i] = scaled<T>(drawn[i], load_as<double>(weight_dtype, weight, begin + i));
      return;
    case DrawFactor::kRow:
      break;
  }
  if (!is_straight(draw) && draw.row % (draw.swap_a * draw.swap_b) != 0) {  // a row is not a run of the memory
    for (std::int64_t i = 0; i < numel; ++i)
      out[i] = scaled<T>(drawn[i], draw.scales[element_of(draw, begin + i) / draw.row]);
    return;
  }
  for (std::int64_t i = 0; i < numel;) {
    const std::int64_t row = (begin + i) / draw.row;
    const std::int64_t end = std::min((row + 1) * draw.row - begin, numel);
    const double factor = draw.scales[row];
    for (; i < end; ++i) out[i] = scaled<T>(drawn[i], factor);
  }
}

template <class T>
void fill_as(T* out, std::int64_t numel, const Draw& draw, const void* weight, DType weight_dtype, int num_threads) {
  static_cast<void>(num_threads);  // unused without OpenMP
  const std::int64_t blocks = (numel + kDrawBlock - 1) / kDrawBlock;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (blocks > 4)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const DenormalGuard guard;
    const std::int64_t begin = b * kDrawBlock;
    draw_block(draw, weight, weight_dtype, begin, std::min(kDrawBlock, numel - begin), out + begin);
  }
}

}  // namespace

void draw_block(const Draw& draw, const void* weight, DType weight_dtype, std::int64_t begin, std::int64_t numel,
                float* out) {
  draw_as(draw, weight, weight_dtype, begin, numel, out);
}

void draw_block(const Draw& draw, const void* weight, DType weight_dtype, std::int64_t begin, std::int64_t numel,
                double* out) {
  draw_as(draw, weight, weight_dtype, begin, numel, out);
}

void fill_drawn_cpu(void* out, DType dtype, std::int64_t numel, const Draw& draw, const void* weight,
                    DType weight_dtype, int num_threads) {
  if (dtype == DType::kFloat64)
    return fill_as(static_cast<double*>(out), numel, draw, weight, weight_dtype, num_threads);
  fill_as(static_cast<float*>(out), numel, draw, weight, weight_dtype, num_threads);
}

}  // namespace thalweg
