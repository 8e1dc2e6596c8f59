// The host's image of a step's table on the device: laid out, filled, compared with what it was. Host only.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "step_tables.cuh"

namespace thalweg::cuda {

// Offsets of a table's parts, in bytes; the host's image ends where the device's scratch begins.
struct StepLayout {
  std::size_t groups = 0, plans = 0, items = 0, chunks = 0, grads = 0, uploaded = 0;
  std::size_t parts = 0, scalars = 0, verdict = 0, bytes = 0;
  std::size_t item_count = 0, chunk_count = 0, group_count = 0;
  std::size_t class_begin[kNumChunkClasses + 1] = {};
  std::int64_t part_begin[kMaxNormClasses + 1] = {};
};

inline std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

inline ChunkClass class_of(const StepItem& item) {
  if (item.dtype == DType::kFloat64) return kMixed64;
  if (!is_plain(item)) return kMixed32;
  return item.ema != nullptr || item.grad_write != GradWrite::kKeep ? kExtra32 : kPlain32;
}

inline std::size_t chunks_of(const StepItem& item) {
  return static_cast<std::size_t>((item.numel + kChunk - 1) / kChunk);
}

// Hands out the places of the items' parts in the order of additions: class after class of the norm.
class PartPlaces {
 public:
  PartPlaces(const CudaStepItem* items, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) begin_[items[i].tensor.norm_class + 1] += parts_of(items[i]);
    for (int k = 0; k < kMaxNormClasses; ++k) begin_[k + 1] += begin_[k];
    std::copy(begin_, begin_ + kMaxNormClasses, next_);
  }
  std::int64_t take(const CudaStepItem& item) {  // of its first part
    std::int64_t& next = next_[item.tensor.norm_class];
    next += parts_of(item);
    return next - parts_of(item);
  }
  const std::int64_t* begin() const { return begin_; }  // [kMaxNormClasses + 1]

 private:
  static std::int64_t parts_of(const CudaStepItem& item) { return static_cast<std::int64_t>(chunks_of(item.tensor)); }
  std::int64_t begin_[kMaxNormClasses + 1] = {};
  std::int64_t next_[kMaxNormClasses] = {};
};

inline DeviceItem device_item(const CudaStepItem& from, std::int64_t first_part) {
  DeviceItem item{};
  item.param = from.tensor.param;
  std::copy(std::begin(from.tensor.states), std::end(from.tensor.states), std::begin(item.states));
  item.master = from.tensor.master;
  item.ema = from.tensor.ema;
  std::copy(std::begin(from.scalars.at), std::end(from.scalars.at), std::begin(item.scalars));
  item.wide_scalars = from.scalars.wide;
  item.first_part = first_part;
  item.numel = from.tensor.numel;
  item.group = from.group;
  item.place = from.tensor.place;
  item.variant = from.tensor.variant;
  item.dtype = static_cast<std::int8_t>(from.tensor.dtype);
  item.grad_dtype = static_cast<std::int8_t>(from.tensor.grad_dtype);
  item.state_dtype = static_cast<std::int8_t>(from.tensor.state_dtype);
  item.ema_dtype = static_cast<std::int8_t>(from.tensor.ema_dtype);
  item.grad_write = from.tensor.grad_write;
  item.stochastic = from.tensor.stochastic ? 1 : 0;
  item.mesh_slot = from.tensor.mesh_slot;
  return item;
}

class StepImage {
 public:
  const StepLayout& layout() const { return layout_; }
  const char* data() const { return bytes_.data(); }

  // Lays the table out anew and fills it.
  void build(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count) {
    lay_out(items, count, groups, group_count);
    bytes_.assign(layout_.uploaded, 0);
    PartPlaces parts(items, count);
    std::copy(parts.begin(), parts.begin() + kMaxNormClasses + 1, layout_.part_begin);
    for (std::size_t i = 0; i < count; ++i) put(layout_.items, i, device_item(items[i], parts.take(items[i])));
    write_chunks(items, count);
    for (std::size_t i = 0; i < count; ++i) put(layout_.grads, i, items[i].tensor.grad);
    plans_.clear();
    std::int64_t words = 0;
    for (std::size_t g = 0; g < group_count; ++g) {
      put(layout_.groups, g, device_group(groups[g], words));
      for (const PlanRef& plan : groups[g].plans) {
        plans_.push_back(plan.words);
        if (plan.words == nullptr) continue;
        const auto bytes = static_cast<std::size_t>(plan.count) * 8;
        std::memcpy(bytes_.data() + layout_.plans + static_cast<std::size_t>(words) * 8, plan.words, bytes);
        words += plan.count;
      }
    }
  }

  // True when the tensors, their places and the plans are those of the image. Plans are told by their address: the
  // caller keeps those of the last step alive.
  bool fits(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count) const {
    if (bytes_.empty() || count != layout_.item_count || group_count != layout_.group_count) return false;
    for (std::size_t g = 0; g < group_count; ++g)
      for (std::size_t k = 0; k < kMaxPlans; ++k)
        if (groups[g].plans[k].words != plans_[g * kMaxPlans + k]) return false;
    PartPlaces parts(items, count);
    for (std::size_t i = 0; i < count; ++i) {
      const DeviceItem item = device_item(items[i], parts.take(items[i]));
      if (std::memcmp(&item, bytes_.data() + layout_.items + i * sizeof(item), sizeof(item)) != 0) return false;
    }
    return true;
  }

