// A dense tensor as the core sees it: an address, a size, a type. A view, it owns nothing.
#pragma once

#include <cstdint>

#include "dtype.hpp"

namespace thalweg {

struct TensorRef {
  void* data = nullptr;    // first element
  std::int64_t numel = 0;  // elements, in memory order
  DType dtype = DType::kFloat32;
  std::int32_t device = -1;  // -1 host, otherwise the CUDA ordinal
};

}  // namespace thalweg
