// The adding of sums.hpp on the device: a thread adds one block of terms in index order, then one thread per result
// adds the blocks' sums in order. Knows no metric.
#pragma once

#include "runtime.cuh"
#include "thalweg/metrics.hpp"
#include "thalweg/sums.hpp"

namespace thalweg::cuda {

constexpr int kSumThreads = 32;    // of a CUDA block: each adds one block of terms
constexpr int kFoldThreads = 128;  // of the CUDA block that folds one result

// Results [rows] of `columns` terms each; result r has the terms r * columns ...
struct SumShape {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t per_row() const { return (columns + kSumBlock - 1) / kSumBlock; }  // blocks of terms
};

inline __device__ void put(const Cells& to, std::int64_t offset, double result) {
  const std::int64_t row = to.cursor != nullptr ? *to.cursor : 0;
  to.values[row * to.width + to.column + offset] += result * to.weight / to.divisor;
}
inline __device__ void put(const Cells& to, std::int64_t offset, const Sums& result) {
  put(to, offset, result.sum);
  put(to, offset + 1, result.sum_of_squares);
}

// parts [rows * per_row] = the sums of all blocks of terms. Terms are read by neighbouring threads and handed through
// shared memory to the thread that adds them.
template <class Sum, class Term>
__global__ __launch_bounds__(kSumThreads) void sum_kernel(Term term, SumShape shape, std::int64_t per_row, Sum* parts) {
  __shared__ double tile[kSumThreads][kSumThreads + 1];
  __shared__ std::int64_t begins[kSumThreads];
  __shared__ int lengths[kSumThreads];
  const int t = static_cast<int>(threadIdx.x);
  const std::int64_t own = static_cast<std::int64_t>(blockIdx.x) * kSumThreads + t;
  const bool exists = own < shape.rows * per_row;
  const std::int64_t offset = exists ? own % per_row * kSumBlock : shape.columns;  // within the row
  const std::int64_t left = shape.columns - offset;
  const int length = static_cast<int>(left < kSumBlock ? left : kSumBlock);
  begins[t] = exists ? own / per_row * shape.columns + offset : 0;
  lengths[t] = length;
  const int longest = static_cast<int>(shape.columns < kSumBlock ? shape.columns : kSumBlock);
  Sum part{};
  for (int at = 0; at < longest; at += kSumThreads) {
    __syncthreads();
    for (int r = 0; r < kSumThreads; ++r)
      if (at + t < lengths[r]) tile[r][t] = term(begins[r] + at + t);
    __syncthreads();
    const int end = length - at < kSumThreads ? length - at : kSumThreads;
    for (int j = 0; j < end; ++j) part += tile[t][j];
  }
  if (exists) parts[own] = part;
}

// Result r = parts[r * per_row] + ... in order.
template <class Sum>
__global__ __launch_bounds__(kFoldThreads) void fold_kernel(const Sum* parts, std::int64_t per_row, Cells to) {
  __shared__ double memory[kFoldThreads * sizeof(Sum) / sizeof(double)];
  Sum* stage = reinterpret_cast<Sum*>(memory);
  const std::int64_t row = blockIdx.x;
  const int t = static_cast<int>(threadIdx.x);
  Sum total{};
  for (std::int64_t at = 0; at < per_row; at += kFoldThreads) {
    const std::int64_t left = per_row - at;
    const int count = static_cast<int>(left < kFoldThreads ? left : kFoldThreads);
    __syncthreads();
    if (t < count) stage[t] = parts[row * per_row + at + t];
    __syncthreads();
    if (t == 0)
      for (int j = 0; j < count; ++j) total += stage[j];
  }
  if (t == 0) put(to, row, total);
}

template <class Sum>
void launch_fold(const Sum* parts, std::int64_t rows, std::int64_t per_row, const Cells& to, void* stream) {
  launch("the kernel that adds sums of blocks", fold_kernel<Sum>, rows, kFoldThreads, stream, parts, per_row, to);
}

// parts: room for rows * per_row() of Sum.
template <class Sum, class Term>
void launch_sum(const Term& term, const SumShape& shape, Sum* parts, const Cells& to, void* stream) {
  const std::int64_t per_row = shape.per_row();
  const std::int64_t blocks = (shape.rows * per_row + kSumThreads - 1) / kSumThreads;
  if (blocks > 0)
    launch("the kernel that adds terms", sum_kernel<Sum, Term>, blocks, kSumThreads, stream, term, shape, per_row,
           parts);
  launch_fold<Sum>(parts, shape.rows, per_row, to, stream);
}

}  // namespace thalweg::cuda
