// Optimizer steps: the public entry point of the core for updates. Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dtype.hpp"
#include "optimizers/common.hpp"
#include "step_control.hpp"

namespace thalweg {

constexpr int kMaxHyper = 12;
constexpr int kMaxScalars = 16;

// What the registry says of one optimizer, without its types.
struct OptimizerInfo {
  std::string name;
  std::vector<std::string> hyper_names;
  std::vector<std::string> state_names;
  bool counts_steps = false;
};

const std::vector<OptimizerInfo>& optimizers();
int optimizer_index(const std::string& name);  // throws std::invalid_argument for an unknown name

int variant_of(int optimizer, const double* hyper);  // hyper: [hyper_names.size()]
int state_count(int optimizer, int variant);

// Per-step constants of one group at one step count, in both compute types.
struct StepScalars {
  alignas(64) double f64[kMaxScalars];
  alignas(64) float f32[kMaxScalars];
  double grad_scale = 1;  // every gradient is multiplied by it first, in the compute type; 1 changes no bit
};
void prepare(int optimizer, const double* hyper, double lr, double step, StepScalars* out);

// One tensor's share of a step. The states follow the order of OptimizerInfo::state_names.
struct StepItem {
  void* param;               // [numel], updated
  const void* grad;          // [numel], same layout and type
  void* states[kMaxStates];  // [numel] each, updated
  std::int64_t numel;        // elements
  std::int32_t scalars;      // index into the scalars
  std::int16_t variant;
  DType dtype;  // kFloat32 or kFloat64
};

// ---- CPU --------------------------------------------------------------------------------------------------

// Sum of the squares of all gradients in float64 (order: step_control.hpp); its bits depend neither on num_threads nor
// on the instruction set.
double grad_squares_cpu(const StepItem* items, std::size_t count, int num_threads);

// Updates all items in one parallel region of at most num_threads threads. The bits do not depend on num_threads.
void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars, int num_threads);

// ---- CUDA -------------------------------------------------------------------------------------------------

// The options of one param group. A plan is evaluated on the device; without one lr_tensor is read there, if given.
struct StepGroup {
  double hyper[kMaxHyper] = {};
  double lr = 0;
  const std::uint64_t* plan = nullptr;  // [plan_words], host memory
  std::int64_t plan_words = 0;
  void* lr_tensor = nullptr;  // one element on the device: read without a plan, with one it receives the next value
  DType lr_dtype = DType::kFloat32;
};

// A tensor on the device. Its states are torch's; counter is the number of steps it has done, one float there, or null
// where the optimizer does not ask for it.
struct CudaStepItem {
  StepItem tensor;  // `scalars` is not used
  void* counter = nullptr;
  std::int32_t group = 0;
  bool wide_counter = false;  // the counter is float64
};

// The steps of one optimizer on one device: its tables of addresses there and up to three launches per step (norm,
// tick, update). Nothing here waits for the device.
class CudaStep {
 public:
  CudaStep(int optimizer, int device);  // throws CudaError where the device cannot run this build's kernels
  ~CudaStep();
  CudaStep(const CudaStep&) = delete;
  CudaStep& operator=(const CudaStep&) = delete;

  // items stand in the order of their groups, and every group has one. clock: int64 on the device, the updates that the
  // schedules have seen; a step that is not skipped raises it. While the stream captures, the step gets a table of its
  // own, which lives for ever. The plans of a step stay where they are until the next one.
  void step(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count,
            const StepControl& control, std::int64_t* clock, void* stream);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The counterpart of step_cpu: updates all items on `device` with scalars that the host computed. Waits for the device.
void step_cuda(int optimizer, int device, const StepItem* items, std::size_t count, const StepScalars* scalars,
               void* stream);

bool cuda_is_capturing(int device, void* stream);

}  // namespace thalweg
