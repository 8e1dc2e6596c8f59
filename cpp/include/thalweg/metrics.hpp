// Metric kernels: reductions over samples to float64, in one order whatever the number of threads.
#pragma once

#include <cstdint>

#include "dtype.hpp"

namespace thalweg {

struct Sums {
  double sum = 0.0;
  double sum_of_squares = 0.0;
  Sums& operator+=(const Sums& other) {
    sum += other.sum;
    sum_of_squares += other.sum_of_squares;
    return *this;
  }
};

// All of these take kFloat32 or kFloat64. Values are widened to float64 and added in index order within blocks of
// 1,024; block sums in index order.
Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads);

// How many rows of scores [rows, classes] have targets[row] among their k largest. Of equal scores the first counts as
// the larger. A row with NaN is wrong, and so is one whose target is no class.
std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               std::int64_t k, DType dtype, int num_threads);

// Sum over i of (values[i] - targets[i])^2 in float64.
double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads);

}  // namespace thalweg
