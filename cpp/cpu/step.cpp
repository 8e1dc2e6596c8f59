// CPU driver of the optimizer steps: one loop body per functor, variant, compute type and instruction set, all made
// from the functor by the compiler; OpenMP over equal shares of the elements of all tensors together.
#include "thalweg/step.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "isa.hpp"
#include "step_spans.hpp"
#include "thalweg/error.hpp"
#include "thalweg/optimizers/registry.hpp"

namespace thalweg {
namespace {

// Below this many elements a parallel region costs more than it saves; measured in benchmarks/README.md.
constexpr std::int64_t kSerialElements = 32 * 1024;
// Shares of threads end at multiples of this many elements, so that two threads never write one cache line.
constexpr std::int64_t kShareGrain = 64;

// What a type-erased call needs to know of one functor.
struct Entry {
  SpanTable spans[kNumIsas] = {};
  int (*variant)(const double*) = nullptr;
  int (*state_count)(int) = nullptr;
  void (*prepare)(const double*, double, double, StepScalars*) = nullptr;
};

template <class Op>
void prepare_as(const double* hyper, double lr, double step, StepScalars* out) {
  const auto wide = scalars_for<Op>(hyper, lr, step);
  const auto narrow = rounded_to<Op, float>(wide);
  static_assert(sizeof(wide) <= sizeof(out->f64), "raise kMaxScalars");
  std::memcpy(out->f64, &wide, sizeof(wide));
  std::memcpy(out->f32, &narrow, sizeof(narrow));
}

using Entries = std::array<Entry, OptimizerList::size>;

Entries make_entries() {
  Entries entries;
  for_each_optimizer(
      [&](auto op, int index) {
        using Op = decltype(op);
        static_assert(Op::kVariants <= kMaxVariants && Op::kStateNames.size() <= kMaxStates, "raise the limits");
        static_assert(Op::kHyperNames.size() <= kMaxHyper, "raise kMaxHyper");
        Entry& entry = entries[static_cast<std::size_t>(index)];
        fill_spans<Op>(entry.spans, std::make_integer_sequence<int, Op::kVariants>{});
        entry.variant = [](const double* values) {
          typename Op::Hyper hyper;
          std::memcpy(&hyper, values, sizeof(hyper));
          return Op::variant(hyper);
        };
        entry.state_count = [](int variant) { return Op::state_count(variant); };
        entry.prepare = &prepare_as<Op>;
      },
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

void prefetch_item(const StepItem& item, int states) {
  const std::int64_t bytes = std::min(item.numel * size_of(item.dtype), kPrefetchBytes);  // of the parameter
  for (std::int64_t at = 0; at < bytes; at += kCacheLine) {
    __builtin_prefetch(static_cast<const char*>(item.param) + at, 1);
    __builtin_prefetch(static_cast<const char*>(item.grad) + at, 0);
    for (int i = 0; i < states; ++i) __builtin_prefetch(static_cast<const char*>(item.states[i]) + at, 1);
  }
}

// Elements [begin, end) of all items laid end to end.
void run_share(const SpanTable& spans, int states, const StepItem* items, std::size_t count, const StepScalars* scalars,
               const StepVerdict& verdict, std::int64_t begin, std::int64_t end) {
  const DenormalGuard guard;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const StepItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    offset += item.numel;
    if (from >= to) continue;
    if (i + kItemsAhead < count) prefetch_item(items[i + kItemsAhead], states);
    const StepScalars& constants = scalars[item.scalars];
    if (is_bare(item, verdict)) {
      spans[item.dtype == DType::kFloat64][item.variant](constants, verdict, item, from, to);
    } else {
      run_item(spans, states, constants, verdict, item, from, to);
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
          list.push_back({Op::kName,
                          {Op::kHyperNames.begin(), Op::kHyperNames.end()},
                          {Op::kStateNames.begin(), Op::kStateNames.end()},
                          Op::kCountsSteps});
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

int state_count(int optimizer, int variant) { return entry_of(optimizer).state_count(variant); }

void prepare(int optimizer, const double* hyper, double lr, double step, StepScalars* out) {
  entry_of(optimizer).prepare(hyper, lr, step, out);
}

void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars,
              const StepVerdict& verdict, int num_threads) {
  const SpanTable& spans = entry_of(optimizer).spans[static_cast<int>(active_isa())];
  const int states = static_cast<int>(optimizers()[static_cast<std::size_t>(optimizer)].state_names.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) total += items[i].numel;
  if (num_threads <= 1 || total < kSerialElements) {
    run_share(spans, states, items, count, scalars, verdict, 0, total);
    return;
  }
  const std::int64_t shares = std::min<std::int64_t>(num_threads, (total + kShareGrain - 1) / kShareGrain);
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(shares))
  for (std::int64_t share = 0; share < shares; ++share) {
    const auto edge = [&](std::int64_t k) {
      return k == shares ? total : total / shares * k / kShareGrain * kShareGrain;
    };
    run_share(spans, states, items, count, scalars, verdict, edge(share), edge(share + 1));
  }
}

}  // namespace thalweg
