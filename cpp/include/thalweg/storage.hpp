// Storage types: what an element is in memory, what it is computed in, and the way between. Host and device.
#pragma once

#include <cstdint>

#include "config.hpp"
#include "dtype.hpp"

namespace thalweg {

// In the order of DType; bfloat16 and float16 are computed in float32.
struct Native64 {
  using Storage = double;
  using Compute = double;
  static THALWEG_HD double load(double x) { return x; }
  static THALWEG_HD double store(double x) { return x; }
};
struct Native32 {
  using Storage = float;
  using Compute = float;
  static THALWEG_HD float load(float x) { return x; }
  static THALWEG_HD float store(float x) { return x; }
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

// One element of a tensor whose type is known at run time, as a T.
template <class T>
THALWEG_HD T load_as(DType dtype, const void* data, std::int64_t i) {
  switch (dtype) {
    case DType::kFloat64:
      return static_cast<T>(static_cast<const double*>(data)[i]);
    case DType::kFloat32:
      return static_cast<T>(static_cast<const float*>(data)[i]);
    case DType::kBFloat16:
      return static_cast<T>(bfloat16_to_float(static_cast<const std::uint16_t*>(data)[i]));
    default:
      return static_cast<T>(float16_to_float(static_cast<const std::uint16_t*>(data)[i]));
  }
}

// Rounded to nearest even; a double goes to 16 bits through float32.
template <class T>
THALWEG_HD void store_as(DType dtype, void* data, std::int64_t i, T value) {
  switch (dtype) {
    case DType::kFloat64:
      static_cast<double*>(data)[i] = static_cast<double>(value);
      return;
    case DType::kFloat32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(data)[i] = float_to_bfloat16(static_cast<float>(value));
      return;
    default:
      static_cast<std::uint16_t*>(data)[i] = float_to_float16(static_cast<float>(value));
  }
}

}  // namespace thalweg
