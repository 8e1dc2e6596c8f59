// The adding of sums.hpp: blocks in parallel, their sums in order, whatever the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "isa.hpp"
#include "thalweg/sums.hpp"

namespace thalweg {

// Elements of a step or its norm; below, a parallel region costs more than it saves (measured in benchmarks/README.md).
constexpr std::int64_t kSerialElements = 32 * 1024;
constexpr std::int64_t kSerialBlocks = 64;  // below, a parallel region costs more than it saves

// Calls block(b, begin, end) for every block of [0, count), in parallel when there are many.
template <class Block>
void for_each_block(std::int64_t count, int num_threads, const Block& block) {
  const std::int64_t blocks = (count + kSumBlock - 1) / kSumBlock;
  static_cast<void>(num_threads);  // unused without OpenMP
#pragma omp parallel for schedule(static) num_threads(num_threads) if (blocks >= kSerialBlocks)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const DenormalGuard guard;  // flush-to-zero is a property of the thread that happens to run the block
    block(b, b * kSumBlock, b + 1 < blocks ? (b + 1) * kSumBlock : count);
  }
}

// Sum over i < count of term(i), of a type that starts at Sum{} and knows +=.
template <class Sum, class Term>
Sum ordered_sum(std::int64_t count, int num_threads, const Term& term) {
  std::vector<Sum> parts(static_cast<std::size_t>((count + kSumBlock - 1) / kSumBlock));
  for_each_block(count, num_threads, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    Sum part{};
    for (std::int64_t i = begin; i < end; ++i) part += term(i);
    parts[static_cast<std::size_t>(b)] = part;
  });
  Sum total{};
  for (const Sum& part : parts) total += part;
  return total;
}

}  // namespace thalweg
