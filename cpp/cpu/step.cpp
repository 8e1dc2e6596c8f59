// CPU driver of the optimizer steps: one loop body per functor, variant, compute type and instruction set, all made
// from the functor by the compiler; OpenMP over equal shares of the elements of all tensors together.
#include "thalweg/step.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "isa.hpp"
#include "thalweg/error.hpp"
#include "thalweg/optimizers/registry.hpp"
#include "thalweg/optimizers/scalars.hpp"

namespace thalweg {
namespace {

// Below this many elements a parallel region costs more than it saves; measured in benchmarks/README.md.
constexpr std::int64_t kSerialElements = 32 * 1024;
// Shares of threads end at multiples of this many elements, so that two threads never write one cache line.
constexpr std::int64_t kShareGrain = 64;

using SpanFn = void (*)(const StepScalars& scalars, const StepItem& item, std::int64_t begin, std::int64_t end);

template <class Op, int V, class T>
THALWEG_HD void span_body(const StepScalars& scalars, const StepItem& item, std::int64_t begin, std::int64_t end) {
  constexpr int kStates = Op::state_count(V);
  typename Op::template Scalars<T> c;
  if constexpr (sizeof(T) == 4) {
    std::memcpy(&c, scalars.f32, sizeof(c));
  } else {
    std::memcpy(&c, scalars.f64, sizeof(c));
  }
  const T grad_scale = static_cast<T>(scalars.grad_scale);
  T* __restrict p = static_cast<T*>(item.param);
  const T* __restrict g = static_cast<const T*>(item.grad);
  T* __restrict s0 = static_cast<T*>(kStates > 0 ? item.states[0] : nullptr);
  T* __restrict s1 = static_cast<T*>(kStates > 1 ? item.states[1] : nullptr);
  T* __restrict s2 = static_cast<T*>(kStates > 2 ? item.states[2] : nullptr);
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    T s[kMaxStates] = {kStates > 0 ? s0[i] : T(0), kStates > 1 ? s1[i] : T(0), kStates > 2 ? s2[i] : T(0)};
    T value = p[i];
    Op::template update<V>(c, value, g[i] * grad_scale, s);
    p[i] = value;
    if constexpr (kStates > 0) s0[i] = s[0];
    if constexpr (kStates > 1) s1[i] = s[1];
    if constexpr (kStates > 2) s2[i] = s[2];
  }
}

template <class Op, int V, class T>
void span_base(const StepScalars& c, const StepItem& item, std::int64_t begin, std::int64_t end) {
  span_body<Op, V, T>(c, item, begin, end);
}
#if THALWEG_HAS_X86_ISA
template <class Op, int V, class T>
THALWEG_TARGET_AVX2 void span_avx2(const StepScalars& c, const StepItem& item, std::int64_t begin, std::int64_t end) {
  span_body<Op, V, T>(c, item, begin, end);
}
template <class Op, int V, class T>
THALWEG_TARGET_AVX512 void span_avx512(const StepScalars& c, const StepItem& item, std::int64_t begin,
                                       std::int64_t end) {
  span_body<Op, V, T>(c, item, begin, end);
}
#endif

constexpr int kMaxVariants = 4;

// What a type-erased call needs to know of one functor.
struct Entry {
  SpanFn span[kNumIsas][2][kMaxVariants] = {};  // [isa][0 float, 1 double][variant]
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

template <class Op, int... V>
void fill_spans(Entry& entry, std::integer_sequence<int, V...>) {
  const auto fill = [&entry](int v, auto base32, auto base64, auto avx2_32, auto avx2_64, auto avx512_32,
                             auto avx512_64) {
    entry.span[0][0][v] = base32, entry.span[0][1][v] = base64;
    entry.span[1][0][v] = avx2_32, entry.span[1][1][v] = avx2_64;
    entry.span[2][0][v] = avx512_32, entry.span[2][1][v] = avx512_64;
  };
#if THALWEG_HAS_X86_ISA
  (fill(V, &span_base<Op, V, float>, &span_base<Op, V, double>, &span_avx2<Op, V, float>, &span_avx2<Op, V, double>,
        &span_avx512<Op, V, float>, &span_avx512<Op, V, double>),
   ...);
#else
  (fill(V, &span_base<Op, V, float>, &span_base<Op, V, double>, nullptr, nullptr, nullptr, nullptr), ...);
#endif
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
        fill_spans<Op>(entry, std::make_integer_sequence<int, Op::kVariants>{});
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

using SpanTable = SpanFn[2][kMaxVariants];

// The hardware prefetchers start anew in every tensor; these hints fetch the head of a later one in the meantime.
// More bytes were slower: 4,096 cost 25 % on 400 tensors of 1,000 elements.
constexpr std::int64_t kPrefetchBytes = 256;  // per stream
constexpr std::size_t kItemsAhead = 1;
constexpr std::int64_t kCacheLine = 64;  // bytes

void prefetch_item(const StepItem& item, int states) {
  const std::int64_t bytes = std::min(item.numel * size_of(item.dtype), kPrefetchBytes);
  for (std::int64_t at = 0; at < bytes; at += kCacheLine) {
    __builtin_prefetch(static_cast<const char*>(item.param) + at, 1);
    __builtin_prefetch(static_cast<const char*>(item.grad) + at, 0);
    for (int i = 0; i < states; ++i) __builtin_prefetch(static_cast<const char*>(item.states[i]) + at, 1);
  }
}

// Elements [begin, end) of all items laid end to end.
void run_share(const SpanTable& spans, int states, const StepItem* items, std::size_t count, const StepScalars* scalars,
               std::int64_t begin, std::int64_t end) {
  const DenormalGuard guard;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const StepItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    if (from < to && i + kItemsAhead < count) prefetch_item(items[i + kItemsAhead], states);
    if (from < to) spans[item.dtype == DType::kFloat64][item.variant](scalars[item.scalars], item, from, to);
    offset += item.numel;
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

void step_cpu(int optimizer, const StepItem* items, std::size_t count, const StepScalars* scalars, int num_threads) {
  const SpanTable& spans = entry_of(optimizer).span[static_cast<int>(active_isa())];
  const int states = static_cast<int>(optimizers()[static_cast<std::size_t>(optimizer)].state_names.size());
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) total += items[i].numel;
  if (num_threads <= 1 || total < kSerialElements) {
    run_share(spans, states, items, count, scalars, 0, total);
    return;
  }
  const std::int64_t shares = std::min<std::int64_t>(num_threads, (total + kShareGrain - 1) / kShareGrain);
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(shares))
  for (std::int64_t share = 0; share < shares; ++share) {
    const auto edge = [&](std::int64_t k) {
      return k == shares ? total : total / shares * k / kShareGrain * kShareGrain;
    };
    run_share(spans, states, items, count, scalars, edge(share), edge(share + 1));
  }
}

}  // namespace thalweg
