// How one element of a model moves: perturbation by up to four directions, points between two models.
// Host and device, the only definition. Knows no tensors.
#pragma once

#include "config.hpp"
#include "storage.hpp"

namespace thalweg {

// How many directions take part, 0 to 4; or the other end of a line.
constexpr int kLerp = 5;
constexpr int kNumMoveKinds = 6;

// ((weight + c[0] d[0]) + c[1] d[1]) + ... with K terms, every operation rounded by itself.
template <class Type, int K>
THALWEG_HD typename Type::Storage moved(typename Type::Storage weight, const typename Type::Compute* d,
                                        const typename Type::Compute* c) {
  if constexpr (K == 0) {
    return weight;
  } else {
    typename Type::Compute value = Type::load(weight) + c[0] * d[0];
    if constexpr (K > 1) value = value + c[1] * d[1];
    if constexpr (K > 2) value = value + c[2] * d[2];
    if constexpr (K > 3) value = value + c[3] * d[3];
    return Type::store(value);
  }
}

// The point t between two weights, exact at both.
template <class Type>
THALWEG_HD typename Type::Storage between(typename Type::Storage weight, typename Type::Storage other,
                                          typename Type::Compute t) {
  using T = typename Type::Compute;
  const T from = Type::load(weight);
  const T to = Type::load(other);
  const T difference = to - from;
  return Type::store(t < T(0.5) ? from + t * difference : to - (T(1) - t) * difference);
}

}  // namespace thalweg
