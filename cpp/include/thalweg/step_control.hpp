// What stands before an update: the norm of all gradients, clipping, loss scaling, whether the step is skipped. The
// only definition of these decisions and of the order in which squares are added. Host and device.
//
// Order of additions, the same on CPU and CUDA: every tensor is cut into chunks of kNormChunk elements; element i of a
// chunk goes to lane i % kNormLanes; the lanes are folded in halves (lane j += lane j + w for w = 512, 256 ... 1).
// The chunks' sums, in the order of the tensors, are added in the same manner: sum i to lane i % kNormLanes, folded.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"

namespace thalweg {

constexpr std::int64_t kNormChunk = 8192;  // elements
constexpr int kNormLanes = 1024;

// All addresses live where the tensors of the step live.
struct StepControl {
  double max_grad_norm = -1;             // gradients enter scaled to at most this norm; negative: no clipping
  double max_grad_value = INFINITY;      // and then with every element within [-max_grad_value, max_grad_value]
  std::uint64_t seed = 0;                // of stochastic rounding
  bool needs_norm = false;               // clipping, looking for non-finite values, or somebody wants to know it
  bool skips_nonfinite = false;          // a norm that is not finite skips the step
  double* norm_out = nullptr;            // receives the norm of the unscaled gradients before clipping
  const double* mesh_squares = nullptr;  // [norm_classes] the squares over all processes; null: this one has them all
  int norm_classes = 0;
  const float* grad_scale = nullptr;  // the loss was multiplied by it
  const float* found_inf = nullptr;   // anything but zero skips the step
  float* found_inf_out = nullptr;     // receives 1 where a norm that is not finite skips the step, otherwise 0
};

// What becomes of a gradient after its use.
enum class GradWrite : std::int8_t {
  kKeep = 0,
  kZero = 1,
  kUnscale = 2,  // divided by the loss's scale, as torch's GradScaler leaves it
};

struct StepVerdict {
  double unscale = 1;     // one over the loss's scale
  double grad_scale = 1;  // what every gradient is multiplied with
  double grad_limit = INFINITY;
  double norm = 0;         // of the unscaled gradients, where it was asked for
  std::uint64_t seed = 0;  // these two key stochastic rounding
  std::int64_t step = 0;   // updates done before this one
  bool skip = false;
};

// What clipping by norm multiplies the gradients with: max_norm / (norm + 1e-6) where that is below 1, as in
// torch.nn.utils.clip_grad_norm_; NaN for a NaN norm.
THALWEG_HD double clip_coefficient(double max_norm, double norm) {
  const double coefficient = max_norm / (norm + 1e-6);
  return coefficient > 1 ? 1 : coefficient;
}

// squares: the sum of the squares of all gradients as they are, where control.needs_norm. step: updates done so far.
THALWEG_HD StepVerdict judge(const StepControl& control, double squares, std::int64_t step) {
  StepVerdict verdict;
  verdict.grad_limit = control.max_grad_value;
  verdict.seed = control.seed;
  verdict.step = step;
  verdict.unscale = control.grad_scale != nullptr ? 1.0 / static_cast<double>(*control.grad_scale) : 1.0;
  verdict.grad_scale = verdict.unscale;
  verdict.skip = control.found_inf != nullptr && *control.found_inf != 0;
  if (!control.needs_norm) return verdict;
  verdict.norm = sqrt(squares) * verdict.grad_scale;
  const bool finite = verdict.norm - verdict.norm == 0;
  verdict.skip = verdict.skip || (control.skips_nonfinite && !finite);
  if (control.max_grad_norm >= 0) verdict.grad_scale *= clip_coefficient(control.max_grad_norm, verdict.norm);
  return verdict;
}

// Writes what the caller of the step asked to know.
THALWEG_HD void report(const StepControl& control, const StepVerdict& verdict) {
  if (control.norm_out != nullptr) *control.norm_out = verdict.norm;
  if (control.found_inf_out != nullptr) *control.found_inf_out = verdict.norm - verdict.norm == 0 ? 0.0f : 1.0f;
}

}  // namespace thalweg
