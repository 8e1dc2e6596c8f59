// LARS (You et al. 2017, algorithm 1): SGD whose gradient is scaled tensor by tensor, with the learning rate outside
// the buffer as there; trust_clip makes it LARC. Host and device.
#pragma once

#include "sgd.hpp"

namespace thalweg {

struct Lars : OptimizerDefaults {
  static constexpr const char* kName = "lars";
  static constexpr std::array<const char*, 1> kStateNames{"momentum_buffer"};
  static constexpr std::array<const char*, 9> kHyperNames{"momentum",   "dampening",    "weight_decay",
                                                          "nesterov",   "trust_coeff",  "eps",
                                                          "trust_clip", "always_adapt", "maximize"};
  static constexpr bool kCountsSteps = Sgd::kCountsSteps;
  static constexpr bool kTwoPhase = true;
  static constexpr int kVariants = Sgd::kVariants;

  struct Hyper {
    double momentum, dampening, weight_decay, nesterov, trust_coeff, eps, trust_clip, always_adapt, maximize;
  };

  template <class T>
  struct Scalars {
    Sgd::Scalars<T> sgd;
    T trust, trust_coeff, eps, adapts, clips;
  };

  THALWEG_HD static constexpr Sgd::Hyper sgd(const Hyper& h) {
    return {h.momentum, h.dampening, h.weight_decay, h.nesterov, h.maximize};
  }
  static constexpr int variant(const Hyper& h) { return Sgd::variant(sgd(h)); }
  static constexpr unsigned states(int v) { return Sgd::states(v); }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    Sgd::ScalarState none;
    return {Sgd::prepare(sgd(h), lr, step, none),
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
    const double weights = sqrt(sums.first), grads = sqrt(sums.second), lr = static_cast<double>(c.sgd.lr);
    const double decayed = grads + static_cast<double>(c.sgd.weight_decay) * weights + static_cast<double>(c.eps);
    double trust = weights > 0 && grads > 0 ? static_cast<double>(c.trust_coeff) * weights / decayed : 1.0;
    if (c.clips != 0) trust = trust < lr ? trust / lr : 1.0;
    c.trust = static_cast<T>(trust);
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    Sgd::descend<V>(c.sgd, p, c.trust * (c.sgd.sign * g + c.sgd.weight_decay * p), s);
  }
};

}  // namespace thalweg
