// Optimizer steps: the public entry point of the core for updates. Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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
  std::vector<std::string> scalar_names;  // 0-d states beside `step`
  std::vector<unsigned> variants;         // of each its states: bit i is state_names[i]
  bool counts_steps = false;
  bool two_phase = false;
};

const std::vector<OptimizerInfo>& optimizers();
int optimizer_index(const std::string& name);  // throws std::invalid_argument for an unknown name

int variant_of(int optimizer, const double* hyper);  // hyper: [hyper_names.size()]

// Per-step constants of one group at one step count, in both compute types.
struct StepScalars {
  alignas(64) double f64[kMaxScalars];
  alignas(64) float f32[kMaxScalars];
  double ema_keep = 1;  // weights of the moving average
  double ema_take = 0;
};
// state: [scalar_names.size()], moved on as by the step.
void prepare(int optimizer, const double* hyper, double lr, double step, double* state, StepScalars* out);

// One tensor's share of a step. The states follow the order of OptimizerInfo::state_names. Computed in float64 where
// the parameter is float64, otherwise in float32, whatever the types in memory.
struct StepItem {
  void* param = nullptr;          // [numel], updated
  void* grad = nullptr;           // [numel], same layout; written after its use where grad_write says so
  void* states[kMaxStates] = {};  // [numel] each, updated
  void* master = nullptr;         // [numel] float32 or null: it is updated, and param becomes its rounded copy
  void* ema = nullptr;            // [numel] or null: moving average of the parameter
  std::int64_t numel = 0;         // elements
  std::int32_t scalars = 0;       // index into the scalars
  std::uint32_t place = 0;        // of the parameter in its optimizer; keys stochastic rounding
  std::int16_t variant = 0;
  std::int16_t norm_class = 0;    // tensors whose squares are added over the same processes; 0: over this one alone
  std::int32_t mesh_slot = -1;    // of the sums of a tensor in another class, see MeshSums
  DType dtype = DType::kFloat32;  // of param
  DType grad_dtype = DType::kFloat32;
  DType state_dtype = DType::kFloat32;
  DType ema_dtype = DType::kFloat32;
  GradWrite grad_write = GradWrite::kKeep;
  bool stochastic = false;  // param is bfloat16 and rounded up or down by chance
};

// One type in memory and arithmetic: the loops that need no conversion.
constexpr bool is_plain(const StepItem& item) {
  return item.master == nullptr && (item.dtype == DType::kFloat32 || item.dtype == DType::kFloat64) &&
         item.grad_dtype == item.dtype && item.state_dtype == item.dtype &&
         (item.ema == nullptr || item.ema_dtype == item.dtype);
}

// ---- CPU --------------------------------------------------------------------------------------------------

// Sum of the squares of all gradients in float64 (order: step_control.hpp); its bits depend neither on num_threads nor
// on the instruction set.
double grad_squares_cpu(const StepItem* items, std::size_t count, int num_threads);

// Updates all items in one parallel region of at most num_threads threads. The bits do not depend on num_threads.
void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars,
              const StepVerdict& verdict, int num_threads);

// What two-phase optimizers do before step_cpu. First the sums over each tensor, whose bits depend neither on
// num_threads nor on the instruction set (order of additions: step_control.hpp).
void measure_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars,
                 const StepVerdict& verdict, int num_threads, Measured<double>* sums);  // sums: [count]
// Then every item gets constants of its own, with its sums worked in. own: [count], and items refer to it afterwards.
void adapt(int optimizer, StepItem* items, std::size_t count, const StepScalars* scalars, const Measured<double>* sums,
           StepScalars* own);

// ---- CUDA -------------------------------------------------------------------------------------------------

// A schedule of one hyper-parameter; words lie in host memory.
struct PlanRef {
  const std::uint64_t* words = nullptr;  // [count], or null: there is none
  std::int64_t count = 0;
};
constexpr int kLrPlan = kMaxHyper;  // its index among a group's plans; the others follow the hyper-parameters
constexpr int kMaxPlans = kMaxHyper + 1;

// The options of one param group. Plans are evaluated on the device; without one lr_tensor is read there, if given.
struct StepGroup {
  double hyper[kMaxHyper] = {};
  double lr = 0;
  double ema_decay = 0;
  PlanRef plans[kMaxPlans];
  void* lr_tensor = nullptr;  // one element on the device: read without a plan, with one it receives the next value
  DType lr_dtype = DType::kFloat32;
};

// A tensor's 0-d states: the number of steps it has done, or null where nobody counts, and those of scalar_names.
struct ScalarStates {
  void* at[1 + kMaxScalarStates] = {};
  std::uint8_t wide = 0;  // bit i: at[i] is float64, otherwise float32
};

// A tensor on the device. Its states are torch's.
struct CudaStepItem {
  StepItem tensor;  // `scalars` is not used
  ScalarStates scalars;
  std::int32_t group = 0;
};

constexpr int kMaxNormClasses = 8;  // StepItem::norm_class is below

// What a step shares with other processes: numbers on the device that become sums over the processes of their class
// between two kernels.
struct MeshSums {
  int classes = 1;                         // 1: nothing is shared
  double* squares = nullptr;               // [classes] of the gradients
  double* measured = nullptr;              // [2 * slots] zeros, where the optimizer has two phases
  std::function<void(bool measured)> add;  // puts the additions onto the stream of the step
};

// The steps of one optimizer on one device: its tables of addresses there and up to three launches per step (norm,
// tick, update), two more where norms of each tensor are taken. Nothing here waits for the device.
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
            const StepControl& control, std::int64_t* clock, void* stream, const MeshSums& mesh = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The counterpart of step_cpu: updates all items on `device` with scalars that the host computed. Waits for the device.
void step_cuda(int optimizer, int device, const StepItem* items, std::size_t count, const StepScalars* scalars,
               const StepVerdict& verdict, void* stream);

bool cuda_is_capturing(int device, void* stream);

}  // namespace thalweg
