// CPU driver of the optimizer steps: OpenMP over equal shares of the elements of all tensors together. The loops come
// from the functors (step_spans.hpp).
#include "thalweg/step.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "blocks.hpp"
#include "isa.hpp"
#include "lanes.hpp"
#include "step_entry.hpp"
#include "thalweg/error.hpp"
#include "thalweg/optimizers/registry.hpp"

namespace thalweg {
namespace {

// Shares of threads end at multiples of this many elements, so that two threads never write one cache line.
constexpr std::int64_t kShareGrain = 64;

using Entries = std::array<Entry, OptimizerList::size>;

Entries make_entries() {
  Entries entries;
  for_each_optimizer([&](auto op, int index) { entries[static_cast<std::size_t>(index)] = make_entry<decltype(op)>(); },
                     OptimizerList{});
  return entries;
}

const Entry& entry_of(int optimizer) {
  static const Entries entries = make_entries();
  return entries[static_cast<std::size_t>(optimizer)];
}

// The hardware prefetchers start anew in every tensor; these hints fetch the head of a later one in the meantime.
// More bytes were slower: 4,096 cost 25 % on 400 tensors of 1,000 elements.
constexpr std::int64_t kPrefetchBytes = 256;  // per stream
constexpr std::size_t kItemsAhead = 1;
constexpr std::int64_t kCacheLine = 64;  // bytes

void prefetch_item(const StepItem& item) {
  const std::int64_t bytes = std::min(item.numel * size_of(item.dtype), kPrefetchBytes);  // of the parameter
  for (std::int64_t at = 0; at < bytes; at += kCacheLine) {
    __builtin_prefetch(static_cast<const char*>(item.param) + at, 1);
    __builtin_prefetch(static_cast<const char*>(item.grad) + at, 0);
    for (void* const state : item.states)
      if (state != nullptr) __builtin_prefetch(static_cast<const char*>(state) + at, 1);
  }
}

// Elements [begin, end) of all items laid end to end.
void run_share(const SpanTable& spans, const StepItem* items, std::size_t count, const StepScalars* scalars,
               const StepVerdict& verdict, std::int64_t begin, std::int64_t end) {
  const DenormalGuard guard;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const StepItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    offset += item.numel;
    if (from >= to) continue;
    if (i + kItemsAhead < count) prefetch_item(items[i + kItemsAhead]);
    const StepScalars& constants = scalars[item.scalars];
    if (is_bare(item, verdict)) {
      spans.update[item.dtype == DType::kFloat64][item.variant](constants, verdict, item, from, to);
    } else {
      run_item(spans, constants, verdict, item, from, to);
    }
  }
}

}  // namespace

const std::vector<OptimizerInfo>& optimizers() {
  static const std::vector<OptimizerInfo> infos = [] {
    std::vector<OptimizerInfo> list;
    for_each_optimizer(
        [&](auto op, int) {
          using Op = decltype(op);
          std::vector<unsigned> variants;
          for (int v = 0; v < Op::kVariants; ++v) variants.push_back(Op::states(v));
          list.push_back({Op::kName,
                          {Op::kHyperNames.begin(), Op::kHyperNames.end()},
                          {Op::kStateNames.begin(), Op::kStateNames.end()},
                          {Op::kScalarNames.begin(), Op::kScalarNames.end()},
                          variants,
                          Op::kCountsSteps,
                          Op::kTwoPhase});
        },
        OptimizerList{});
    return list;
  }();
  return infos;
}

int optimizer_index(const std::string& name) {
  const auto& list = optimizers();
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const OptimizerInfo& info) { return info.name == name; });
  if (found == list.end()) throw std::invalid_argument(message("optimizer: no optimizer is called '", name, "'"));
  return static_cast<int>(found - list.begin());
}

int variant_of(int optimizer, const double* hyper) { return entry_of(optimizer).variant(hyper); }

void prepare(int optimizer, const double* hyper, double lr, double step, double* state, StepScalars* out) {
  entry_of(optimizer).prepare(hyper, lr, step, state, out);
}

