// CUDA side of landscape.hpp: all tensors of a model in one launch, one block per chunk of a tensor; normal variates.
#include <limits>
#include <vector>

#include "runtime.cuh"
#include "thalweg/landscape.hpp"
#include "thalweg/landscape_elements.hpp"
#include "thalweg/philox.hpp"
#include "upload.cuh"
#include "walk.cuh"

namespace thalweg {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kChunk = 8192;  // elements that one block moves

struct MoveChunk {
  std::int32_t item;
  std::int32_t index;  // within the item: its elements begin at index * kChunk
};

struct MoveTable {
  const PerturbItem* items;
  const MoveChunk* chunks;  // [grid]
};

// Where the coordinates come from: row *cursor of table [points, width], or a and b where there is none.
struct Place {
  const double* table = nullptr;
  const std::int64_t* cursor = nullptr;
  std::int64_t width = 0;
  double a = 0;
  double b = 0;
};

// n values beside each other, read and written in accesses of 16 bytes.
template <class T, int n>
struct alignas(16) Group {
  T value[n];
};

template <class Type, int K>
__device__ void move_chunk(const PerturbItem& item, double a, double b, std::int64_t begin, int numel) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  using First = typename FirstOf<Type, K>::Value;
  constexpr bool kReadsFirst = K != kCopy && K != kSecond;
  constexpr bool kReadsSecond = K == kSecond || K == kBoth;
  constexpr int kSize = Pack<Storage>::kSize;
  const T scale1 = static_cast<T>(a);
  const T scale2 = static_cast<T>(b);
  Storage* out = static_cast<Storage*>(item.out) + begin;
  const Storage* weight = static_cast<const Storage*>(item.weight) + begin;
  const First* first = kReadsFirst ? static_cast<const First*>(item.first) + begin : nullptr;
  const T* second = kReadsSecond ? static_cast<const T*>(item.second) + begin : nullptr;
  const int head = head_of(out, numel);
  const bool alike = is_aligned(weight + head) && (!kReadsFirst || is_aligned(first + head)) &&
                     (!kReadsSecond || is_aligned(second + head));
  walk<kSize>(
      numel, head, alike, kThreads,
      [&](int i) {
        out[i] = moved<Type, K>(weight[i], kReadsFirst ? first[i] : First(0), kReadsSecond ? second[i] : T(0), scale1,
                                scale2);
      },
      [&](int i) {
        Pack<Storage> w = *reinterpret_cast<const Pack<Storage>*>(weight + i);
        Group<First, kSize> u{};
        Group<T, kSize> v{};
        if constexpr (kReadsFirst) u = *reinterpret_cast<const Group<First, kSize>*>(first + i);
        if constexpr (kReadsSecond) v = *reinterpret_cast<const Group<T, kSize>*>(second + i);
#pragma unroll
        for (int j = 0; j < kSize; ++j) w.value[j] = moved<Type, K>(w.value[j], u.value[j], v.value[j], scale1, scale2);
        *reinterpret_cast<Pack<Storage>*>(out + i) = w;
      });
}

template <class Type>
__device__ void move_kinds(const PerturbItem& item, MoveKind kind, double a, double b, std::int64_t begin, int numel) {
  switch (kind) {
    case kCopy:
      return move_chunk<Type, kCopy>(item, a, b, begin, numel);
    case kFirst:
      return move_chunk<Type, kFirst>(item, a, b, begin, numel);
    case kSecond:
      return move_chunk<Type, kSecond>(item, a, b, begin, numel);
    case kBoth:
      return move_chunk<Type, kBoth>(item, a, b, begin, numel);
    default:
      return move_chunk<Type, kLerp>(item, a, b, begin, numel);
  }
}

__global__ __launch_bounds__(kThreads, 4) void move_kernel(MoveTable table, Place place, bool lerp) {
  const MoveChunk chunk = table.chunks[blockIdx.x];
  const PerturbItem item = table.items[chunk.item];
  double a = place.a;
  double b = place.b;
  if (place.table != nullptr) {
    const double* row = place.table + *place.cursor * place.width;
    a = row[0];
    b = place.width > 1 ? row[1] : 0.0;
  }
  const std::int64_t begin = chunk.index * kChunk;
  const int numel = static_cast<int>(item.numel - begin < kChunk ? item.numel - begin : kChunk);
  const MoveKind kind = move_kind(lerp, item.first != nullptr, item.second != nullptr);
  switch (item.dtype) {
    case DType::kFloat64:
      return move_kinds<Native64>(item, kind, a, b, begin, numel);
    case DType::kFloat32:
      return move_kinds<Native32>(item, kind, a, b, begin, numel);
    case DType::kBFloat16:
      return move_kinds<Brain16>(item, kind, a, b, begin, numel);
    default:
      return move_kinds<Half16>(item, kind, a, b, begin, numel);
  }
}

