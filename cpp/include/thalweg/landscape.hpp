// Landscape kernels: perturbed weights, points between two models, reproducible normal directions, their lengths.
// Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtype.hpp"

namespace thalweg {

// One tensor of a model at a grid point. float32 and float64 are computed in their own type; bfloat16 and float16 in
// float32 with float32 directions, and rounded once.
struct PerturbItem {
  void* out;           // [numel]
  const void* weight;  // [numel], type as out
  const void* first;   // [numel] direction, or null: its term is left out
  const void* second;  // [numel] direction, or null: its term is left out
  std::int64_t numel;  // elements
  DType dtype;         // of out and weight
};

// out = (weight + a * first) + b * second, every operation rounded by itself: the bits of that expression in torch.
// a and b are rounded to the compute type once. The bits do not depend on num_threads or instruction set.
void perturb_cpu(const PerturbItem* items, std::size_t count, double a, double b, int num_threads);

// The point t between weight (t = 0) and first (t = 1), exact at both: weight + t (first - weight) below one half,
// first - (1 - t) (first - weight) from there on.
void lerp_cpu(const PerturbItem* items, std::size_t count, double t, int num_threads);

// out[i] = normal variate number i of `stream` under `seed` (philox.hpp).
void fill_normal_cpu(float* out, std::int64_t numel, std::uint64_t seed, std::uint64_t stream, int num_threads);

// Lengths and angles of directions: products in float64, added in index order within blocks of 1,024, block sums in
// index order, so that a seed gives the same normalised direction whatever the number of threads. kFloat32 or kFloat64.

// out[row] = sum of squares of row `row` of values [rows, columns].
void row_squares_cpu(const void* values, std::int64_t rows, std::int64_t columns, DType dtype, double* out,
                     int num_threads);

// Sum over i of first[i] * second[i].
double dot_cpu(const void* first, const void* second, std::int64_t numel, DType dtype, int num_threads);

}  // namespace thalweg
