// Lion (Chen et al. 2023, program 1). Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Lion : OptimizerDefaults {
  static constexpr const char* kName = "lion";
  static constexpr std::array<const char*, 1> kStateNames{"exp_avg"};
  static constexpr std::array<const char*, 4> kHyperNames{"beta1", "beta2", "weight_decay", "maximize"};
  static constexpr bool kCountsSteps = false;

  struct Hyper {
    double beta1, beta2, weight_decay, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, shrink, keep1, take1, keep2, take2, lr;
  };

  static constexpr unsigned states(int) { return 1; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double, ScalarState&) {
    return {
        h.maximize != 0 ? -1.0 : 1.0, 1.0 - lr * h.weight_decay, h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2, lr};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    p = p * c.shrink - c.lr * sign_of(c.keep1 * s[0] + c.take1 * g);
    s[0] = weighted_mean(s[0], g, c.keep2, c.take2);
  }
};

}  // namespace thalweg
