// Landscape kernels: perturbed weights, points between two models, drawn directions, lengths.
// Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "draws.hpp"
#include "dtype.hpp"

namespace thalweg {

constexpr int kMaxDirections = 4;

// One direction of one tensor: stored, or drawn again at every point.
struct PerturbTerm {
  const void* values = nullptr;  // [numel], of the compute type; for lerp the other end, of the type of out
  Draw draw;                     // where values is null
  std::int32_t coordinate = 0;   // which coordinate of a point multiplies it
};

// One tensor of a model at a point. float32 and float64 are computed in their own type; bfloat16 and float16 in float32
// with float32 directions, and rounded once. A direction that is zero for this tensor is left out; the others stand in
// the order of their coordinates, all of them stored or all drawn.
struct PerturbItem {
  void* out;           // [numel]
  const void* weight;  // [numel], type as out
  std::int64_t numel;  // elements
  DType dtype;         // of out and weight
  std::int32_t count;  // of terms
  PerturbTerm terms[kMaxDirections];
};

inline bool is_drawn(const PerturbItem& item) { return item.count > 0 && item.terms[0].values == nullptr; }

// ---- CPU --------------------------------------------------------------------------------------------------

// out = ((weight + c0 d0) + c1 d1) + ..., every operation rounded by itself: the bits of that expression in torch.
// Coordinates [kMaxDirections] are rounded to the compute type once. The bits do not depend on num_threads or
// instruction set, nor on whether a direction is stored or drawn.
void perturb_cpu(const PerturbItem* items, std::size_t count, const double* coordinates, int num_threads);

// The point t between weight (t = 0) and the first term (t = 1), exact at both: weight + t (term - weight) below one
// half, term - (1 - t) (term - weight) from there on.
void lerp_cpu(const PerturbItem* items, std::size_t count, double t, int num_threads);

// out [numel], float32 or float64, = a whole direction in order of the dimensions; weight (kWeight alone) lies so, too.
void fill_drawn_cpu(void* out, DType dtype, std::int64_t numel, const Draw& draw, const void* weight,
                    DType weight_dtype, int num_threads);

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

  // One launch for all tensors with stored directions, one for those with drawn ones.
  void perturb(const double* coordinates, void* stream) const;  // [kMaxDirections]
  void lerp(double t, void* stream) const;
  // With the coordinates in row `*cursor` of table [points, width], both read when the kernel runs.
  void perturb_at(const double* table, std::int64_t width, const std::int64_t* cursor, void* stream) const;
  void lerp_at(const double* table, std::int64_t width, const std::int64_t* cursor, void* stream) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

void fill_drawn_cuda(int device, void* out, DType dtype, std::int64_t numel, const Draw& draw, const void* weight,
                     DType weight_dtype, void* stream);

}  // namespace thalweg
