// CPU side of metrics.hpp: blocks of samples in parallel, block results added in order.
#include "thalweg/metrics.hpp"

#include <vector>

namespace thalweg {
namespace {

constexpr std::int64_t kBlock = 1024;       // samples
constexpr std::int64_t kSerialBlocks = 64;  // below, a parallel region costs more than it saves

// Calls block(b, begin, end) for every block of [0, numel), in parallel when there are many.
template <class Block>
void for_each_block(std::int64_t numel, int num_threads, const Block& block) {
  const std::int64_t blocks = (numel + kBlock - 1) / kBlock;
  static_cast<void>(num_threads);  // unused without OpenMP
#pragma omp parallel for schedule(static) num_threads(num_threads) if (blocks >= kSerialBlocks)
  for (std::int64_t b = 0; b < blocks; ++b) block(b, b * kBlock, b + 1 < blocks ? (b + 1) * kBlock : numel);
}

template <class T>
Sums sum_as(const T* values, std::int64_t numel, int num_threads) {
  std::vector<Sums> parts(static_cast<std::size_t>((numel + kBlock - 1) / kBlock), Sums{0.0, 0.0});
  for_each_block(numel, num_threads, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    Sums part{0.0, 0.0};
    for (std::int64_t i = begin; i < end; ++i) {
      const double value = static_cast<double>(values[i]);
      part.sum += value;
      part.sum_of_squares += value * value;
    }
    parts[static_cast<std::size_t>(b)] = part;
  });
  Sums total{0.0, 0.0};
  for (const Sums& part : parts) {
    total.sum += part.sum;
    total.sum_of_squares += part.sum_of_squares;
  }
  return total;
}

template <class T>
std::int64_t count_as(const T* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                      int num_threads) {
  std::vector<std::int64_t> parts(static_cast<std::size_t>((rows + kBlock - 1) / kBlock), 0);
  for_each_block(rows, num_threads, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    std::int64_t correct = 0;
    for (std::int64_t row = begin; row < end; ++row) {
      const T* score = scores + row * classes;
      std::int64_t best = 0;
      bool valid = true;
      for (std::int64_t c = 0; c < classes; ++c) {
        if (score[c] > score[best]) best = c;
        if (score[c] != score[c]) valid = false;
      }
      if (valid && best == targets[row]) ++correct;
    }
    parts[static_cast<std::size_t>(b)] = correct;
  });
  std::int64_t total = 0;
  for (const std::int64_t part : parts) total += part;
  return total;
}

template <class T>
double squared_error_as(const T* values, const T* targets, std::int64_t numel, int num_threads) {
  std::vector<double> parts(static_cast<std::size_t>((numel + kBlock - 1) / kBlock), 0.0);
  for_each_block(numel, num_threads, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    double part = 0.0;
    for (std::int64_t i = begin; i < end; ++i) {
      const double difference = static_cast<double>(values[i]) - static_cast<double>(targets[i]);
      part += difference * difference;
    }
    parts[static_cast<std::size_t>(b)] = part;
  });
  double total = 0.0;
  for (const double part : parts) total += part;
  return total;
}

}  // namespace

Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? sum_as(static_cast<const double*>(values), numel, num_threads)
                                  : sum_as(static_cast<const float*>(values), numel, num_threads);
}

std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? count_as(static_cast<const double*>(scores), targets, rows, classes, num_threads)
                                  : count_as(static_cast<const float*>(scores), targets, rows, classes, num_threads);
}

double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? squared_error_as(static_cast<const double*>(values),
                                                     static_cast<const double*>(targets), numel, num_threads)
                                  : squared_error_as(static_cast<const float*>(values),
                                                     static_cast<const float*>(targets), numel, num_threads);
}

}  // namespace thalweg
