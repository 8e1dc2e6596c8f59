// CPU driver of the gradient norm; the order of additions stands in step_control.hpp.
#include <algorithm>
#include <vector>

#include "blocks.hpp"
#include "isa.hpp"
#include "lanes.hpp"
#include "thalweg/step.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace {

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
