// CPU driver of the gradient norm; the order of additions stands in step_control.hpp.
#include <algorithm>
#include <vector>

#include "isa.hpp"
#include "thalweg/step.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace {

constexpr std::int64_t kSerialElements = 32 * 1024;  // below, a parallel region costs more than it saves

// Sum of term(i) for i < count over lanes, folded. Lanes that no term reaches stay zero, and adding zero changes
// nothing: a short sum folds only as many lanes as the next power of two. The rows of a whole chunk are added lane by
// lane in registers: sums that went through memory at every term took three times as long.
template <class Term>
THALWEG_HD double lane_sum(std::int64_t count, const Term& term) {
  alignas(64) double lanes[kNormLanes];
  constexpr std::int64_t kRows = kNormChunk / kNormLanes;
  static_assert(kRows == 8, "write the rows out");
  int width = 1;
  while (width < kNormLanes && width < count) width *= 2;
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
  for (int w = width / 2; w >= 1; w /= 2)
    for (int j = 0; j < w; ++j) lanes[j] += lanes[j + w];
  return lanes[0];
}

struct Chunk {
  const void* data;
  std::int64_t numel;
  DType dtype;
};

template <class Type>
THALWEG_HD double squares_of(const void* data, std::int64_t numel) {
  const auto* __restrict values = static_cast<const typename Type::Storage*>(data);
  return lane_sum(numel, [values](std::int64_t i) __attribute__((always_inline)) {
    const double value = static_cast<double>(Type::load(values[i]));
    return value * value;
  });
}

THALWEG_HD double chunk_body(const Chunk& chunk) {
  switch (chunk.dtype) {
    case DType::kFloat64:
      return squares_of<Native64>(chunk.data, chunk.numel);
    case DType::kFloat32:
      return squares_of<Native32>(chunk.data, chunk.numel);
    case DType::kBFloat16:
      return squares_of<Brain16>(chunk.data, chunk.numel);
    default:
      return squares_of<Half16>(chunk.data, chunk.numel);
  }
}

double chunk_base(const Chunk& chunk) { return chunk_body(chunk); }
#if THALWEG_HAS_X86_ISA
THALWEG_TARGET_AVX2 double chunk_avx2(const Chunk& chunk) { return chunk_body(chunk); }
THALWEG_TARGET_AVX512 double chunk_avx512(const Chunk& chunk) { return chunk_body(chunk); }
constexpr double (*kChunkFns[kNumIsas])(const Chunk&) = {chunk_base, chunk_avx2, chunk_avx512};
#else
constexpr double (*kChunkFns[kNumIsas])(const Chunk&) = {chunk_base, nullptr, nullptr};
#endif

}  // namespace

double grad_squares_cpu(const StepItem* items, std::size_t count, int num_threads) {
  std::vector<Chunk> chunks;
  chunks.reserve(count);
  std::int64_t elements = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const StepItem& item = items[i];
    elements += item.numel;
    for (std::int64_t at = 0; at < item.numel; at += kNormChunk)
      chunks.push_back({static_cast<const char*>(item.grad) + at * size_of(item.grad_dtype),
                        std::min(item.numel - at, kNormChunk), item.grad_dtype});
  }
  std::vector<double> parts(chunks.size());
  const auto chunk_fn = kChunkFns[static_cast<int>(active_isa())];
  const std::int64_t shares = num_threads <= 1 || elements < kSerialElements ? 1 : num_threads;
  const auto number = static_cast<std::int64_t>(chunks.size());
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(shares)) if (shares > 1)
  for (std::int64_t share = 0; share < shares; ++share) {
    const DenormalGuard guard;
    for (std::int64_t k = number * share / shares; k < number * (share + 1) / shares; ++k)
      parts[static_cast<std::size_t>(k)] = chunk_fn(chunks[static_cast<std::size_t>(k)]);
  }
  const DenormalGuard guard;
  return lane_sum(number, [&parts](std::int64_t i) { return parts[static_cast<std::size_t>(i)]; });
}

}  // namespace thalweg
