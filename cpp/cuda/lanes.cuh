// Folding the lanes of a sum within a block, in the order that step_control.hpp defines. Device only.
#pragma once

#include "runtime.cuh"
#include "step_tables.cuh"

namespace thalweg::cuda {

// lanes[0] becomes the sum of lanes [kNormLanes], which the block has written and does not read otherwise.
inline __device__ void fold_lanes(double* lanes) {
  for (int width = kNormLanes / 2; width >= 1; width /= 2) {
    __syncthreads();
    for (int j = threadIdx.x; j < width; j += kThreads) lanes[j] += lanes[j + width];
  }
  __syncthreads();
}

// The sum of parts [count], in lanes [kNormLanes]; every thread gets it.
inline __device__ double sum_of_parts(const double* parts, std::int64_t count, double* lanes) {
  for (int lane = threadIdx.x; lane < kNormLanes; lane += kThreads) {
    double sum = 0;
    for (std::int64_t i = lane; i < count; i += kNormLanes) sum += parts[i];
    lanes[lane] = sum;
  }
  fold_lanes(lanes);
  return lanes[0];
}

}  // namespace thalweg::cuda
