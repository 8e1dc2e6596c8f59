// Averaged SGD (Polyak & Juditsky 1992) with the step size of Bottou's SGD, as torch.optim.ASGD: a step uses the eta
// and mu that the one before it left. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Asgd : OptimizerDefaults {
  static constexpr const char* kName = "asgd";
  static constexpr std::array<const char*, 1> kStateNames{"ax"};
  static constexpr std::array<const char*, 2> kScalarNames{"eta", "mu"};
  static constexpr std::array<const char*, 5> kHyperNames{"lambd", "alpha", "t0", "weight_decay", "maximize"};

  struct Hyper {
    double lambd, alpha, t0, weight_decay, maximize;
  };
  struct ScalarState {
    double eta, mu;  // step size, and the share of the newest value in the average
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, shrink, eta, keep, take;
  };

  static constexpr unsigned states(int) { return 1; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState& state) {
    const ScalarState now = state;
    state.eta = lr / pow(1.0 + h.lambd * lr * step, h.alpha);
    state.mu = step - h.t0 > 1.0 ? 1.0 / (step - h.t0) : 1.0;
    return {h.maximize != 0 ? -1.0 : 1.0, h.weight_decay, 1.0 - h.lambd * now.eta, now.eta, 1.0 - now.mu, now.mu};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    p = p * c.shrink - c.eta * g;
    s[0] = c.keep == 0 ? p : weighted_mean(s[0], p, c.keep, c.take);  // 0 times infinity is not 0
  }
};

}  // namespace thalweg
