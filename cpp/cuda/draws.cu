// Drawn directions on the device: weights moved by them, and whole ones written out. A thread makes four neighbours.
#include "moves.cuh"
#include "runtime.cuh"
#include "thalweg/landscape.hpp"
#include "thalweg/landscape_elements.hpp"
#include "thalweg/storage.hpp"

namespace thalweg {
namespace cuda {
namespace {

constexpr int kQuad = 4;

// Four values beside each other, in accesses of as many bytes as they have.
template <class T>
struct alignas(sizeof(T) * kQuad > 16 ? 16 : sizeof(T) * kQuad) Quad {
  T value[kQuad];
};

// Whether whole Quads can be read and written at places that are multiples of four.
template <class T>
__device__ bool takes_quads(const T* begin) {
  return reinterpret_cast<std::uintptr_t>(begin) % alignof(Quad<T>) == 0;
}

// Up to four elements from `from`, which may be less than aligned.
template <class T>
__device__ Quad<T> read_quad(const T* from, bool whole, int numel) {
  if (whole) return *reinterpret_cast<const Quad<T>*>(from);
  Quad<T> values{};
#pragma unroll
  for (int j = 0; j < kQuad; ++j)
    if (j < numel) values.value[j] = from[j];
  return values;
}

template <class T>
__device__ void write_quad(T* to, const Quad<T>& values, bool whole, int numel) {
  if (whole) {
    *reinterpret_cast<Quad<T>*>(to) = values;
    return;
  }
#pragma unroll
  for (int j = 0; j < kQuad; ++j)
    if (j < numel) to[j] = values.value[j];
}

// The variates of the four elements at places begin ... begin + 3 of the memory; begin is a multiple of four.
__device__ Quad<float> normals_at(const Draw& draw, std::int64_t begin) {
  Quad<float> out;
  Philox4 bits = philox_block(draw.seed, draw.stream, static_cast<std::uint64_t>(begin) >> 2);
  if (!is_straight(draw)) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const auto element = static_cast<std::uint64_t>(element_of(draw, begin + j));
      const Philox4 block = philox_block(draw.seed, draw.stream, element >> 2);
      const int lane = static_cast<int>(element & 3);
      const std::uint32_t low = lane & 1 ? block.word[1] : block.word[0];
      const std::uint32_t high = lane & 1 ? block.word[3] : block.word[2];
      bits.word[j] = lane & 2 ? high : low;
    }
  }
#pragma unroll
  for (int j = 0; j < kQuad; ++j) out.value[j] = normal_of(bits.word[j]);
  return out;
}

// Four elements of a direction; weight_at(j) is the weight at place begin + j.
template <class T, class WeightAt>
__device__ Quad<T> drawn_at(const Draw& draw, std::int64_t begin, int numel, const WeightAt& weight_at) {
  const Quad<float> normals = normals_at(draw, begin);
  Quad<T> out;
  if (draw.factor == DrawFactor::kRow) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const std::int64_t row = j < numel ? element_of(draw, begin + j) / draw.row : 0;
      out.value[j] = scaled<T>(normals.value[j], draw.scales[row]);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
      out.value[j] = scaled<T>(normals.value[j], draw.factor == DrawFactor::kWeight ? weight_at(j) : 1.0);
  }
  return out;
}

template <class Type>
__device__ void move_drawn(const PerturbItem& item, const Place& place, std::int64_t begin, std::int64_t end) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  Storage* out = static_cast<Storage*>(item.out);
  const Storage* weight = static_cast<const Storage*>(item.weight);
  const bool quads = takes_quads(out) && takes_quads(weight);
  for (std::int64_t i = begin + kQuad * static_cast<int>(threadIdx.x); i < end; i += kQuad * kMoveThreads) {
    const int numel = static_cast<int>(end - i < kQuad ? end - i : kQuad);
    const bool whole = quads && numel == kQuad;
    Quad<Storage> stored = read_quad(weight + i, whole, numel);
    const auto weight_at = [&](int j) { return static_cast<double>(Type::load(stored.value[j])); };
    T value[kQuad];
#pragma unroll
    for (int j = 0; j < kQuad; ++j) value[j] = Type::load(stored.value[j]);
#pragma unroll 1
    for (std::int32_t k = 0; k < item.count; ++k) {
      const PerturbTerm& term = item.terms[k];
      const T c = static_cast<T>(coordinate_of(place, term.coordinate));
      const Quad<T> d = drawn_at<T>(term.draw, i, numel, weight_at);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) value[j] = value[j] + c * d.value[j];
    }
#pragma unroll
    for (int j = 0; j < kQuad; ++j) stored.value[j] = Type::store(value[j]);
    write_quad(out + i, stored, whole, numel);
  }
}

__global__ __launch_bounds__(kMoveThreads, 2) void drawn_kernel(MoveTable table, Place place) {
  const MoveChunk chunk = table.chunks[blockIdx.x];
  const PerturbItem& item = table.items[chunk.item];
  const std::int64_t begin = chunk.index * kDrawnChunk;
  const std::int64_t end = item.numel - begin < kDrawnChunk ? item.numel : begin + kDrawnChunk;
  switch (item.dtype) {
    case DType::kFloat64:
      return move_drawn<Native64>(item, place, begin, end);
    case DType::kFloat32:
      return move_drawn<Native32>(item, place, begin, end);
    case DType::kBFloat16:
      return move_drawn<Brain16>(item, place, begin, end);
    default:
      return move_drawn<Half16>(item, place, begin, end);
  }
}

template <class T>
__global__ __launch_bounds__(kMoveThreads) void fill_kernel(T* out, std::int64_t numel, Draw draw, const void* weight,
                                                            DType weight_dtype) {
  const std::int64_t i = kQuad * (static_cast<std::int64_t>(blockIdx.x) * kMoveThreads + threadIdx.x);
  if (i >= numel) return;
  const int here = static_cast<int>(numel - i < kQuad ? numel - i : kQuad);
  const auto weight_at = [&](int j) { return j < here ? load_as<double>(weight_dtype, weight, i + j) : 0.0; };
  write_quad(out + i, drawn_at<T>(draw, i, here, weight_at), takes_quads(out) && here == kQuad, here);
}

}  // namespace

void launch_drawn(const MoveTable& table, std::int64_t chunks, const Place& place, void* stream) {
  launch("the kernel of drawn directions", drawn_kernel, chunks, kMoveThreads, stream, table, place);
}

}  // namespace cuda

void fill_drawn_cuda(int device, void* out, DType dtype, std::int64_t numel, const Draw& draw, const void* weight,
                     DType weight_dtype, void* stream) {
  cuda::require_device(device);
  if (numel == 0) return;
  const cuda::DeviceGuard guard(device);
  const std::int64_t quads = (numel + cuda::kQuad - 1) / cuda::kQuad;
  const std::int64_t blocks = (quads + cuda::kMoveThreads - 1) / cuda::kMoveThreads;
  const auto fill = [&](auto* kernel, auto* to) {
    cuda::launch("the kernel of drawn values", kernel, blocks, cuda::kMoveThreads, stream, to, numel, draw, weight,
                 weight_dtype);
  };
  if (dtype == DType::kFloat64) return fill(cuda::fill_kernel<double>, static_cast<double*>(out));
  fill(cuda::fill_kernel<float>, static_cast<float*>(out));
}

}  // namespace thalweg
