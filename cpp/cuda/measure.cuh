// The first phase of a two-phase step: sums over each tensor, worked into its constants. The order of additions stands
// in step_control.hpp. Device only.
#pragma once

#include "lanes.cuh"
#include "thalweg/storage.hpp"
#include "update.cuh"

namespace thalweg::cuda {
namespace {

// Element i of the tensor as the update rule sees it, measured.
template <class Op, int V, class T>
__device__ Measured<T> measure_element(const Constants<Op, T>& c, const DeviceItem& item, const void* grad,
                                       std::int64_t i) {
  const DType state_dtype = static_cast<DType>(item.state_dtype);
  const DType param_dtype = item.master != nullptr ? DType::kFloat32 : static_cast<DType>(item.dtype);
  const T p = load_as<T>(param_dtype, item.master != nullptr ? item.master : item.param, i);
  const T g = load_as<T>(static_cast<DType>(item.grad_dtype), grad, i);
  T s[kMaxStates] = {};
#pragma unroll
  for (int k = 0; k < kMaxStates; ++k)
    if ((Op::states(V) >> k & 1) != 0) s[k] = load_as<T>(state_dtype, item.states[k], i);
  return Op::template measure<V>(c.scalars, p, conditioned(g, c.scale, c.limit), s);
}

template <class Op, int V, class T>
struct MeasureChunk {
  static __device__ void run(const StepTable& table, const DeviceChunk& chunk, const DeviceItem& item) {
    __shared__ double first[kNormLanes], second[kNormLanes];
    const Constants<Op, T> c = constants_of<Op, T>(table, chunk.item);
    const Part part = part_of(chunk, item);
    const void* grad = table.grads[chunk.item];
    for (int lane = static_cast<int>(threadIdx.x); lane < kNormLanes; lane += kThreads) {
      double a = 0, b = 0;
      for (int i = lane; i < part.numel; i += kNormLanes) {
        const Measured<T> found = measure_element<Op, V, T>(c, item, grad, part.begin + i);
        a += static_cast<double>(found.first) * static_cast<double>(found.first);
        b += static_cast<double>(found.second) * static_cast<double>(found.second);
      }
      first[lane] = a;
      second[lane] = b;
    }
    fold_lanes(first);
    fold_lanes(second);
    if (threadIdx.x == 0) {
      table.parts[2 * chunk.part] = first[0];
      table.parts[2 * chunk.part + 1] = second[0];
    }
  }
};

template <class Op>
__global__ __launch_bounds__(kThreads, 2) void measure_kernel(StepTable table) {
  if (table.verdict->skip) return;
  const DeviceChunk chunk = table.chunks[blockIdx.x];
  const DeviceItem& item = table.items[chunk.item];
  if (static_cast<DType>(item.dtype) == DType::kFloat64) {
    update_variant<MeasureChunk, Op, double>(table, chunk, item);
  } else {
    update_variant<MeasureChunk, Op, float>(table, chunk, item);
  }
}

template <class Op, class T>
__device__ void adapt_item(const StepTable& table, std::int64_t i, const Measured<double>& sums) {
  char* at = table.scalars + i * kScalarBytes;
  typename Op::template Scalars<T> scalars;
  memcpy(&scalars, at, sizeof(scalars));
  Op::adapt(scalars, sums);
  memcpy(at, &scalars, sizeof(scalars));
}

// A tensor's sums: those of its chunks by lanes, folded.
__device__ Measured<double> sums_of(const StepTable& table, const DeviceItem& item, double* first, double* second) {
  const std::int64_t chunks = (item.numel + kChunk - 1) / kChunk;
  const double* parts = table.parts + 2 * item.first_part;
  for (int lane = static_cast<int>(threadIdx.x); lane < kNormLanes; lane += kThreads) {
    double a = 0, b = 0;
    for (std::int64_t k = lane; k < chunks; k += kNormLanes) a += parts[2 * k], b += parts[2 * k + 1];
    first[lane] = a;
    second[lane] = b;
  }
  fold_lanes(first);
  fold_lanes(second);
  return {first[0], second[0]};
}

// One block per tensor, whose sums over this process go where those over all are made.
__global__ __launch_bounds__(kThreads, 1) void share_kernel(StepTable table, double* measured) {
  if (table.verdict->skip) return;
  __shared__ double first[kNormLanes], second[kNormLanes];
  const DeviceItem& item = table.items[blockIdx.x];
  if (item.mesh_slot < 0) return;
  const Measured<double> sums = sums_of(table, item, first, second);
  if (threadIdx.x != 0) return;
  measured[2 * item.mesh_slot] = sums.first;
  measured[2 * item.mesh_slot + 1] = sums.second;
}

// One block per tensor. measured: sums over all processes, or null where no tensor has them.
template <class Op>
__global__ __launch_bounds__(kThreads, 1) void adapt_kernel(StepTable table, const double* measured) {
  if (table.verdict->skip) return;
  __shared__ double first[kNormLanes], second[kNormLanes];
  const DeviceItem& item = table.items[blockIdx.x];
  const bool shared = measured != nullptr && item.mesh_slot >= 0;
  const Measured<double> sums = shared
                                    ? Measured<double>{measured[2 * item.mesh_slot], measured[2 * item.mesh_slot + 1]}
                                    : sums_of(table, item, first, second);
  if (threadIdx.x != 0) return;
  if (static_cast<DType>(item.dtype) == DType::kFloat64) {
    adapt_item<Op, double>(table, blockIdx.x, sums);
  } else {
    adapt_item<Op, float>(table, blockIdx.x, sums);
  }
}

}  // namespace

template <class Op>
void load_measure() {
  load(measure_kernel<Op>), load(share_kernel), load(adapt_kernel<Op>);
}

template <class Op>
void launch_measure(const StepTable& table, const MeshSums& mesh, void* stream) {
  const bool empty = table.chunk_count == 0;
  if (!empty) launch("the measuring kernel", measure_kernel<Op>, table.chunk_count, kThreads, stream, table);
  if (mesh.classes > 1) {  // also without an element here: all processes add
    if (!empty)
      launch("the kernel that shares sums", share_kernel, table.item_count, kThreads, stream, table, mesh.measured);
    mesh.add(true);
  }
  const double* measured = mesh.measured;
  if (!empty) launch("the adapting kernel", adapt_kernel<Op>, table.item_count, kThreads, stream, table, measured);
}

}  // namespace thalweg::cuda
