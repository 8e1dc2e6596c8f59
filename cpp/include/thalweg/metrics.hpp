// Metric kernels: reductions over samples to float64, in one order whatever the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "dtype.hpp"
#include "sums.hpp"

namespace thalweg {

// All of these take kFloat32 or kFloat64; values are widened to float64 and added as sums.hpp says.

// ---- CPU --------------------------------------------------------------------------------------------------

Sums sum_cpu(const void* values, std::int64_t numel, DType dtype, int num_threads);

// How many rows of scores [rows, classes] have targets[row] among their k largest. Of equal scores the first counts as
// the larger. A row with NaN is wrong, and so is one whose target is no class.
std::int64_t count_correct_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                               std::int64_t k, DType dtype, int num_threads);

// Sum over i of (values[i] - targets[i])^2 in float64.
double squared_error_cpu(const void* values, const void* targets, std::int64_t numel, DType dtype, int num_threads);

// Sum over the rows of log(sum of exp(scores)) - scores[target]; NaN where a target is no class.
double cross_entropy_cpu(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                         DType dtype, int num_threads);

// ---- CUDA -------------------------------------------------------------------------------------------------

// Where a result goes on the device: values[row, column] += result * weight / divisor, where `row` is read from the
// device when the kernel runs. Several results of one call go to neighbouring columns.
struct Cells {
  double* values = nullptr;              // [rows, width]
  const std::int64_t* cursor = nullptr;  // the row, or null for row 0
  std::int64_t width = 0;                // columns
  std::int64_t column = 0;
  double weight = 1.0;
  double divisor = 1.0;
};

// Reductions on one device, with memory for the sums of blocks. Nothing here waits for the device, and everything may
// be captured: that memory grows with the largest reduction so far, so one as large must have run before. Addresses are
// the device's, streams as its runtime has them.
class CudaReducer {
 public:
  explicit CudaReducer(int device);  // throws CudaError where the device cannot run this build's kernels
  ~CudaReducer();
  CudaReducer(const CudaReducer&) = delete;
  CudaReducer& operator=(const CudaReducer&) = delete;

  void sum(const void* values, std::int64_t numel, DType dtype, const Cells& to, void* stream);
  void sum_and_squares(const void* values, std::int64_t numel, DType dtype, const Cells& to, void* stream);
  void squared_error(const void* values, const void* targets, std::int64_t numel, DType dtype, const Cells& to,
                     void* stream);
  void cross_entropy(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                     DType dtype, const Cells& to, void* stream);
  void count_correct(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes,
                     std::int64_t k, DType dtype, const Cells& to, void* stream);
  // One result per row of values [rows, columns].
  void row_squares(const void* values, std::int64_t rows, std::int64_t columns, DType dtype, const Cells& to,
                   void* stream);
  // One result per pair of vectors.
  struct Pair {
    const void* first;
    const void* second;
    std::int64_t numel;  // elements
    DType dtype;         // of both
  };
  void dots(const Pair* pairs, std::size_t count, const Cells& to, void* stream);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One number, from the device (one element) or from the host; and the next row for all that follows.
void accumulate_cuda(int device, const void* value, DType dtype, const Cells& to, void* stream);
void accumulate_cuda(int device, double value, const Cells& to, void* stream);
void advance_cuda(int device, std::int64_t* cursor, void* stream);

}  // namespace thalweg
