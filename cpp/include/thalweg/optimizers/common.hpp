// What every functor shares. Host and device. No allocation, no exceptions.
//
// A functor `Op` is a struct of static members, the only definition of its optimizer's mathematics; what it does not
// need it inherits from OptimizerDefaults:
//   kName, kStateNames       registry key and torch's names of the state tensors, kStateNames.size() <= kMaxStates
//   kHyperNames, Hyper       hyper-parameters as doubles (flags as 0 or 1), in the same order; "beta2" is the group's
//                            betas[1], and so every name that ends in a digit from 1 on
//   kVariants, variant(h)    how many loop bodies there are, and which one these hyper-parameters need
//   states(v)                bit i: variant v keeps state i
//   kCountsSteps             whether torch keeps a `step` tensor per parameter
//   Scalars<T>               per-step constants; all members are T
//   kScalarNames,            torch's names of what a parameter keeps beside `step` as one number, and these numbers as
//   ScalarState              doubles, in the same order
//   prepare(h, lr, step, ss) once per group and distinct step and ss, in double: schedule value and bias corrections
//   in;
//                            moves ss on
//   update<V>(c, p, g, s)    one element in T = float or double; s is indexed as kStateNames. Only + - * / sqrt fabs
//   and
//                            comparisons, so that every instruction set and the GPU give the same bits
// A two-phase functor (kTwoPhase) scales each tensor's update by norms that a first pass takes:
//   measure<V>(c, p, g, s)   the two numbers of an element whose squares are summed over the tensor; s is a copy
//   adapt(c, sums)           works these two sums of squares into the constants that update() gets
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "../config.hpp"

namespace thalweg {

constexpr int kMaxStates = 4;
constexpr int kMaxScalarStates = 2;  // beside `step`

struct OptimizerDefaults {
  static constexpr std::array<const char*, 0> kStateNames{};
  static constexpr std::array<const char*, 0> kScalarNames{};
  struct ScalarState {};
  static constexpr bool kCountsSteps = true;
  static constexpr bool kTwoPhase = false;
  static constexpr int kVariants = 1;
  template <class Hyper>
  static constexpr int variant(const Hyper&) {
    return 0;
  }
};

// What a two-phase functor measures: of one element, or the sums of their squares over a tensor.
template <class T>
struct Measured {
  T first, second;
};

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

// -1, 0 or 1; 0 for NaN, as torch.sign.
template <class T>
THALWEG_HD T sign_of(T x) {
  return x > 0 ? T(1) : x < 0 ? T(-1) : T(0);
}

// Square root in the type of its argument: an unqualified sqrt may be C's, which computes in double.
THALWEG_HD float square_root(float x) { return sqrtf(x); }
THALWEG_HD double square_root(double x) { return sqrt(x); }

THALWEG_HD float magnitude(float x) { return fabsf(x); }
THALWEG_HD double magnitude(double x) { return fabs(x); }

// 1 - beta^step, the bias of an exponential average that started from zero (Kingma & Ba 2014, section 3).
THALWEG_HD double bias_correction(double beta, double step) { return 1.0 - pow(beta, step); }

}  // namespace thalweg
