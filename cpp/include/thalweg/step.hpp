// Optimizer steps: the public entry point of the core for updates. Knows addresses, not tensors of any framework.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dtype.hpp"
#include "optimizers/common.hpp"

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

// Updates all items in one parallel region of at most num_threads threads. The bits do not depend on num_threads.
void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars, int num_threads);

}  // namespace thalweg
