// LARS (You et al. 2017, algorithm 1) with the learning rate outside the buffer, as in torch's SGD; trust_clip makes it
// LARC. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Lars : OptimizerDefaults {
  static constexpr const char* kName = "lars";
  static constexpr std::array<const char*, 1> kStateNames{"momentum_buffer"};
  static constexpr std::array<const char*, 9> kHyperNames{"momentum",   "dampening",    "weight_decay",
                                                          "nesterov",   "trust_coeff",  "eps",
                                                          "trust_clip", "always_adapt", "maximize"};
  static constexpr bool kCountsSteps = false;
  static constexpr bool kTwoPhase = true;
  static constexpr int kVariants = 3;
  enum Variant { kPlain = 0, kMomentum = 1, kNesterov = 2 };

  struct Hyper {
    double momentum, dampening, weight_decay, nesterov, trust_coeff, eps, trust_clip, always_adapt, maximize;
  };

  template <class T>
  struct Scalars {
    T lr, sign, weight_decay, keep, take, trust, trust_coeff, eps, adapts, clips;
  };

  static constexpr int variant(const Hyper& h) {
    return h.momentum == 0 ? kPlain : h.nesterov != 0 ? kNesterov : kMomentum;
  }
  static constexpr unsigned states(int v) { return v == kPlain ? 0 : 1; }

  // step counts from 1; the first value of the buffer is the gradient itself, without dampening.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    return {lr,
            h.maximize != 0 ? -1.0 : 1.0,
            h.weight_decay,
            h.momentum,
            step == 1 ? 1.0 : 1.0 - h.dampening,
            1.0,
            h.trust_coeff,
            h.eps,
            h.weight_decay != 0 || h.always_adapt != 0 ? 1.0 : 0.0,
            h.trust_clip};
  }

  template <int V, class T>
  THALWEG_HD static Measured<T> measure(const Scalars<T>&, T p, T g, T*) {
    return {p, g};
  }

  template <class T>
  THALWEG_HD static void adapt(Scalars<T>& c, const Measured<double>& sums) {
    if (c.adapts == 0) return;
    const double weights = sqrt(sums.first), grads = sqrt(sums.second), lr = static_cast<double>(c.lr);
    const double decayed = grads + static_cast<double>(c.weight_decay) * weights + static_cast<double>(c.eps);
    double trust = weights > 0 && grads > 0 ? static_cast<double>(c.trust_coeff) * weights / decayed : 1.0;
    if (c.clips != 0) trust = trust < lr ? trust / lr : 1.0;
    c.trust = static_cast<T>(trust);
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.trust * (c.sign * g + c.weight_decay * p);
    if constexpr (V == kPlain) {
      p = p - c.lr * g;
    } else {
      s[0] = c.keep * s[0] + c.take * g;
      p = p - c.lr * (V == kNesterov ? g + c.keep * s[0] : s[0]);
    }
  }
};

}  // namespace thalweg