void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars,
              const StepVerdict& verdict, int num_threads) {
  const SpanTable& spans = entry_of(optimizer).spans[static_cast<int>(active_isa())];
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) total += items[i].numel;
  if (num_threads <= 1 || total < kSerialElements) {
    run_share(spans, items, count, scalars, verdict, 0, total);
    return;
  }
  const std::int64_t shares = std::min<std::int64_t>(num_threads, (total + kShareGrain - 1) / kShareGrain);
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(shares))
  for (std::int64_t share = 0; share < shares; ++share) {
    const auto edge = [&](std::int64_t k) {
      return k == shares ? total : total / shares * k / kShareGrain * kShareGrain;
    };
    run_share(spans, items, count, scalars, verdict, edge(share), edge(share + 1));
  }
}

namespace {

// One of the sums' chunks: elements [begin, end) of an item.
struct MeasuredChunk {
  std::size_t item;
  std::int64_t begin, end;
};

Measured<double> measure_chunk(const SpanTable& spans, const StepScalars& constants, const StepVerdict& verdict,
                               const StepItem& item, const MeasuredChunk& chunk) {
  alignas(64) double lanes[2][kNormLanes];
  const int width = lane_width(chunk.end - chunk.begin);
  for (auto& row : lanes) std::fill(row, row + width, 0.0);
  const bool plain = is_plain(item) && verdict.grad_limit == INFINITY;
  for (std::int64_t at = chunk.begin; at < chunk.end; at += kNormLanes) {
    const std::int64_t to = std::min(at + kNormLanes, chunk.end);
    if (plain) {
      spans.measure[item.dtype == DType::kFloat64][item.variant](constants, verdict, item, at, to, lanes[0], lanes[1]);
    } else {
      measure_item(spans, constants, verdict, item, at, to, lanes[0], lanes[1]);
    }
  }
  return {folded(lanes[0], width), folded(lanes[1], width)};
}

}  // namespace

void measure_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars,
                 const StepVerdict& verdict, int num_threads, Measured<double>* sums) {
  const SpanTable& spans = entry_of(optimizer).spans[static_cast<int>(active_isa())];
  std::vector<MeasuredChunk> chunks;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    total += items[i].numel;
    for (std::int64_t at = 0; at < items[i].numel; at += kNormChunk)
      chunks.push_back({i, at, std::min(at + kNormChunk, items[i].numel)});
  }
  std::vector<Measured<double>> parts(chunks.size());
  const std::int64_t shares = num_threads <= 1 || total < kSerialElements ? 1 : num_threads;
  const auto number = static_cast<std::int64_t>(chunks.size());
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(shares)) if (shares > 1)
  for (std::int64_t share = 0; share < shares; ++share) {
    const DenormalGuard guard;
    for (std::int64_t k = number * share / shares; k < number * (share + 1) / shares; ++k) {
      const MeasuredChunk& chunk = chunks[static_cast<std::size_t>(k)];
      const StepItem& item = items[chunk.item];
      parts[static_cast<std::size_t>(k)] = measure_chunk(spans, scalars[item.scalars], verdict, item, chunk);
    }
  }
  const DenormalGuard guard;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Measured<double>* own = parts.data() + begin;
    const std::int64_t n = (items[i].numel + kNormChunk - 1) / kNormChunk;
    sums[i] = {lane_sum(n, [own](std::int64_t k) { return own[k].first; }),
               lane_sum(n, [own](std::int64_t k) { return own[k].second; })};
    begin += static_cast<std::size_t>(n);
  }
}

void adapt(int optimizer, StepItem* items, std::size_t count, const StepScalars* scalars, const Measured<double>* sums,
           StepScalars* own) {
  const DenormalGuard guard;
  for (std::size_t i = 0; i < count; ++i) {
    own[i] = scalars[items[i].scalars];
    entry_of(optimizer).adapt(&own[i], items[i].dtype == DType::kFloat64, sums[i]);
    items[i].scalars = static_cast<std::int32_t>(i);
  }
}

}  // namespace thalweg
