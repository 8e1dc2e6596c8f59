// Eight neighbouring elements of a stream of any 32- or 16-bit type: whole accesses of 16 bytes, conversion apart from
// them, so that the loads of all streams are in flight together. Device only.
#pragma once

#include "runtime.cuh"
#include "thalweg/storage.hpp"

namespace thalweg::cuda {

constexpr int kEight = 8;  // elements

// Their bytes: one word of 16 bytes for 16-bit types, two for float32.
struct RawEight {
  Pack<std::uint32_t> word[2];
};

__device__ inline RawEight load_eight(DType dtype, const void* data, std::int64_t i) {
  const char* at = static_cast<const char*>(data) + i * size_of(dtype);
  RawEight raw;
  raw.word[0] = *reinterpret_cast<const Pack<std::uint32_t>*>(at);
  raw.word[1] = dtype == DType::kFloat32 ? *reinterpret_cast<const Pack<std::uint32_t>*>(at + 16) : raw.word[0];
  return raw;
}

__device__ inline void decode_eight(DType dtype, const RawEight& raw, float* out) {
#pragma unroll
  for (int j = 0; j < kEight; ++j) {
    const std::uint32_t pair = raw.word[0].value[j / 2];
    const auto half = static_cast<std::uint16_t>(j % 2 == 0 ? pair & 0xFFFFu : pair >> 16);
    out[j] = dtype == DType::kFloat32    ? bit_cast<float>(raw.word[j / 4].value[j % 4])
             : dtype == DType::kBFloat16 ? bfloat16_to_float(half)
                                         : float16_to_float(half);
  }
}

__device__ inline void store_words(DType dtype, void* data, std::int64_t i, const RawEight& raw) {
  char* at = static_cast<char*>(data) + i * size_of(dtype);
  *reinterpret_cast<Pack<std::uint32_t>*>(at) = raw.word[0];
  if (dtype == DType::kFloat32) *reinterpret_cast<Pack<std::uint32_t>*>(at + 16) = raw.word[1];
}

// halves: what each element is in a 16-bit type.
__device__ inline RawEight paired(const std::uint16_t* halves) {
  RawEight raw{};
#pragma unroll
  for (int j = 0; j < kEight; j += 2)
    raw.word[0].value[j / 2] =
        static_cast<std::uint32_t>(halves[j]) | (static_cast<std::uint32_t>(halves[j + 1]) << 16);
  return raw;
}

__device__ inline void store_eight(DType dtype, void* data, std::int64_t i, const float* values) {
  RawEight raw{};
  if (dtype == DType::kFloat32) {
#pragma unroll
    for (int j = 0; j < kEight; ++j) raw.word[j / 4].value[j % 4] = bit_cast<std::uint32_t>(values[j]);
  } else {
    std::uint16_t halves[kEight];
#pragma unroll
    for (int j = 0; j < kEight; ++j)
      halves[j] = dtype == DType::kBFloat16 ? float_to_bfloat16(values[j]) : float_to_float16(values[j]);
    raw = paired(halves);
  }
  store_words(dtype, data, i, raw);
}

}  // namespace thalweg::cuda
