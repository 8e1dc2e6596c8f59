// CUDA side of landscape.hpp: all tensors of a model in one launch, one block per chunk of a tensor.
#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "moves.cuh"
#include "runtime.cuh"
#include "thalweg/landscape.hpp"
#include "thalweg/landscape_elements.hpp"
#include "upload.cuh"
#include "walk.cuh"

namespace thalweg {
namespace cuda {
namespace {

// n values beside each other, read and written in accesses of 16 bytes.
template <class T, int n>
struct alignas(16) Group {
  T value[n];
};

template <class Type, int K>
__device__ void move_chunk(const PerturbItem& item, const Place& place, std::int64_t begin, int numel) {
  using T = typename Type::Compute;
  using Storage = typename Type::Storage;
  using Term = std::conditional_t<K == kLerp, Storage, T>;
  constexpr int kTerms = K == kLerp ? 1 : K;
  constexpr int kRoom = kTerms > 0 ? kTerms : 1;
  constexpr int kSize = Pack<Storage>::kSize;
  Storage* out = static_cast<Storage*>(item.out) + begin;
  const Storage* weight = static_cast<const Storage*>(item.weight) + begin;
  const int head = head_of(out, numel);
  bool alike = is_aligned(weight + head);
  const Term* terms[kRoom];
  T c[kRoom];
#pragma unroll
  for (int k = 0; k < kTerms; ++k) {
    terms[k] = static_cast<const Term*>(item.terms[k].values) + begin;
    c[k] = static_cast<T>(coordinate_of(place, item.terms[k].coordinate));
    alike = alike && is_aligned(terms[k] + head);
  }
  const auto move = [&](Storage w, const Term* d) {
    if constexpr (K == kLerp) {
      return between<Type>(w, d[0], c[0]);
    } else {
      return moved<Type, K>(w, d, c);
    }
  };
  walk<kSize>(
      numel, head, alike, kMoveThreads,
      [&](int i) {
        Term d[kRoom];
#pragma unroll
        for (int k = 0; k < kTerms; ++k) d[k] = terms[k][i];
        out[i] = move(weight[i], d);
      },
      [&](int i) {
        Pack<Storage> w = *reinterpret_cast<const Pack<Storage>*>(weight + i);
        Group<Term, kSize> groups[kRoom];
#pragma unroll
        for (int k = 0; k < kTerms; ++k) groups[k] = *reinterpret_cast<const Group<Term, kSize>*>(terms[k] + i);
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          Term d[kRoom];
#pragma unroll
          for (int k = 0; k < kTerms; ++k) d[k] = groups[k].value[j];
          w.value[j] = move(w.value[j], d);
        }
        *reinterpret_cast<Pack<Storage>*>(out + i) = w;
      });
}

template <class Type>
__device__ void move_kinds(const PerturbItem& item, int kind, const Place& place, std::int64_t begin, int numel) {
  switch (kind) {
    case 0:
      return move_chunk<Type, 0>(item, place, begin, numel);
    case 1:
      return move_chunk<Type, 1>(item, place, begin, numel);
    case 2:
      return move_chunk<Type, 2>(item, place, begin, numel);
    case 3:
      return move_chunk<Type, 3>(item, place, begin, numel);
    case 4:
      return move_chunk<Type, 4>(item, place, begin, numel);
    default:
      return move_chunk<Type, kLerp>(item, place, begin, numel);
  }
}

__global__ __launch_bounds__(kMoveThreads, 4) void move_kernel(MoveTable table, Place place, bool lerp) {
  const MoveChunk chunk = table.chunks[blockIdx.x];
  const PerturbItem& item = table.items[chunk.item];
  const std::int64_t begin = chunk.index * kChunk;
  const int numel = static_cast<int>(item.numel - begin < kChunk ? item.numel - begin : kChunk);
  const int kind = lerp ? kLerp : item.count;
  switch (item.dtype) {
    case DType::kFloat64:
      return move_kinds<Native64>(item, kind, place, begin, numel);
    case DType::kFloat32:
      return move_kinds<Native32>(item, kind, place, begin, numel);
    case DType::kBFloat16:
      return move_kinds<Brain16>(item, kind, place, begin, numel);
    default:
      return move_kinds<Half16>(item, kind, place, begin, numel);
  }
}

}  // namespace
}  // namespace cuda

