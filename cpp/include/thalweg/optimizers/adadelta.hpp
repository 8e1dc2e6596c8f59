// Adadelta (Zeiler 2012, algorithm 1) with a learning rate, as torch.optim.Adadelta. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Adadelta : OptimizerDefaults {
  static constexpr const char* kName = "adadelta";
  static constexpr std::array<const char*, 2> kStateNames{"square_avg", "acc_delta"};
  static constexpr std::array<const char*, 4> kHyperNames{"rho", "eps", "weight_decay", "maximize"};

  struct Hyper {
    double rho, eps, weight_decay, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, keep, take, lr, eps;
  };

  static constexpr unsigned states(int) { return 0b11; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double, ScalarState&) {
    return {h.maximize != 0 ? -1.0 : 1.0, h.weight_decay, h.rho, 1.0 - h.rho, lr, h.eps};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    s[0] = c.keep * s[0] + c.take * (g * g);
    const T delta = square_root(s[1] + c.eps) / square_root(s[0] + c.eps) * g;
    s[1] = c.keep * s[1] + c.take * (delta * delta);
    p = p - c.lr * delta;
  }
};

}  // namespace thalweg
