// Adamax (Kingma & Ba 2014, algorithm 2), as torch.optim.Adamax: eps is added inside the maximum. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Adamax : OptimizerDefaults {
  static constexpr const char* kName = "adamax";
  static constexpr std::array<const char*, 2> kStateNames{"exp_avg", "exp_inf"};
  static constexpr std::array<const char*, 5> kHyperNames{"beta1", "beta2", "eps", "weight_decay", "maximize"};

  struct Hyper {
    double beta1, beta2, eps, weight_decay, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, keep1, take1, keep2, step_size, eps;
  };

  static constexpr unsigned states(int) { return 0b11; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    return {h.maximize != 0 ? -1.0 : 1.0,        h.weight_decay, h.beta1, 1.0 - h.beta1, h.beta2,
            lr / bias_correction(h.beta1, step), h.eps};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = max_or_nan(c.keep2 * s[1], magnitude(g) + c.eps);
    p = p - c.step_size * s[0] / s[1];
  }
};

}  // namespace thalweg
