// What the driver calls of one optimizer's kernels. They are made in a translation unit of their own per optimizer
// (optimizer.cu.in), so that they compile side by side.
#pragma once

#include "step_tables.cuh"

namespace thalweg::cuda {

template <class Op>
struct Kernels {
  static void load();  // brings their code to the current device
  static void tick(const StepTable& table, const StepControl& control, void* stream);
  static void measure(const StepTable& table, const MeshSums& mesh,
                      void* stream);  // nothing where the optimizer has one phase
  static void update(const StepTable& table, void* stream);
};

}  // namespace thalweg::cuda