struct CudaPerturbation::Impl {
  int device = 0;
  std::int64_t stored_chunks = 0;
  std::int64_t drawn_chunks = 0;  // behind the others
  std::size_t item_bytes = 0;     // where the chunks begin
  cuda::DeviceBuffer buffer;

  ~Impl() {
    const cuda::RelaxedCapture relaxed;  // Python may free this one while some other work is being captured
    buffer = cuda::DeviceBuffer();
  }

  void run(const cuda::Place& place, bool lerp, void* stream) const {
    if (stored_chunks + drawn_chunks == 0) return;
    const cuda::DeviceGuard guard(device);
    const auto* items = reinterpret_cast<const PerturbItem*>(buffer.data());
    const auto* chunks = reinterpret_cast<const cuda::MoveChunk*>(buffer.data() + item_bytes);
    if (stored_chunks > 0)
      cuda::launch("the perturbation kernel", cuda::move_kernel, stored_chunks, cuda::kMoveThreads, stream,
                   cuda::MoveTable{items, chunks}, place, lerp);
    if (drawn_chunks > 0)
      cuda::launch_drawn(cuda::MoveTable{items, chunks + stored_chunks}, drawn_chunks, place, stream);
  }
};

CudaPerturbation::CudaPerturbation(int device, const PerturbItem* items, std::size_t count)
    : impl_(std::make_unique<Impl>()) {
  cuda::require_device(device);
  const cuda::DeviceGuard guard(device);
  std::vector<cuda::MoveChunk> chunks[2];  // stored, drawn
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t size = is_drawn(items[i]) ? cuda::kDrawnChunk : cuda::kChunk;
    const std::int64_t pieces = (items[i].numel + size - 1) / size;
    require_internal(pieces <= std::numeric_limits<std::int32_t>::max(), "a tensor of ", items[i].numel, " elements");
    for (std::int64_t k = 0; k < pieces; ++k)
      chunks[is_drawn(items[i]) ? 1 : 0].push_back({static_cast<std::int32_t>(i), static_cast<std::int32_t>(k)});
  }
  impl_->device = device;
  impl_->stored_chunks = static_cast<std::int64_t>(chunks[0].size());
  impl_->drawn_chunks = static_cast<std::int64_t>(chunks[1].size());
  chunks[0].insert(chunks[0].end(), chunks[1].begin(), chunks[1].end());
  if (chunks[0].empty()) return;
  impl_->item_bytes = count * sizeof(PerturbItem);
  const std::size_t chunk_bytes = chunks[0].size() * sizeof(cuda::MoveChunk);
  std::vector<char> image(impl_->item_bytes + chunk_bytes);
  std::memcpy(image.data(), items, impl_->item_bytes);
  std::memcpy(image.data() + impl_->item_bytes, chunks[0].data(), chunk_bytes);
  impl_->buffer.reserve(image.size());
  cuda::copy_now(impl_->buffer.data(), image.data(), image.size());
}

CudaPerturbation::~CudaPerturbation() = default;

void CudaPerturbation::perturb(const double* coordinates, void* stream) const {
  cuda::Place place;
  std::copy(coordinates, coordinates + kMaxDirections, place.at);
  impl_->run(place, false, stream);
}

void CudaPerturbation::lerp(double t, void* stream) const { impl_->run({nullptr, nullptr, 0, {t}}, true, stream); }

void CudaPerturbation::perturb_at(const double* table, std::int64_t width, const std::int64_t* cursor,
                                  void* stream) const {
  impl_->run({table, cursor, width}, false, stream);
}

void CudaPerturbation::lerp_at(const double* table, std::int64_t width, const std::int64_t* cursor,
                               void* stream) const {
  impl_->run({table, cursor, width}, true, stream);
}

}  // namespace thalweg
