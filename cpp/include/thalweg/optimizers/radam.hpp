// RAdam (Liu et al. 2019, algorithm 2), as torch.optim.RAdam: eps is added to sqrt(v) before its bias is corrected, and
// steps are rectified from a variance length of 5 on. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct RAdam : OptimizerDefaults {
  static constexpr const char* kName = "radam";
  static constexpr std::array<const char*, 2> kStateNames{"exp_avg", "exp_avg_sq"};
  static constexpr std::array<const char*, 6> kHyperNames{
      "beta1", "beta2", "eps", "weight_decay", "decoupled_weight_decay", "maximize"};

  struct Hyper {
    double beta1, beta2, eps, weight_decay, decoupled_weight_decay, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, shrink, coupled, keep1, take1, keep2, take2, step_size, eps, rectified;
  };

  static constexpr unsigned states(int) { return 0b11; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    const double correction2 = bias_correction(h.beta2, step);
    const double limit = 2.0 / (1.0 - h.beta2) - 1.0;                             // rho_inf
    const double length = limit - 2.0 * step * pow(h.beta2, step) / correction2;  // rho_t
    const bool rectified = length > 5.0;
    const double rect =
        rectified ? sqrt((length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length)) : 1.0;
    const bool decoupled = h.decoupled_weight_decay != 0;
    return {h.maximize != 0 ? -1.0 : 1.0,
            decoupled ? 1.0 - lr * h.weight_decay : 1.0,
            decoupled ? 0.0 : h.weight_decay,
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            lr / bias_correction(h.beta1, step) * (rectified ? rect * sqrt(correction2) : 1.0),
            h.eps,
            rectified ? 1.0 : 0.0};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.coupled != 0) g = g + c.coupled * p;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = c.keep2 * s[1] + c.take2 * (g * g);
    const T step = c.step_size * s[0];
    p = p * c.shrink - (c.rectified != 0 ? step / (square_root(s[1]) + c.eps) : step);
  }
};

}  // namespace thalweg
