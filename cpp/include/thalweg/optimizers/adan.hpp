// Adan (Xie et al. 2022, algorithm 1), with the proximal or the multiplicative weight decay. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Adan : OptimizerDefaults {
  static constexpr const char* kName = "adan";
  static constexpr std::array<const char*, 4> kStateNames{"exp_avg", "exp_avg_sq", "exp_avg_diff", "neg_pre_grad"};
  static constexpr std::array<const char*, 7> kHyperNames{"beta1",        "beta2",   "beta3",   "eps",
                                                          "weight_decay", "no_prox", "maximize"};

  struct Hyper {
    double beta1, beta2, beta3, eps, weight_decay, no_prox, maximize;  // beta as in the authors' code: 1 - the paper's
  };

  template <class T>
  struct Scalars {
    T sign, first, before, after, keep1, take1, keep2, take2, keep3, take3, avg_step, diff_step, eps;
  };

  static constexpr unsigned states(int) { return 0b1111; }

  // sqrt(1 - beta3^t) is folded into both step sizes and eps, as in Adam.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    const double root = sqrt(bias_correction(h.beta3, step));
    return {h.maximize != 0 ? -1.0 : 1.0,
            step == 1 ? 1.0 : 0.0,
            h.no_prox != 0 ? 1.0 - lr * h.weight_decay : 1.0,
            h.no_prox != 0 ? 1.0 : 1.0 / (1.0 + lr * h.weight_decay),
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            h.beta3,
            1.0 - h.beta3,
            lr / bias_correction(h.beta1, step) * root,
            lr * h.beta2 / bias_correction(h.beta2, step) * root,
            h.eps * root};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    const T diff = c.first != 0 ? T(0) : g + s[3];
    const T ahead = g + c.keep2 * diff;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = c.keep3 * s[1] + c.take3 * (ahead * ahead);
    s[2] = weighted_mean(s[2], diff, c.keep2, c.take2);
    s[3] = -g;
    p = (p * c.before - (c.avg_step * s[0] + c.diff_step * s[2]) / (square_root(s[1]) + c.eps)) * c.after;
  }
};

}  // namespace thalweg
