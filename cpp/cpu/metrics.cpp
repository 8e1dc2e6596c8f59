// CPU side of metrics.hpp: blocks of samples in parallel, block results added in order.
#include "thalweg/metrics.hpp"

#include "blocks.hpp"

namespace thalweg {
namespace {

template <class T>
Sums sum_as(const T* values, std::int64_t numel, int num_threads) {
  return ordered_sum<Sums>(numel, num_threads, [values](std::int64_t i) {
    const double value = static_cast<double>(values[i]);
    return Sums{value, value * value};
  });
}

// Whether the target is among the k largest of a row: fewer than k scores come before it.
template <class T>
bool among_largest(const T* score, std::int64_t target, std::int64_t classes, std::int64_t k) {
  if (target < 0 || target >= classes) return false;
  const T own = score[target];
  std::int64_t before = 0;
  bool valid = true;
  for (std::int64_t c = 0; c < classes; ++c) {
    before += score[c] > own || (score[c] == own && c < target) ? 1 : 0;
    valid = valid && score[c] == score[c];
  }
  return valid && before < k;
}

template <class T>
std::int64_t count_as(const T* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                      std::int64_t k, int num_threads) {
  return ordered_sum<std::int64_t>(rows, num_threads, [=](std::int64_t row) -> std::int64_t {
    return among_largest(scores + row * classes, targets[row], classes, k) ? 1 : 0;
  });
}

template <class T>
double squared_error_as(const T* values, const T* targets, std::int64_t numel, int num_threads) {
  return ordered_sum<double>(numel, num_threads, [=](std::int64_t i) {
    const double difference = static_cast<double>(values[i]) - static_cast<double>(targets[i]);
    return difference * difference;
  });
}

}  // namespace

Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? sum_as(static_cast<const double*>(values), numel, num_threads)
                                  : sum_as(static_cast<const float*>(values), numel, num_threads);
}

std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               std::int64_t k, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? count_as(static_cast<const double*>(scores), targets, rows, classes, k, num_threads)
                                  : count_as(static_cast<const float*>(scores), targets, rows, classes, k, num_threads);
}

double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? squared_error_as(static_cast<const double*>(values),
                                                     static_cast<const double*>(targets), numel, num_threads)
                                  : squared_error_as(static_cast<const float*>(values),
                                                     static_cast<const float*>(targets), numel, num_threads);
}

}  // namespace thalweg
