// Adagrad (Duchi et al. 2011, section 1.3, diagonal), as torch.optim.Adagrad. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Adagrad : OptimizerDefaults {
  static constexpr const char* kName = "adagrad";
  static constexpr std::array<const char*, 1> kStateNames{"sum"};
  static constexpr std::array<const char*, 4> kHyperNames{"lr_decay", "weight_decay", "eps", "maximize"};

  struct Hyper {
    double lr_decay, weight_decay, eps, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, step_size, eps;
  };

  static constexpr unsigned states(int) { return 1; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    return {h.maximize != 0 ? -1.0 : 1.0, h.weight_decay, lr / (1.0 + (step - 1.0) * h.lr_decay), h.eps};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    s[0] = s[0] + g * g;
    p = p - c.step_size * g / (square_root(s[0]) + c.eps);
  }
};

}  // namespace thalweg
