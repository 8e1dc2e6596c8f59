// From hyper-parameters as arrays of doubles to a functor's Scalars in either compute type. Host and device.
#pragma once

#include <cstring>

#include "common.hpp"

namespace thalweg {

// Op::prepare of hyper-parameters in the order of Op::kHyperNames; state: [Op::kScalarNames.size()], moved on.
template <class Op>
THALWEG_HD typename Op::template Scalars<double> scalars_for(const double* hyper, double lr, double step,
                                                             double* state) {
  typename Op::Hyper values;
  static_assert(sizeof(values) == Op::kHyperNames.size() * sizeof(double), "Hyper and kHyperNames must agree");
  memcpy(&values, hyper, sizeof(values));
  typename Op::ScalarState kept;
  constexpr std::size_t kBytes = Op::kScalarNames.size() * sizeof(double);
  static_assert(kBytes == 0 || kBytes == sizeof(kept), "ScalarState and kScalarNames must agree");
  memcpy(&kept, state, kBytes);
  const typename Op::template Scalars<double> out = Op::prepare(values, lr, step, kept);
  memcpy(state, &kept, kBytes);
  return out;
}

// The same scalars, each rounded to T once.
template <class Op, class T>
THALWEG_HD typename Op::template Scalars<T> rounded_to(const typename Op::template Scalars<double>& wide) {
  constexpr int kCount = static_cast<int>(sizeof(wide) / sizeof(double));
  typename Op::template Scalars<T> out;
  static_assert(sizeof(out) == kCount * sizeof(T), "all members of Scalars are T");
  double values[kCount];
  T rounded[kCount];
  memcpy(values, &wide, sizeof(wide));
  for (int i = 0; i < kCount; ++i) rounded[i] = static_cast<T>(values[i]);
  memcpy(&out, rounded, sizeof(out));
  return out;
}

}  // namespace thalweg
