// CPU side of landscape.hpp: one loop body per element type and instruction set, OpenMP over equal shares of elements.
#include "thalweg/landscape.hpp"

#include <algorithm>
#include <cstdint>

#include "blocks.hpp"
#include "isa.hpp"
#include "thalweg/landscape_elements.hpp"
#include "thalweg/philox.hpp"

namespace thalweg {
namespace {

// Below this many elements a parallel region costs more than it saves.
constexpr std::int64_t kSerialElements = 64 * 1024;

using SpanFn = void (*)(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end);

template <class Type, int K>
THALWEG_HD void span_body(const PerturbItem& item, double a, double b, std::int64_t begin, std::int64_t end) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  const T scale1 = static_cast<T>(a);
  const T scale2 = static_cast<T>(b);
  Storage* __restrict out = static_cast<Storage*>(item.out);
  const Storage* __restrict w = static_cast<const Storage*>(item.weight);
  using First = typename FirstOf<Type, K>::Value;
  const First* first = static_cast<const First*>(item.first);
  const T* second = static_cast<const T*>(item.second);
#pragma GCC ivdep
  for (std::int64_t i = begin; i < end; ++i) {
    const First u = K == kCopy || K == kSecond ? First(0) : first[i];
    const T v = K == kSecond || K == kBoth ? second[i] : T(0);
    out[i] = moved<Type, K>(w[i], u, v, scale1, scale2);
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
constexpr SpanFn kSpans[kNumDTypes][kNumMoveKinds][kNumIsas] = {THALWEG_KINDS(Native64), THALWEG_KINDS(Native32),
                                                                THALWEG_KINDS(Brain16), THALWEG_KINDS(Half16)};

void run_share(const PerturbItem* items, std::size_t count, bool lerp, double a, double b, std::int64_t begin,
               std::int64_t end) {
  const DenormalGuard guard;
  const int isa = static_cast<int>(active_isa());
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const PerturbItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    const MoveKind kind = move_kind(lerp, item.first != nullptr, item.second != nullptr);
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
void row_squares_as(const void* values, std::int64_t rows, std::int64_t columns, double* out, int num_threads) {
  static_cast<void>(num_threads);  // unused without OpenMP
#pragma omp parallel for schedule(static) num_threads(num_threads) if (rows * columns >= kSerialElements)
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* begin = static_cast<const T*>(values) + row * columns;
    out[row] = ordered_sum<double>(columns, 1, ProductTerm<T>{begin, begin});
  }
}

template <class T>
double dot_as(const void* first, const void* second, std::int64_t numel, int num_threads) {
  return ordered_sum<double>(numel, num_threads,
                             ProductTerm<T>{static_cast<const T*>(first), static_cast<const T*>(second)});
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
  if (dtype == DType::kFloat64) return row_squares_as<double>(values, rows, columns, out, num_threads);
  row_squares_as<float>(values, rows, columns, out, num_threads);
}

double dot_cpu(const void* first, const void* second, std::int64_t numel, DType dtype, int num_threads) {
  return dtype == DType::kFloat64 ? dot_as<double>(first, second, numel, num_threads)
                                  : dot_as<float>(first, second, numel, num_threads);
}

}  // namespace thalweg
