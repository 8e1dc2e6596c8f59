// CPU side of metrics.hpp: blocks of samples in parallel, block results added in order.
#include "thalweg/metrics.hpp"

#include "blocks.hpp"
#include "thalweg/score_rows.hpp"

namespace thalweg {
namespace {

template <class T>
std::int64_t count_as(const T* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                      std::int64_t k, int num_threads) {
  return ordered_sum<std::int64_t>(rows, num_threads, [=](std::int64_t row) -> std::int64_t {
    const T* score = scores + row * classes;
    Rank<T> rank(score, targets[row], classes);
    for (std::int64_t c = 0; c < classes; ++c) rank.see(score[c], c);
    return rank.among(k) ? 1 : 0;
  });
}

template <class T>
double squared_error_as(const void* values, const void* targets, std::int64_t numel, int num_threads) {
  return ordered_sum<double>(numel, num_threads,
                             SquaredErrorTerm<T>{static_cast<const T*>(values), static_cast<const T*>(targets)});
}

template <class T>
double cross_entropy_as(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                        int num_threads) {
  return ordered_sum<double>(rows, num_threads, CrossEntropyTerm<T>{static_cast<const T*>(scores), targets, classes});
}

}  // namespace

Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64
             ? ordered_sum<Sums>(numel, num_threads, ValueTerm<double>{static_cast<const double*>(values)})
             : ordered_sum<Sums>(numel, num_threads, ValueTerm<float>{static_cast<const float*>(values)});
}

std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               std::int64_t k, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? count_as(static_cast<const double*>(scores), targets, rows, classes, k, num_threads)
                                  : count_as(static_cast<const float*>(scores), targets, rows, classes, k, num_threads);
}

double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? squared_error_as<double>(values, targets, numel, num_threads)
                                  : squared_error_as<float>(values, targets, numel, num_threads);
}

double cross_entropy_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                         DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? cross_entropy_as<double>(scores, targets, rows, classes, num_threads)
                                  : cross_entropy_as<float>(scores, targets, rows, classes, num_threads);
}

}  // namespace thalweg
