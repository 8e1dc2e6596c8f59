// SGD with momentum, dampening, Nesterov's momentum and coupled weight decay, as torch.optim.SGD defines them
// (Sutskever et al. 2013 with the learning rate outside the buffer). Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Sgd : OptimizerDefaults {
  static constexpr const char* kName = "sgd";
  static constexpr std::array<const char*, 1> kStateNames{"momentum_buffer"};
  static constexpr std::array<const char*, 5> kHyperNames{"momentum", "dampening", "weight_decay", "nesterov",
                                                          "maximize"};
  static constexpr bool kCountsSteps = false;
  static constexpr int kVariants = 3;
  enum Variant { kPlain = 0, kMomentum = 1, kNesterov = 2 };

  struct Hyper {
    double momentum, dampening, weight_decay, nesterov, maximize;
  };

  template <class T>
  struct Scalars {
    T lr, sign, weight_decay, keep, take;
  };

  static constexpr int variant(const Hyper& h) {
    return h.momentum == 0 ? kPlain : h.nesterov != 0 ? kNesterov : kMomentum;
  }
  static constexpr unsigned states(int v) { return v == kPlain ? 0 : 1; }

  // step counts from 1; the first value of the buffer is the gradient itself, without dampening.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    return {lr, h.maximize != 0 ? -1.0 : 1.0, h.weight_decay, h.momentum, step == 1 ? 1.0 : 1.0 - h.dampening};
  }

  // Momentum and the step itself, of a gradient that the weights have decayed already.
  template <int V, class T>
  THALWEG_HD static void descend(const Scalars<T>& c, T& p, T g, T* s) {
    if constexpr (V == kPlain) {
      p = p - c.lr * g;
    } else {
      s[0] = c.keep * s[0] + c.take * g;
      p = p - c.lr * (V == kNesterov ? g + c.keep * s[0] : s[0]);
    }
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    descend<V>(c, p, g, s);
  }
};

}  // namespace thalweg
