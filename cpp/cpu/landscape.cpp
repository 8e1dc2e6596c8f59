// CPU side of landscape.hpp: one loop body per element type and instruction set, OpenMP over equal shares of elements.
#include "thalweg/landscape.hpp"

#include <algorithm>
#include <cstdint>

#include "blocks.hpp"
#include "draws.hpp"
#include "isa.hpp"
#include "thalweg/landscape_elements.hpp"

namespace thalweg {
namespace {

// Below this many elements a parallel region costs more than it saves.
constexpr std::int64_t kSerialElements = 64 * 1024;
constexpr std::int64_t kDrawWork = 16;  // an element drawn takes as long as so many that are read

// A stretch of a tensor: where its elements, those of the terms and the coordinates begin.
struct Span {
  void* out;
  const void* weight;
  const void* terms[kMaxDirections];
  double coordinates[kMaxDirections];
  std::int64_t numel;
};
using SpanFn = void (*)(const Span& span);

template <class Type, int K>
THALWEG_HD void span_body(const Span& span) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  Storage* __restrict out = static_cast<Storage*>(span.out);
  const Storage* __restrict w = static_cast<const Storage*>(span.weight);
  const std::int64_t numel = span.numel;
  T c[kMaxDirections];
  for (int k = 0; k < kMaxDirections; ++k) c[k] = static_cast<T>(span.coordinates[k]);
  if constexpr (K == kLerp) {
    const Storage* other = static_cast<const Storage*>(span.terms[0]);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < numel; ++i) out[i] = between<Type>(w[i], other[i], c[0]);
  } else {
    const T* d0 = static_cast<const T*>(span.terms[0]);
    const T* d1 = static_cast<const T*>(span.terms[1]);
    const T* d2 = static_cast<const T*>(span.terms[2]);
    const T* d3 = static_cast<const T*>(span.terms[3]);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < numel; ++i) {
      const T d[kMaxDirections] = {K > 0 ? d0[i] : T(0), K > 1 ? d1[i] : T(0), K > 2 ? d2[i] : T(0),
                                   K > 3 ? d3[i] : T(0)};
      out[i] = moved<Type, K>(w[i], d, c);
    }
  }
}

template <class Type, int K>
void span_base(const Span& span) {
  span_body<Type, K>(span);
}
#if THALWEG_HAS_X86_ISA
template <class Type, int K>
THALWEG_TARGET_AVX2 void span_avx2(const Span& span) {
  span_body<Type, K>(span);
}
template <class Type, int K>
THALWEG_TARGET_AVX512 void span_avx512(const Span& span) {
  span_body<Type, K>(span);
}
#define THALWEG_SPANS(Type, K) {&span_base<Type, K>, &span_avx2<Type, K>, &span_avx512<Type, K>}
#else
#define THALWEG_SPANS(Type, K) {&span_base<Type, K>, nullptr, nullptr}
#endif
#define THALWEG_KINDS(Type)                                                \
  {THALWEG_SPANS(Type, 0), THALWEG_SPANS(Type, 1), THALWEG_SPANS(Type, 2), \
   THALWEG_SPANS(Type, 3), THALWEG_SPANS(Type, 4), THALWEG_SPANS(Type, kLerp)}

// In the order of DType.
constexpr SpanFn kSpans[kNumDTypes][kNumMoveKinds][kNumIsas] = {THALWEG_KINDS(Native64), THALWEG_KINDS(Native32),
                                                                THALWEG_KINDS(Brain16), THALWEG_KINDS(Half16)};

// The elements [begin, end) of a tensor.
void move_stored(const PerturbItem& item, bool lerp, SpanFn move, Span span, std::int64_t begin, std::int64_t end) {
  const std::int64_t size = size_of(item.dtype);
  const std::int64_t term_size = lerp ? size : std::max<std::int64_t>(size, sizeof(float));
  span.out = static_cast<char*>(item.out) + begin * size;
  span.weight = static_cast<const char*>(item.weight) + begin * size;
  for (std::int32_t k = 0; k < item.count; ++k)
    span.terms[k] = static_cast<const char*>(item.terms[k].values) + begin * term_size;
  span.numel = end - begin;
  move(span);
}

// The same with directions that are drawn first, block by block.
template <class T>
void move_drawn(const PerturbItem& item, SpanFn move, Span span, std::int64_t begin, std::int64_t end) {
  alignas(64) T drawn[kMaxDirections][kDrawBlock];
  const std::int64_t size = size_of(item.dtype);
  for (std::int64_t at = begin; at < end; at += span.numel) {
    span.numel = std::min(kDrawBlock, end - at);
    span.out = static_cast<char*>(item.out) + at * size;
    span.weight = static_cast<const char*>(item.weight) + at * size;
    for (std::int32_t k = 0; k < item.count; ++k) {
      draw_block(item.terms[k].draw, item.weight, item.dtype, at, span.numel, drawn[k]);
      span.terms[k] = drawn[k];
    }
    move(span);
  }
}

void move_part(const PerturbItem& item, bool lerp, const double* coordinates, std::int64_t begin, std::int64_t end) {
  const auto dtype = static_cast<int>(item.dtype);
  const SpanFn move = kSpans[dtype][lerp ? kLerp : item.count][static_cast<int>(active_isa())];
  Span span{};
  for (std::int32_t k = 0; k < item.count; ++k) span.coordinates[k] = coordinates[item.terms[k].coordinate];
  if (!is_drawn(item)) return move_stored(item, lerp, move, span, begin, end);
  if (item.dtype == DType::kFloat64) return move_drawn<double>(item, move, span, begin, end);
  move_drawn<float>(item, move, span, begin, end);
}

// The share [begin, end) of all elements.
void run_share(const PerturbItem* items, std::size_t count, bool lerp, const double* coordinates, std::int64_t begin,
               std::int64_t end) {
  const DenormalGuard guard;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < count && offset < end; ++i) {
    const PerturbItem& item = items[i];
    const std::int64_t from = std::max<std::int64_t>(begin - offset, 0);
    const std::int64_t to = std::min(end - offset, item.numel);
    if (from < to) move_part(item, lerp, coordinates, from, to);
    offset += item.numel;
  }
}

void run(const PerturbItem* items, std::size_t count, bool lerp, const double* coordinates, int num_threads) {
  std::int64_t total = 0;
  std::int64_t work = 0;
  for (std::size_t i = 0; i < count; ++i) {
    total += items[i].numel;
    work += items[i].numel * (is_drawn(items[i]) ? kDrawWork * items[i].count : 1);
  }
  if (num_threads <= 1 || work < kSerialElements) return run_share(items, count, lerp, coordinates, 0, total);
  const std::int64_t shares = num_threads;
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
  for (std::int64_t share = 0; share < shares; ++share)
    run_share(items, count, lerp, coordinates, total / shares * share,
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

void perturb_cpu(const PerturbItem* items, std::size_t count, const double* coordinates, int num_threads) {
  run(items, count, false, coordinates, num_threads);
}

void lerp_cpu(const PerturbItem* items, std::size_t count, double t, int num_threads) {
  run(items, count, true, &t, num_threads);
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
