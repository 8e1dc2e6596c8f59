// One block's walk over neighbouring elements of several streams: whole packs of 16 bytes where all of them are aligned
// alike, single elements before, after and otherwise. Knows no kernel. Device only.
#pragma once

#include "runtime.cuh"

namespace thalweg::cuda {

// Elements before the first one that stands at a multiple of 16 bytes; as many as there are where none does.
template <class T>
__device__ int head_of(const T* begin, int numel) {
  const int off = static_cast<int>(reinterpret_cast<std::uintptr_t>(begin) / sizeof(T) % Pack<T>::kSize);
  const int head = (Pack<T>::kSize - off) % Pack<T>::kSize;
  return head < numel ? head : numel;
}

template <class T>
__device__ bool is_aligned(const T* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

// Calls many(i) for packs of kSize elements that begin at i = head, head + kSize ... and one(i) for the other elements
// of [0, numel); alike: whether there are packs at all. Neighbours go to neighbouring threads of `threads`.
template <int kSize, class One, class Many>
__device__ void walk(int numel, int head, bool alike, int threads, const One& one, const Many& many) {
  const int t = static_cast<int>(threadIdx.x);
  if (!alike) {
    for (int i = t; i < numel; i += threads) one(i);
    return;
  }
  const int packs = (numel - head) / kSize;
  const int tail = head + packs * kSize;
  if (t < head) one(t);
  if (tail + t < numel) one(tail + t);
  for (int p = t; p < packs; p += threads) many(head + p * kSize);
}

}  // namespace thalweg::cuda
