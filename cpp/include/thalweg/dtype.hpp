// Storage types and their conversion to and from float. Host and device. No allocation, no exceptions.
#pragma once

#include <cstdint>
#include <cstring>

#include "config.hpp"

namespace thalweg {

enum class DType : std::int32_t { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

constexpr int kNumDTypes = 4;

// bytes per element
THALWEG_HD constexpr int size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

constexpr const char* name_of(DType dtype) {
  return dtype == DType::kFloat64    ? "float64"
         : dtype == DType::kFloat32  ? "float32"
         : dtype == DType::kBFloat16 ? "bfloat16"
                                     : "float16";
}

template <class To, class From>
THALWEG_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// bfloat16 is the upper half of a float32.
THALWEG_HD float bfloat16_to_float(std::uint16_t bits) {
  return bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Round to nearest, ties to even; NaN stays NaN and becomes quiet.
THALWEG_HD std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return static_cast<std::uint16_t>(is_nan ? quiet : rounded);
}

// IEEE binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
THALWEG_HD float float16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1Fu;
  const std::uint32_t fraction = bits & 0x3FFu;
  // A subnormal is fraction * 2^-24, which float32 holds exactly.
  const std::uint32_t subnormal =
      bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(fraction)) * 5.9604644775390625e-8f);
  const std::uint32_t normal = ((exponent + 112u) << 23) | (fraction << 13);
  const std::uint32_t special = 0x7F800000u | (fraction << 13) | (fraction != 0 ? 0x400000u : 0u);
  return bit_cast<float>(sign | (exponent == 0 ? subnormal : exponent == 31 ? special : normal));
}

// Round to nearest, ties to even, through subnormals to infinity; NaN stays NaN and becomes quiet.
THALWEG_HD std::uint16_t float_to_float16(float value) {
  const std::uint32_t bits = bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  std::uint32_t half = 0;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
  } else if (magnitude >= 0x477FF000u) {  // 65520 and above round to infinity
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 aligns the fraction to 2^-24 and rounds it
    half = bit_cast<std::uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

}  // namespace thalweg
