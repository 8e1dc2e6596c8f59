// What a step's kernels read on the device: the tables that step.cu uploads and the launches that it makes.
#pragma once

#include <cstdint>

#include "thalweg/step.hpp"

namespace thalweg::cuda {

constexpr int kThreads = 256;                           // of every block of a step
constexpr std::int64_t kChunk = kNormChunk;             // elements that one block norms and updates
constexpr std::int64_t kScalarBytes = kMaxScalars * 8;  // of one tensor's scalars, in its compute type

struct DeviceItem {
  void* param;
  void* states[kMaxStates];
  void* counter;       // steps done, or null
  std::int64_t numel;  // elements
  std::int32_t group;
  std::int16_t variant;
  std::int8_t wide;          // float64 instead of float32
  std::int8_t wide_counter;  // the same of the counter
};

struct DeviceChunk {
  std::int32_t item;
  std::int32_t index;  // within the item: its elements begin at index * kChunk
  std::int64_t part;   // its place in the order of additions, which is that of the items
};

struct DeviceGroup {
  double hyper[kMaxHyper];
  double lr;
  void* lr_tensor;
  std::int64_t plan;  // offset of its words in StepTable::plans, or -1
  std::int64_t wide_lr;
};

// Where everything stands; passed to the kernels by value.
struct StepTable {
  const DeviceGroup* groups;
  const std::uint64_t* plans;
  const DeviceItem* items;
  const DeviceChunk* chunks;  // those of float32 tensors first
  const void* const* grads;   // [item_count]
  double* parts;              // [chunk_count] sums of squares
  char* scalars;              // [item_count] blocks of kScalarBytes
  StepVerdict* verdict;
  std::int64_t* clock;  // updates done, as the schedules count them; outlives the table
  std::int64_t item_count;
  std::int64_t chunk_count;
  std::int64_t narrow_chunks;  // how many of the chunks are of float32 tensors
};

// Bring the kernels' code to the current device.
void load_norm();
void load_tick(int optimizer);
void load_update(int optimizer);

// One launch each, on `stream`.
void launch_norm(const StepTable& table, void* stream);
void launch_tick(int optimizer, const StepTable& table, const StepControl& control, void* stream);
void launch_update(int optimizer, const StepTable& table, void* stream);  // one per compute type, normally one

}  // namespace thalweg::cuda
