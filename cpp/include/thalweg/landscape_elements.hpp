// How one element of a model moves: perturbation by up to two directions, points between two models.
// Host and device, the only definition. Knows no tensors.
#pragma once

#include <cstdint>

#include "config.hpp"
#include "storage.hpp"

namespace thalweg {

// What stands beside the weights: no direction, the first, the second, both; or the other end of a line.
enum MoveKind { kCopy = 0, kFirst = 1, kSecond = 2, kBoth = 3, kLerp = 4, kNumMoveKinds = 5 };

THALWEG_HD constexpr MoveKind move_kind(bool lerp, bool has_first, bool has_second) {
  return lerp ? kLerp : static_cast<MoveKind>((has_first ? 1 : 0) + (has_second ? 2 : 0));
}

// The type of an element of `first`: a direction has the compute type, the other end of a line the storage type.
template <class Type, int K>
struct FirstOf {
  using Value = typename Type::Compute;
};
template <class Type>
struct FirstOf<Type, kLerp> {
  using Value = typename Type::Storage;
};

// (weight + a first) + b second, every operation rounded by itself; with kLerp the point a between weight and first,
// exact at both. What the kind does not use is not read: any value will do.
template <class Type, int K>
THALWEG_HD typename Type::Storage moved(typename Type::Storage weight, typename FirstOf<Type, K>::Value first,
                                        typename Type::Compute second, typename Type::Compute a,
                                        typename Type::Compute b) {
  using T = typename Type::Compute;
  if constexpr (K == kCopy) {
    return weight;
  } else if constexpr (K == kLerp) {
    const T from = Type::load(weight);
    const T to = Type::load(first);
    const T difference = to - from;
    return Type::store(a < T(0.5) ? from + a * difference : to - (T(1) - a) * difference);
  } else {
    T value = Type::load(weight);
    if constexpr (K != kSecond) value = value + a * first;
    if constexpr (K != kFirst) value = value + b * second;
    return Type::store(value);
  }
}

}  // namespace thalweg
