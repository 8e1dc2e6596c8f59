// What a step's kernels read on the device: the tables that step.cu uploads and the launches that it makes.
#pragma once

#include <cstdint>

#include "thalweg/step.hpp"

namespace thalweg::cuda {

constexpr int kThreads = 256;                // of every block of a step
constexpr std::int64_t kChunk = kNormChunk;  // elements that one block norms and updates
// Of one tensor's scalars in its compute type; the two weights of its moving average stand behind them.
constexpr std::int64_t kEmaWeights = kMaxScalars * 8;  // their offset, bytes
constexpr std::int64_t kScalarBytes = kEmaWeights + 16;

// Which kernel updates a tensor: in memory as computed, the same with a moving average or zeroed gradients, or
// converted; computed in float32 or float64.
enum ChunkClass { kPlain32, kPlain64, kExtra32, kExtra64, kMixed32, kMixed64, kNumChunkClasses };

struct DeviceItem {
  void* param;
  void* states[kMaxStates];
  void* master;        // or null
  void* ema;           // or null
  void* counter;       // steps done, or null
  std::int64_t numel;  // elements
  std::int32_t group;
  std::uint32_t place;
  std::int16_t variant;
  std::int8_t dtype, grad_dtype, state_dtype, ema_dtype;  // DType
  std::int8_t wide_counter;                               // float64 instead of float32
  GradWrite grad_write;
  std::int8_t stochastic;
  std::int8_t unused[7];  // compared byte by byte
};

struct DeviceChunk {
  std::int32_t item;
  std::int32_t index;  // within the item: its elements begin at index * kChunk
  std::int64_t part;   // its place in the order of additions, which is that of the items
};

struct DeviceGroup {
  double hyper[kMaxHyper];
  double lr;
  double ema_decay;
  void* lr_tensor;
  std::int64_t plans[kMaxPlans];  // offsets of their words in StepTable::plans, or -1
  std::int32_t wide_lr;
  std::int32_t scheduled;  // whether one of the hyper-parameters beside lr has a plan
};

// Where everything stands; passed to the kernels by value.
struct StepTable {
  const DeviceGroup* groups;
  const std::uint64_t* plans;
  const DeviceItem* items;
  const DeviceChunk* chunks;  // in the order of their classes
  void* const* grads;         // [item_count]
  double* parts;              // [chunk_count] sums of squares
  char* scalars;              // [item_count] blocks of kScalarBytes
  StepVerdict* verdict;
  std::int64_t* clock;  // updates done, as the schedules count them; outlives the table
  std::int64_t item_count;
  std::int64_t chunk_count;
  std::int64_t class_begin[kNumChunkClasses + 1];  // where the chunks of each class begin and end
};

// Bring the kernels' code to the current device.
void load_norm();
void load_tick(int optimizer);
void load_update(int optimizer);

// One launch each, on `stream`.
void launch_norm(const StepTable& table, void* stream);
void launch_tick(int optimizer, const StepTable& table, const StepControl& control, void* stream);
void launch_update(int optimizer, const StepTable& table, void* stream);  // one per class of chunks, normally one

}  // namespace thalweg::cuda
