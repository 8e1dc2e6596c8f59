// What every functor shares. Host and device. No allocation, no exceptions.
//
// A functor `Op` is a struct of static members, the only definition of its optimizer's mathematics:
//   kName, kStateNames       registry key and torch's names of the state tensors, kStateNames.size() <= kMaxStates
//   kHyperNames, Hyper       hyper-parameters as doubles (flags as 0 or 1), in the same order
//   kVariants, variant(h)    how many loop bodies there are, and which one these hyper-parameters need
//   state_count(v)           how many of the states variant v keeps
//   kCountsSteps             whether torch keeps a `step` tensor per parameter
//   Scalars<T>               per-step constants; all members are T
//   ScalarState              scalars that survive from step to step (empty for most)
//   prepare(h, lr, step, ss) once per group and distinct step, in double: schedule value and bias corrections in
//   update<V>(c, p, g, s)    one element in T = float or double; only + - * / sqrt fabs and comparisons, so that
//                            every instruction set and the GPU give the same bits
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "../config.hpp"

namespace thalweg {

constexpr int kMaxStates = 3;

struct NoScalarState {};

// The larger one; NaN wins, as in torch.maximum.
template <class T>
THALWEG_HD T max_or_nan(T a, T b) {
  return (a < b || b != b) ? b : a;
}

// keep * old + take * value with keep + take = 1, from the nearer end, as torch.lerp: exact when take is 0 or 1.
template <class T>
THALWEG_HD T weighted_mean(T old, T value, T keep, T take) {
  return take < T(0.5) ? old + take * (value - old) : value - keep * (value - old);
}

// Square root in the type of its argument: an unqualified sqrt may be C's, which computes in double.
THALWEG_HD float square_root(float x) { return sqrtf(x); }
THALWEG_HD double square_root(double x) { return sqrt(x); }

// 1 - beta^step, the bias of an exponential average that started from zero (Kingma & Ba 2014, section 3).
THALWEG_HD double bias_correction(double beta, double step) { return 1.0 - pow(beta, step); }

}  // namespace thalweg
