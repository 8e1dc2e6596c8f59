// NAdam (Dozat 2016, algorithm 2 with the momentum schedule of section 3.2), as torch.optim.NAdam. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct NAdam : OptimizerDefaults {
  static constexpr const char* kName = "nadam";
  static constexpr std::array<const char*, 2> kStateNames{"exp_avg", "exp_avg_sq"};
  static constexpr std::array<const char*, 1> kScalarNames{"mu_product"};
  static constexpr std::array<const char*, 7> kHyperNames{
      "beta1", "beta2", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize"};

  struct Hyper {
    double beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay, maximize;
  };
  struct ScalarState {
    double mu_product;  // of all mu so far
  };

  template <class T>
  struct Scalars {
    T sign, shrink, coupled, keep1, take1, keep2, take2, grad_step, momentum_step, eps;
  };

  static constexpr unsigned states(int) { return 0b11; }

  THALWEG_HD static double momentum_at(const Hyper& h, double step) {
    return h.beta1 * (1.0 - 0.5 * pow(0.96, step * h.momentum_decay));
  }

  // sqrt(1 - beta2^t) is folded into both step sizes and eps, as in Adam.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState& state) {
    const double mu = momentum_at(h, step), next = momentum_at(h, step + 1);
    state.mu_product *= mu;
    const double root = sqrt(bias_correction(h.beta2, step));
    const bool decoupled = h.decoupled_weight_decay != 0;
    return {h.maximize != 0 ? -1.0 : 1.0,
            decoupled ? 1.0 - lr * h.weight_decay : 1.0,
            decoupled ? 0.0 : h.weight_decay,
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            lr * (1.0 - mu) / (1.0 - state.mu_product) * root,
            lr * next / (1.0 - state.mu_product * next) * root,
            h.eps * root};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.coupled != 0) g = g + c.coupled * p;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = c.keep2 * s[1] + c.take2 * (g * g);
    p = p * c.shrink - (c.grad_step * g + c.momentum_step * s[0]) / (square_root(s[1]) + c.eps);
  }
};

}  // namespace thalweg
