// Metric kernels: reductions over samples to float64, in one order whatever the number of threads.
#pragma once

#include <cstdint>

#include "dtype.hpp"

namespace thalweg {

struct Sums {
  double sum;
  double sum_of_squares;
};

// Values are widened to float64 and added in index order within blocks of 1,024; block sums in index order.
// dtype kFloat32 or kFloat64.
Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads);

// How many rows of scores [rows, classes] have their first maximum at targets[row]; a row with NaN counts as wrong.
std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               DType dtype, int num_threads);

// Sum over i of (values[i] - targets[i])^2 in float64, in the order of sum_cpu.
double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads);

}  // namespace thalweg