  // Brings options up to date; true when one changed.
  bool renew_groups(const StepGroup* groups, std::size_t group_count) {
    bool changed = false;
    std::int64_t words = 0;
    for (std::size_t g = 0; g < group_count; ++g) {
      changed = replace(layout_.groups, g, device_group(groups[g], words)) || changed;
      words += words_of(groups[g]);
    }
    return changed;
  }

  bool renew_grads(const CudaStepItem* items, std::size_t count) {
    bool changed = false;
    for (std::size_t i = 0; i < count; ++i) changed = replace(layout_.grads, i, items[i].tensor.grad) || changed;
    return changed;
  }

  StepTable table_at(char* device, std::int64_t* clock) const {
    StepTable table{};
    table.groups = reinterpret_cast<const DeviceGroup*>(device + layout_.groups);
    table.plans = reinterpret_cast<const std::uint64_t*>(device + layout_.plans);
    table.items = reinterpret_cast<const DeviceItem*>(device + layout_.items);
    table.chunks = reinterpret_cast<const DeviceChunk*>(device + layout_.chunks);
    table.grads = reinterpret_cast<void* const*>(device + layout_.grads);
    table.parts = reinterpret_cast<double*>(device + layout_.parts);
    table.scalars = device + layout_.scalars;
    table.verdict = reinterpret_cast<StepVerdict*>(device + layout_.verdict);
    table.clock = clock;
    table.item_count = static_cast<std::int64_t>(layout_.item_count);
    table.chunk_count = static_cast<std::int64_t>(layout_.chunk_count);
    for (int c = 0; c <= kNumChunkClasses; ++c)
      table.class_begin[c] = static_cast<std::int64_t>(layout_.class_begin[c]);
    std::copy(std::begin(layout_.part_begin), std::end(layout_.part_begin), std::begin(table.part_begin));
    return table;
  }

 private:
  template <class T>
  void put(std::size_t offset, std::size_t index, const T& value) {
    std::memcpy(bytes_.data() + offset + index * sizeof(T), &value, sizeof(T));
  }
  template <class T>
  bool replace(std::size_t offset, std::size_t index, const T& value) {
    if (std::memcmp(bytes_.data() + offset + index * sizeof(T), &value, sizeof(T)) == 0) return false;
    return put(offset, index, value), true;
  }

  static std::int64_t words_of(const StepGroup& group) {
    std::int64_t words = 0;
    for (const PlanRef& plan : group.plans) words += plan.count;
    return words;
  }

  // words: where the group's plans begin.
  static DeviceGroup device_group(const StepGroup& from, std::int64_t words) {
    DeviceGroup group{};
    for (int k = 0; k < kMaxPlans; ++k) {
      const PlanRef& plan = from.plans[k];
      group.plans[k] = plan.words != nullptr ? words : -1;
      words += plan.count;
      const double value = plan.words != nullptr ? 0.0 : k == kLrPlan ? from.lr : from.hyper[k];
      (k == kLrPlan ? group.lr : group.hyper[k]) = value;  // the host's mirror of a schedule is no change
      if (k != kLrPlan && plan.words != nullptr) group.scheduled = 1;
    }
    group.ema_decay = from.ema_decay;
    group.lr_tensor = from.lr_tensor;
    group.wide_lr = from.lr_dtype == DType::kFloat64 ? 1 : 0;
    return group;
  }

  void lay_out(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count) {
    StepLayout out;
    std::size_t words = 0;
    for (std::size_t g = 0; g < group_count; ++g) words += static_cast<std::size_t>(words_of(groups[g]));
    for (std::size_t i = 0; i < count; ++i)
      out.class_begin[class_of(items[i].tensor) + 1] += chunks_of(items[i].tensor);
    for (int c = 0; c < kNumChunkClasses; ++c) out.class_begin[c + 1] += out.class_begin[c];
    out.chunk_count = out.class_begin[kNumChunkClasses];
    out.item_count = count;
    out.group_count = group_count;
    out.plans = out.groups + aligned(group_count * sizeof(DeviceGroup));
    out.items = out.plans + aligned(words * 8);
    out.chunks = out.items + aligned(count * sizeof(DeviceItem));
    out.grads = out.chunks + aligned(out.chunk_count * sizeof(DeviceChunk));
    out.uploaded = out.grads + aligned(count * sizeof(void*));
    out.parts = out.uploaded;
    out.scalars = out.parts + aligned(2 * out.chunk_count * sizeof(double));
    out.verdict = out.scalars + aligned(count * kScalarBytes);
    out.bytes = out.verdict + aligned(sizeof(StepVerdict));
    layout_ = out;
  }

  // In the order of their classes; `part` keeps the order of PartPlaces.
  void write_chunks(const CudaStepItem* items, std::size_t count) {
    std::size_t places[kNumChunkClasses];  // of the next chunk of each class
    std::copy(layout_.class_begin, layout_.class_begin + kNumChunkClasses, places);
    PartPlaces parts(items, count);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t& place = places[class_of(items[i].tensor)];
      const std::size_t chunks = chunks_of(items[i].tensor);
      std::int64_t part = parts.take(items[i]);
      for (std::size_t k = 0; k < chunks; ++k)
        put(layout_.chunks, place++, DeviceChunk{static_cast<std::int32_t>(i), static_cast<std::int32_t>(k), part++});
    }
  }

  StepLayout layout_;
  std::vector<char> bytes_;
  std::vector<const std::uint64_t*> plans_;  // as the caller gave them
};

}  // namespace thalweg::cuda
