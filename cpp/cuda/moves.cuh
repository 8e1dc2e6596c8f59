// What the kernels that move weights share: their tables, and where the coordinates of a point come from.
#pragma once

#include "runtime.cuh"
#include "thalweg/landscape.hpp"

namespace thalweg::cuda {

constexpr int kMoveThreads = 256;
constexpr std::int64_t kChunk = 8192;       // elements that one block moves
constexpr std::int64_t kDrawnChunk = 2048;  // and where it draws their directions

struct MoveChunk {
  std::int32_t item;
  std::int32_t index;  // within the item: its elements begin at index * kChunk
};

struct MoveTable {
  const PerturbItem* items;
  const MoveChunk* chunks;  // [grid]
};

// Where the coordinates come from: row *cursor of table [points, width], or `at` where there is none.
struct Place {
  const double* table = nullptr;
  const std::int64_t* cursor = nullptr;
  std::int64_t width = 0;
  double at[kMaxDirections] = {};
};

inline __device__ double coordinate_of(const Place& place, std::int32_t which) {
  if (place.table != nullptr) return place.table[*place.cursor * place.width + which];
  double value = place.at[0];
#pragma unroll
  for (int k = 1; k < kMaxDirections; ++k) value = which == k ? place.at[k] : value;  // an index would cost a stack
  return value;
}

// One block per chunk of a tensor with drawn directions.
void launch_drawn(const MoveTable& table, std::int64_t chunks, const Place& place, void* stream);

}  // namespace thalweg::cuda
