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

// Which kernel updates a tensor: in memory as computed, in float32; the same with a moving average or written
// gradients; any other, computed in float32 or float64.
enum ChunkClass { kPlain32, kExtra32, kMixed32, kMixed64, kNumChunkClasses };

struct DeviceItem {
  void* param;
  void* states[kMaxStates];
  void* master;                         // or null
  void* ema;                            // or null
  void* scalars[1 + kMaxScalarStates];  // ScalarStates
  std::int64_t numel;                   // elements
  std::int64_t first_part;              // of its chunks, in the order of additions
  std::int32_t group;
  std::uint32_t place;
  std::int16_t variant;
  std::int8_t dtype, grad_dtype, state_dtype, ema_dtype;  // DType
  std::uint8_t wide_scalars;                              // ScalarStates
  GradWrite grad_write;
  std::int8_t stochastic;
  std::int8_t unused[3];   // compared byte by byte
  std::int32_t mesh_slot;  // StepItem's
};

struct DeviceChunk {
  std::int32_t item;
  std::int32_t index;  // within the item: its elements begin at index * kChunk
  std::int64_t part;   // its place in the order of additions: that of the items, class by class of their norm
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
  double* parts;              // [2 chunk_count] sums of squares: one per chunk, or two where tensors are measured
  char* scalars;              // [item_count] blocks of kScalarBytes
  StepVerdict* verdict;
  std::int64_t* clock;  // updates done, as the schedules count them; outlives the table
  std::int64_t item_count;
  std::int64_t chunk_count;
  std::int64_t class_begin[kNumChunkClasses + 1];  // where the chunks of each class begin and end
  std::int64_t part_begin[kMaxNormClasses + 1];    // where the parts of each class of the norm begin and end
};

// The norm kernel (norm.cu); the others belong to their optimizer (optimizer.cuh).
void load_norm();
void launch_norm(const StepTable& table, void* stream);
void launch_class_sums(const StepTable& table, int classes, double* squares, void* stream);  // squares: [classes]

}  // namespace thalweg::cuda
