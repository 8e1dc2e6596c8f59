// CPU side of landscape.hpp: one loop body per element type and instruction set, OpenMP over equal shares of elements.
#include "thalweg/landscape.hpp"

#include <algorithm>
#include <cstdint>

#include "blocks.hpp"
#include "isa.hpp"
#include "thalweg/philox.hpp"

namespace thalweg {
namespace {

// Below this many elements a parallel region costs more than it saves.
constexpr std::int64_t kSerialElements = 64 * 1024;

struct Native32 {
  using Storage = float;
  using Compute = float;
  static THALWEG_HD float load(float x) { return x; }
  static THALWEG_HD float store(float x) { return x; }
};
struct Native64 {
  using Storage = double;
  using Compute = double;
  static THALWEG_HD double load(double x) { return x; }
  static THALWEG_HD double store(double x) { return x; }
};
struct Brain16 {
  using Storage = std::uint16_t;
  using Compute = float;
  static THALWEG_HD float load(std::uint16_t x) { return bfloat16_to_float(x); }
  static THALWEG_HD std::uint16_t store(float x) { return float_to_bfloat16(x); }
};
struct Half16 {
  using Storage = std::uint16_t;
  using Compute = float;
  static THALWEG_HD float load(std::uint16_t x) { return float16_to_float(x); }
  static THALWEG_HD std::uint16_t store(float x) { return float_to_float16(x); }
};

enum Kind { kCopy = 0, kFirst = 1, kSecond = 2, kBoth = 3, kLerp = 4, kNumKinds = 5 };

using SpanFn = void (*)(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end);

template <class Type, int K>
THALWEG_HD void span_body(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  const T scale1 = static_cast<T>(a);
  const T scale2 = static_cast<T>(b);
  Storage* __restrict out = static_cast<Storage*>(item.out);
  const Storage* __restrict w = static_cast<const Storage*>(item.weight);
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    if constexpr (K == kCopy) {
      out[i] = w[i];
    } else if constexpr (K == kLerp) {  // the other end has the storage type
      const T from = Type::load(w[i]);
      const T to = Type::load(static_cast<const Storage*>(item.first)[i]);
      const T difference = to - from;
      out[i] = Type::store(scale1 < T(0.5) ? from + scale1 * difference : to - (T(1) - scale1) * difference);
    } else {
      T value = Type::load(w[i]);
      if constexpr (K != kSecond) value = value + scale1 * static_cast<const T*>(item.first)[i];
      if constexpr (K != kFirst) value = value + scale2 * static_cast<const T*>(item.second)[i];
      out[i] = Type::store(value);
    }
  }
}

template <class Type, int K>
void span_base(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end) {
  span_body<Type, K>(item, a, b, begin, end);
}
#if THALWEG_HAS_X86_ISA
template <class Type, int K>
THALWEG_TARGET_AVX2 void span_avx2(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end) {
  span_body<Type, K>(item, a, b, begin, end);
}
template <class Type, int K>
THALWEG_TARGET_AVX512 void span_avx512(const PerturbItem& item, double a, double b, std::int64_t begin,
                                       std::int64_t end) {
  span_body<Type, K>(item, a, b, begin, end);
}
#define THALWEG_SPANS(Type, K) {&span_base<Type, K>, &span_avx2<Type, K>, &span_avx512<Type, K>}
#else
#define THALWEG_SPANS(Type, K) {&span_base<Type, K>, nullptr, nullptr}
#endif
#define THALWEG_KINDS(Type)                                                                                           \
  {THALWEG_SPANS(Type, kCopy), THALWEG_SPANS(Type, kFirst), THALWEG_SPANS(Type, kSecond), THALWEG_SPANS(Type, kBoth), \
   THALWEG_SPANS(Type, kLerp)}

// In the order of DType.
constexpr SpanFn kSpans[kNumDTypes][kNumKinds][kNumIsas] = {THALWEG_KINDS(Native64), THALWEG_KINDS(Native32),
                                                            THALWEG_KINDS(Brain16), THALWEG_KINDS(Half16)};

Kind kind_of(const PerturbItem& item) {
  return static_cast<Kind>((item.first != nullptr ? 1 : 0) + (item.second != nullptr ? 2 : 0));
}

void run_share(const PerturbItem* items, std::size_t count, bool lerp, double a, double b, std::int64_t begin,
               std::int64_t end) {
  const DenormalGuard guard;
  const int isa = static_cast<int>(active_isa());
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const PerturbItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    const Kind kind = lerp ? kLerp : kind_of(item);
    if (from < to) kSpans[static_cast<int>(item.dtype)][kind][isa](item, a, b, from, to);
    offset += item.numel;
  }
}

void run(const PerturbItem* items, std::size_t count, bool lerp, double a, double b, int num_threads) {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < count; ++i) total += items[i].numel;
  if (num_threads <= 1 || total < kSerialElements) return run_share(items, count, lerp, a, b, 0, total);
  const std::int64_t shares = num_threads;
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
  for (std::int64_t share = 0; share < shares; ++share)
    run_share(items, count, lerp, a, b, total / shares * share,
              share + 1 == shares ? total : total / shares * (share + 1));
}

template <class T>
void row_squares_as(const T* values, std::int64_t rows, std::int64_t columns, double* out, int num_threads) {
  static_cast<void>(num_threads);  // unused without OpenMP
#pragma omp parallel for schedule(static) num_threads(num_threads) if (rows * columns >= kSerialElements)
  for (std::int64_t row = 0; row < rows; ++row)
    out[row] = ordered_sum<double>(columns, 1, [value = values + row * columns](std::int64_t i) {
      return static_cast<double>(value[i]) * static_cast<double>(value[i]);
    });
}

template <class T>
double dot_as(const T* first, const T* second, std::int64_t numel, int num_threads) {
  return ordered_sum<double>(numel, num_threads, [=](std::int64_t i) {
    return static_cast<double>(first[i]) * static_cast<double>(second[i]);
  });
}

}  // namespace

void perturb_cpu(const PerturbItem* items, std::size_t count, double a, double b, int num_threads) {
  run(items, count, false, a, b, num_threads);
}

void lerp_cpu(const PerturbItem* items, std::size_t count, double t, int num_threads) {
  run(items, count, true, t, 0.0, num_threads);
}

void fill_normal_cpu(float* out, std::int64_t numel, std::uint64_t seed, std::uint64_t stream, int num_threads) {
  static_cast<void>(num_threads);  // unused without OpenMP
  const std::int64_t blocks = (numel + 3) / 4;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (numel > 4096)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const Philox4 bits = philox_block(seed, stream, static_cast<std::uint64_t>(b));
    const std::int64_t end = std::min<std::int64_t>(4, numel - 4 * b);
    for (std::int64_t lane = 0; lane < end; ++lane) out[4 * b + lane] = normal_of(bits.word[lane]);
  }
}

void row_squares_cpu(const void* values, std::int64_t rows, std::int64_t columns, DType dtype, double* out,
                     int num_threads) {
  if (dtype == DType::kFloat64)
    return row_squares_as(static_cast<const double*>(values), rows, columns, out, num_threads);
  row_squares_as(static_cast<const float*>(values), rows, columns, out, num_threads);
}

double dot_cpu(const void* first, const void* second, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64
             ? dot_as(static_cast<const double*>(first), static_cast<const double*>(second), numel, num_threads)
             : dot_as(static_cast<const float*>(first), static_cast<const float*>(second), numel, num_threads);
}

}  // namespace thalweg