// A thread makes the four variates of one Philox block.
__global__ __launch_bounds__(kThreads) void normal_kernel(float* out, std::int64_t numel, std::uint64_t seed,
                                                          std::uint64_t stream) {
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (block * 4 >= numel) return;
  const Philox4 bits = philox_block(seed, stream, static_cast<std::uint64_t>(block));
  Pack<float> values;
  for (int j = 0; j < 4; ++j) values.value[j] = normal_of(bits.word[j]);
  float* to = out + block * 4;
  if (is_aligned(to) && block * 4 + 4 <= numel) {
    *reinterpret_cast<Pack<float>*>(to) = values;
  } else {
    for (int j = 0; j < 4 && block * 4 + j < numel; ++j) to[j] = values.value[j];
  }
}

}  // namespace
}  // namespace cuda

struct CudaPerturbation::Impl {
  int device = 0;
  std::int64_t chunk_count = 0;
  std::size_t item_bytes = 0;  // where the chunks begin
  cuda::DeviceBuffer buffer;

  ~Impl() {
    const cuda::RelaxedCapture relaxed;  // Python may free this one while some other work is being captured
    buffer = cuda::DeviceBuffer();
  }

  void run(const cuda::Place& place, bool lerp, void* stream) const {
    if (chunk_count == 0) return;
    const cuda::DeviceGuard guard(device);
    const cuda::MoveTable table{reinterpret_cast<const PerturbItem*>(buffer.data()),
                                reinterpret_cast<const cuda::MoveChunk*>(buffer.data() + item_bytes)};
    cuda::launch("the perturbation kernel", cuda::move_kernel, chunk_count, cuda::kThreads, stream, table, place, lerp);
  }
};

CudaPerturbation::CudaPerturbation(int device, const PerturbItem* items, std::size_t count)
    : impl_(std::make_unique<Impl>()) {
  cuda::require_device(device);
  const cuda::DeviceGuard guard(device);
  std::vector<cuda::MoveChunk> chunks;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t pieces = (items[i].numel + cuda::kChunk - 1) / cuda::kChunk;
    require_internal(pieces <= std::numeric_limits<std::int32_t>::max(), "a tensor of ", items[i].numel, " elements");
    for (std::int64_t k = 0; k < pieces; ++k)
      chunks.push_back({static_cast<std::int32_t>(i), static_cast<std::int32_t>(k)});
  }
  impl_->device = device;
  impl_->chunk_count = static_cast<std::int64_t>(chunks.size());
  if (chunks.empty()) return;
  impl_->item_bytes = count * sizeof(PerturbItem);
  const std::size_t chunk_bytes = chunks.size() * sizeof(cuda::MoveChunk);
  std::vector<char> image(impl_->item_bytes + chunk_bytes);
  std::memcpy(image.data(), items, impl_->item_bytes);
  std::memcpy(image.data() + impl_->item_bytes, chunks.data(), chunk_bytes);
  impl_->buffer.reserve(image.size());
  cuda::copy_now(impl_->buffer.data(), image.data(), image.size());
}

CudaPerturbation::~CudaPerturbation() = default;

void CudaPerturbation::perturb(double a, double b, void* stream) const {
  impl_->run({nullptr, nullptr, 0, a, b}, false, stream);
}

void CudaPerturbation::lerp(double t, void* stream) const { impl_->run({nullptr, nullptr, 0, t, 0.0}, true, stream); }

void CudaPerturbation::perturb_at(const double* table, std::int64_t width, const std::int64_t* cursor,
                                  void* stream) const {
  impl_->run({table, cursor, width, 0.0, 0.0}, false, stream);
}

void CudaPerturbation::lerp_at(const double* table, std::int64_t width, const std::int64_t* cursor,
                               void* stream) const {
  impl_->run({table, cursor, width, 0.0, 0.0}, true, stream);
}

void fill_normal_cuda(int device, float* out, std::int64_t numel, std::uint64_t seed, std::uint64_t stream_number,
                      void* stream) {
  cuda::require_device(device);
  if (numel == 0) return;
  const cuda::DeviceGuard guard(device);
  const std::int64_t blocks = ((numel + 3) / 4 + cuda::kThreads - 1) / cuda::kThreads;
  cuda::launch("the normal kernel", cuda::normal_kernel, blocks, cuda::kThreads, stream, out, numel, seed,
               stream_number);
}

}  // namespace thalweg
