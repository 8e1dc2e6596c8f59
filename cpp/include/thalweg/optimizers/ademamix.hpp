// AdEMAMix (Pagliardini et al. 2024, algorithm 1 with the warm-ups of section 3). Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct AdEMAMix : OptimizerDefaults {
  static constexpr const char* kName = "ademamix";
  static constexpr std::array<const char*, 3> kStateNames{"exp_avg_fast", "exp_avg_slow", "exp_avg_sq"};
  static constexpr std::array<const char*, 9> kHyperNames{
      "beta1", "beta2", "beta3", "alpha", "alpha_warmup", "beta3_warmup", "eps", "weight_decay", "maximize"};

  struct Hyper {
    double beta1, beta2, beta3, alpha, alpha_warmup, beta3_warmup, eps, weight_decay, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, shrink, keep1, take1, keep2, take2, keep3, take3, fast_step, slow_step, eps;
  };

  static constexpr unsigned states(int) { return 0b111; }

  // Of an average, in steps; linear in it is how beta3 grows.
  THALWEG_HD static double half_life(double beta) { return log(0.5) / log(beta + 1e-8) - 1.0; }

  THALWEG_HD static double slow_beta(const Hyper& h, double step) {
    if (step >= h.beta3_warmup) return h.beta3;
    const double part = step / h.beta3_warmup;
    return pow(0.5, 1.0 / ((1.0 - part) * half_life(h.beta1) + part * half_life(h.beta3) + 1.0));
  }

  // sqrt(1 - beta2^t) is folded into both step sizes and eps, as in Adam.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    const double alpha = step < h.alpha_warmup ? h.alpha * (step / h.alpha_warmup) : h.alpha;
    const double beta3 = slow_beta(h, step);
    const double root = sqrt(bias_correction(h.beta2, step));
    return {h.maximize != 0 ? -1.0 : 1.0,
            1.0 - lr * h.weight_decay,
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            beta3,
            1.0 - beta3,
            lr / bias_correction(h.beta1, step) * root,
            lr * alpha * root,
            h.eps * root};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = weighted_mean(s[1], g, c.keep3, c.take3);
    s[2] = c.keep2 * s[2] + c.take2 * (g * g);
    p = p * c.shrink - (c.fast_step * s[0] + c.slow_step * s[1]) / (square_root(s[2]) + c.eps);
  }
};

}  // namespace thalweg
