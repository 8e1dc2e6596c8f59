// The tick kernel: the norm's parts become the verdict on the step, schedules their values, hyper-parameters and step
// counts each tensor's scalars. Every block adds the parts and judges by itself, in the same order. Device only.
#pragma once

#include "lanes.cuh"
#include "runtime.cuh"
#include "step_tables.cuh"
#include "thalweg/optimizers/scalars.hpp"
#include "thalweg/schedule.hpp"
#include "thalweg/step_elements.hpp"

namespace thalweg::cuda {
namespace {

// Of all gradients in all processes.
__device__ double grad_squares(const StepTable& table, const StepControl& control, double* lanes) {
  if (!control.needs_norm) return 0;
  if (control.mesh_squares == nullptr) return sum_of_parts(table.parts, table.chunk_count, lanes);
  double sum = 0;
  for (int k = 0; k < control.norm_classes; ++k) sum += control.mesh_squares[k];
  return sum;
}

__device__ double tensor_lr(const DeviceGroup& group) {
  return group.wide_lr != 0 ? *static_cast<const double*>(group.lr_tensor)
                            : static_cast<double>(*static_cast<const float*>(group.lr_tensor));
}

// The rate of this update. The group's own thread also writes the next one where a tensor mirrors it.
__device__ double rate_of(const StepTable& table, const DeviceGroup& group, bool mirrors, bool skip) {
  if (group.plans[kLrPlan] < 0) return group.lr_tensor != nullptr ? tensor_lr(group) : group.lr;
  const std::uint64_t* plan = table.plans + group.plans[kLrPlan];
  const std::int64_t step = *table.clock;
  if (mirrors && group.lr_tensor != nullptr) {
    const double next = value_at(plan, skip ? step : step + 1);
    if (group.wide_lr != 0) {
      *static_cast<double*>(group.lr_tensor) = next;
    } else {
      *static_cast<float*>(group.lr_tensor) = static_cast<float>(next);
    }
  }
  return value_at(plan, step);
}

template <class T>
__device__ void write_average(char* out, const AverageWeights& weights) {
  T* to = reinterpret_cast<T*>(out + kEmaWeights);
  to[0] = static_cast<T>(weights.keep);
  to[1] = static_cast<T>(weights.take);
}

__device__ double scalar_state(const DeviceItem& item, int k) {
  return (item.wide_scalars >> k & 1) != 0 ? *static_cast<const double*>(item.scalars[k])
                                           : static_cast<double>(*static_cast<const float*>(item.scalars[k]));
}

__device__ void write_scalar_state(const DeviceItem& item, int k, double value) {
  if ((item.wide_scalars >> k & 1) != 0) {
    *static_cast<double*>(item.scalars[k]) = value;
  } else {
    *static_cast<float*>(item.scalars[k]) = static_cast<float>(value);
  }
}

template <class Op>
__device__ void prepare_item(const StepTable& table, std::int64_t i, double lr, bool skip) {
  const DeviceItem& item = table.items[i];
  const DeviceGroup& group = table.groups[item.group];
  constexpr int kScalarStates = static_cast<int>(Op::kScalarNames.size());
  const double done = item.scalars[0] == nullptr ? 1.0 : scalar_state(item, 0);  // without a count any but the first
  double state[kMaxScalarStates] = {};
  for (int k = 0; k < kScalarStates; ++k) state[k] = scalar_state(item, 1 + k);
  double hyper[kMaxHyper];
  for (int k = 0; k < kMaxHyper; ++k)
    hyper[k] = group.scheduled != 0 && group.plans[k] >= 0 ? value_at(table.plans + group.plans[k], *table.clock)
                                                           : group.hyper[k];
  const auto wide = scalars_for<Op>(hyper, lr, done + 1, state);
  const AverageWeights average = average_weights(group.ema_decay, done == 0);
  char* out = table.scalars + i * kScalarBytes;
  if (static_cast<DType>(item.dtype) == DType::kFloat64) {
    memcpy(out, &wide, sizeof(wide));
    write_average<double>(out, average);
  } else {
    const auto narrow = rounded_to<Op, float>(wide);
    memcpy(out, &narrow, sizeof(narrow));
    write_average<float>(out, average);
  }
  if (skip) return;
  if (item.scalars[0] != nullptr) write_scalar_state(item, 0, done + 1);
  for (int k = 0; k < kScalarStates; ++k) write_scalar_state(item, 1 + k, state[k]);
}

// Block b prepares items [b kThreads, (b + 1) kThreads); as items stand in the order of their groups and every group
// has an item, they belong to at most kThreads groups, whose rates are computed once per block.
template <class Op>
__global__ __launch_bounds__(kThreads, 1) void tick_kernel(StepTable table, StepControl control) {
  __shared__ double lanes[kNormLanes];
  __shared__ double rates[kThreads];
  const StepVerdict verdict = judge(control, grad_squares(table, control, lanes), *table.clock);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads;
  const std::int64_t end = first + kThreads < table.item_count ? first + kThreads : table.item_count;
  const int first_group = first < end ? table.items[first].group : 0;
  const int groups = first < end ? table.items[end - 1].group - first_group + 1 : 0;
  const int t = static_cast<int>(threadIdx.x);
  if (t < groups) {
    // A group may begin in an earlier block; the block with its first item keeps the mirror.
    const bool mirrors = t > 0 || first == 0 || table.items[first - 1].group != first_group;
    rates[t] = rate_of(table, table.groups[first_group + t], mirrors, verdict.skip);
  }
  __syncthreads();
  if (first + t < end)
    prepare_item<Op>(table, first + t, rates[table.items[first + t].group - first_group], verdict.skip);
  if (blockIdx.x == 0 && t == 0) {
    *table.verdict = verdict;
    report(control, verdict);
  }
}

}  // namespace

template <class Op>
void load_tick() {
  load(tick_kernel<Op>);
}

template <class Op>
void launch_tick(const StepTable& table, const StepControl& control, void* stream) {
  static_assert(sizeof(typename Op::template Scalars<double>) <= kEmaWeights, "raise kMaxScalars");
  const std::int64_t blocks = table.item_count > 0 ? (table.item_count + kThreads - 1) / kThreads : 1;
  launch("the tick kernel", tick_kernel<Op>, blocks, kThreads, stream, table, control);
}

}  // namespace thalweg::cuda
