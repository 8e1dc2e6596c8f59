// What a row of class scores says about its target: whether it is among the k largest, its cross-entropy. Host and
// device, the only definition.
#pragma once

#include <cmath>
#include <cstdint>

#include "config.hpp"

namespace thalweg {

// The target's place among the scores of a row, which it sees one by one. Of equal scores the first is the larger.
template <class T>
struct Rank {
  T own;                    // the target's score; any value for a target that is no class
  std::int64_t target;      // class
  bool valid;               // the target is a class and no score is NaN
  std::int64_t before = 0;  // scores that are larger

  THALWEG_HD Rank(const T* score, std::int64_t target_, std::int64_t classes)
      : own(0), target(target_), valid(target_ >= 0 && target_ < classes) {
    if (valid) own = score[target];
  }
  THALWEG_HD void see(T score, std::int64_t c) {
    before += score > own || (score == own && c < target) ? 1 : 0;
    valid = valid && score == score;
  }
  THALWEG_HD bool among(std::int64_t k) const { return valid && before < k; }
};

// log(sum of exp(score)) - score[target] of one row, in float64 in the order of the classes; NaN where the target is no
// class or the largest score is infinite.
template <class T>
THALWEG_HD double row_cross_entropy(const T* score, std::int64_t target, std::int64_t classes) {
  if (target < 0 || target >= classes) return static_cast<double>(NAN);
  double largest = static_cast<double>(score[0]);
  for (std::int64_t c = 1; c < classes; ++c) {
    const double value = static_cast<double>(score[c]);
    largest = value > largest ? value : largest;
  }
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += exp(static_cast<double>(score[c]) - largest);
  return log(sum) - (static_cast<double>(score[target]) - largest);
}

// Number i of the terms of a sum of cross-entropies.
template <class T>
struct CrossEntropyTerm {
  const T* scores;              // [rows, classes]
  const std::int64_t* targets;  // [rows]
  std::int64_t classes;
  THALWEG_HD double operator()(std::int64_t row) const {
    return row_cross_entropy(scores + row * classes, targets[row], classes);
  }
};

}  // namespace thalweg
