// CUDA side of metrics.hpp: reductions into cells on the device. The order of additions is that of sums.hpp.
#include "runtime.cuh"
#include "sums.cuh"
#include "thalweg/metrics.hpp"
#include "thalweg/score_rows.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace cuda {
namespace {

constexpr int kRows = kSumThreads;  // of scores that one block ranks, a row per thread

template <class T>
__global__ __launch_bounds__(kRows) void rank_kernel(const T* scores, const std::int64_t* targets, std::int64_t rows,
                                                     std::int64_t classes, std::int64_t k, double* counts) {
  __shared__ T tile[kRows][kRows + 1];
  __shared__ int hits[kRows];
  const int t = static_cast<int>(threadIdx.x);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int present = static_cast<int>(rows - first < kRows ? rows - first : kRows);
  const std::int64_t own = first + (t < present ? t : 0);
  Rank<T> rank(scores + own * classes, targets[own], classes);
  for (std::int64_t at = 0; at < classes; at += kRows) {
    const int count = static_cast<int>(classes - at < kRows ? classes - at : kRows);
    __syncthreads();
    for (int r = 0; r < present; ++r)
      if (t < count) tile[r][t] = scores[(first + r) * classes + at + t];
    __syncthreads();
    if (t < present)
      for (int j = 0; j < count; ++j) rank.see(tile[t][j], at + j);
  }
  hits[t] = t < present && rank.among(k) ? 1 : 0;
  __syncthreads();
  if (t != 0) return;
  int total = 0;
  for (int r = 0; r < kRows; ++r) total += hits[r];
  counts[blockIdx.x] = total;
}

template <class Type>
__global__ void number_kernel(const typename Type::Storage* value, Cells to) {
  put(to, 0, static_cast<double>(Type::load(*value)));
}

__global__ void constant_kernel(double value, Cells to) { put(to, 0, value); }

__global__ void advance_kernel(std::int64_t* cursor) { ++*cursor; }

}  // namespace
}  // namespace cuda

struct CudaReducer::Impl {
  int device = 0;
  cuda::DeviceBuffer buffer;

  ~Impl() {
    const cuda::RelaxedCapture relaxed;  // Python may free this one while some other work is being captured
    buffer = cuda::DeviceBuffer();
  }

  // Room for `count` sums of blocks.
  template <class Sum>
  Sum* parts(std::int64_t count, void* stream) {
    constexpr std::size_t kLeast = 64 * 1024;  // bytes: most metrics never need more
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Sum);
    if (bytes > buffer.size() || buffer.size() == 0) {
      if (cuda::is_capturing(stream))
        throw CudaError(
            "thalweg: a captured reduction needs more memory than those before it. Run one of its size once before the "
            "capture");
      buffer.reserve(bytes < kLeast ? kLeast : bytes);
    }
    return reinterpret_cast<Sum*>(buffer.data());
  }

  template <class Sum, class Term>
  void add(const Term& term, const cuda::SumShape& shape, const Cells& to, void* stream) {
    if (shape.rows == 0) return;
    const cuda::DeviceGuard guard(device);
    Sum* room = parts<Sum>(shape.rows * shape.per_row(), stream);
    cuda::launch_sum<Sum>(term, shape, room, to, stream);
  }

  template <class T>
  void count(const void* scores, const std::int64_t* targets, std::int64_t rows, std::int64_t classes, std::int64_t k,
             const Cells& to, void* stream) {
    const cuda::DeviceGuard guard(device);
    const std::int64_t blocks = (rows + cuda::kRows - 1) / cuda::kRows;
    double* counts = parts<double>(blocks, stream);
    if (blocks > 0)
      cuda::launch("the ranking kernel", cuda::rank_kernel<T>, blocks, cuda::kRows, stream,
                   static_cast<const T*>(scores), targets, rows, classes, k, counts);
    cuda::launch_fold<double>(counts, 1, blocks, to, stream);
  }
};

CudaReducer::CudaReducer(int device) : impl_(std::make_unique<Impl>()) {
  cuda::require_device(device);
  impl_->device = device;
}

CudaReducer::~CudaReducer() = default;

namespace {

// Calls f(T{}) for the type of `dtype`.
template <class Function>
void with_type(DType dtype, const Function& f) {
  if (dtype == DType::kFloat64) return f(double{});
  f(float{});
}

}  // namespace

void CudaReducer::sum(const void* values, std::int64_t numel, DType dtype, const Cells& to, void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    impl_->add<double>(ValueTerm<T>{static_cast<const T*>(values)}, {1, numel}, to, stream);
  });
}

void CudaReducer::sum_and_squares(const void* values, std::int64_t numel, DType dtype, const Cells& to, void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    impl_->add<Sums>(ValueTerm<T>{static_cast<const T*>(values)}, {1, numel}, to, stream);
  });
}

void CudaReducer::squared_error(const void* values, const void* targets, std::int64_t numel, DType dtype,
                                const Cells& to, void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const SquaredErrorTerm<T> term{static_cast<const T*>(values), static_cast<const T*>(targets)};
    impl_->add<double>(term, {1, numel}, to, stream);
  });
}

void CudaReducer::cross_entropy(const void* scores, const std::int64_t* targets, std::int64_t rows,
                                std::int64_t classes, DType dtype, const Cells& to, void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    impl_->add<double>(CrossEntropyTerm<T>{static_cast<const T*>(scores), targets, classes}, {1, rows}, to, stream);
  });
}

void CudaReducer::count_correct(const void* scores, const std::int64_t* targets, std::int64_t rows,
                                std::int64_t classes, std::int64_t k, DType dtype, const Cells& to, void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    impl_->count<T>(scores, targets, rows, classes, k, to, stream);
  });
}

void CudaReducer::row_squares(const void* values, std::int64_t rows, std::int64_t columns, DType dtype, const Cells& to,
                              void* stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* data = static_cast<const T*>(values);
    impl_->add<double>(ProductTerm<T>{data, data}, {rows, columns}, to, stream);
  });
}

void CudaReducer::dots(const Pair* pairs, std::size_t count, const Cells& to, void* stream) {
  Cells cell = to;
  for (std::size_t i = 0; i < count; ++i, ++cell.column)
    with_type(pairs[i].dtype, [&](auto zero) {
      using T = decltype(zero);
      const ProductTerm<T> term{static_cast<const T*>(pairs[i].first), static_cast<const T*>(pairs[i].second)};
      impl_->add<double>(term, {1, pairs[i].numel}, cell, stream);
    });
}

void accumulate_cuda(int device, const void* value, DType dtype, const Cells& to, void* stream) {
  const cuda::DeviceGuard guard(device);
  const auto run = [&](auto type) {
    using Type = decltype(type);
    cuda::launch("the kernel that adds a number", cuda::number_kernel<Type>, 1, 1, stream,
                 static_cast<const typename Type::Storage*>(value), to);
  };
  switch (dtype) {
    case DType::kFloat64:
      return run(Native64{});
    case DType::kFloat32:
      return run(Native32{});
    case DType::kBFloat16:
      return run(Brain16{});
    default:
      return run(Half16{});
  }
}

void accumulate_cuda(int device, double value, const Cells& to, void* stream) {
  const cuda::DeviceGuard guard(device);
  cuda::launch("the kernel that adds a number", cuda::constant_kernel, 1, 1, stream, value, to);
}

void advance_cuda(int device, std::int64_t* cursor, void* stream) {
  const cuda::DeviceGuard guard(device);
  cuda::launch("the cursor kernel", cuda::advance_kernel, 1, 1, stream, cursor);
}

}  // namespace thalweg
