// Sums in float64 in one order, the same on CPU and CUDA: index order within blocks of kSumBlock terms, then the
// blocks' sums in index order. Here are the terms and what a sum keeps; the drivers do the adding. Host and device.
#pragma once

#include <cstdint>

#include "config.hpp"

namespace thalweg {

constexpr std::int64_t kSumBlock = 1024;  // terms

struct Sums {
  double sum = 0.0;
  double sum_of_squares = 0.0;
  THALWEG_HD Sums& operator+=(double value) {
    sum += value;
    sum_of_squares += value * value;
    return *this;
  }
  THALWEG_HD Sums& operator+=(const Sums& other) {
    sum += other.sum;
    sum_of_squares += other.sum_of_squares;
    return *this;
  }
};

// ---- terms: operator()(i) is number i of what is added ----

template <class T>
struct ValueTerm {
  const T* values;
  THALWEG_HD double operator()(std::int64_t i) const { return static_cast<double>(values[i]); }
};

template <class T>
struct ProductTerm {
  const T* first;
  const T* second;
  THALWEG_HD double operator()(std::int64_t i) const {
    return static_cast<double>(first[i]) * static_cast<double>(second[i]);
  }
};

template <class T>
struct SquaredErrorTerm {
  const T* values;
  const T* targets;
  THALWEG_HD double operator()(std::int64_t i) const {
    const double difference = static_cast<double>(values[i]) - static_cast<double>(targets[i]);
    return difference * difference;
  }
};

}  // namespace thalweg
