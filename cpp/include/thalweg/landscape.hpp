// Landscape kernels: perturbed weights, points between two models, reproducible normal directions, their lengths.
// Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

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

// ---- CPU --------------------------------------------------------------------------------------------------

// out = (weight + a * first) + b * second, every operation rounded by itself: the bits of that expression in torch.
// a and b are rounded to the compute type once. The bits do not depend on num_threads or instruction set.
void perturb_cpu(const PerturbItem* items, std::size_t count, double a, double b, int num_threads);

// The point t between weight (t = 0) and first (t = 1), exact at both: weight + t (first - weight) below one half,
// first - (1 - t) (first - weight) from there on.
void lerp_cpu(const PerturbItem* items, std::size_t count, double t, int num_threads);

// out[i] = normal variate number i of `stream` under `seed` (philox.hpp).
void fill_normal_cpu(float* out, std::int64_t numel, std::uint64_t seed, std::uint64_t stream, int num_threads);

// Lengths and angles of directions: products in float64, added as sums.hpp says, so that a seed gives the same
// normalised direction whatever the number of threads, on CPU and CUDA. kFloat32 or kFloat64.

// out[row] = sum of squares of row `row` of values [rows, columns].
void row_squares_cpu(const void* values, std::int64_t rows, std::int64_t columns, DType dtype, double* out,
                     int num_threads);

// Sum over i of first[i] * second[i].
double dot_cpu(const void* first, const void* second, std::int64_t numel, DType dtype, int num_threads);

// ---- CUDA: the same bits. Addresses are the device's; nothing waits for it, everything may be captured ----------

// The tensors of a model on one device; their table is there, too, from the construction on.
class CudaPerturbation {
 public:
  CudaPerturbation(int device, const PerturbItem* items, std::size_t count);  // throws CudaError
  ~CudaPerturbation();
  CudaPerturbation(const CudaPerturbation&) = delete;
  CudaPerturbation& operator=(const CudaPerturbation&) = delete;

  // One launch for all tensors.
  void perturb(double a, double b, void* stream) const;
  void lerp(double t, void* stream) const;
  // With the coordinates in row `*cursor` of table [points, width], both read when the kernel runs; a missing second
  // coordinate is 0.
  void perturb_at(const double* table, std::int64_t width, const std::int64_t* cursor, void* stream) const;
  void lerp_at(const double* table, std::int64_t width, const std::int64_t* cursor, void* stream) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

void fill_normal_cuda(int device, float* out, std::int64_t numel, std::uint64_t seed, std::uint64_t stream_number,
                      void* stream);

}  // namespace thalweg
