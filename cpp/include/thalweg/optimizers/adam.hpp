// Adam (Kingma & Ba 2014, algorithm 1), AdamW (Loshchilov & Hutter 2017, algorithm 2) and their AMSGrad variants
// (Reddi et al. 2018). Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

template <bool kDecoupled>
struct AdamFamily : OptimizerDefaults {
  static constexpr const char* kName = kDecoupled ? "adamw" : "adam";
  static constexpr std::array<const char*, 3> kStateNames{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  static constexpr std::array<const char*, 6> kHyperNames{"beta1",        "beta2",   "eps",
                                                          "weight_decay", "amsgrad", "maximize"};
  static constexpr int kVariants = 2;
  enum Variant { kPlain = 0, kAmsgrad = 1 };

  struct Hyper {
    double beta1, beta2, eps, weight_decay, amsgrad, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, decay, keep1, take1, keep2, take2, step_size, eps;
  };

  static constexpr int variant(const Hyper& h) { return h.amsgrad != 0 ? kAmsgrad : kPlain; }
  static constexpr unsigned states(int v) { return v == kAmsgrad ? 0b111 : 0b011; }

  // The two bias corrections are folded into step size and eps, the form that the end of section 2 of the Adam paper
  // gives: lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps) = step_size m / (sqrt(v) + eps sqrt(1-b2^t)); it saves a
  // division per element. decay is 1 - lr*weight_decay when decoupled, otherwise the coupled coefficient.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    const double root = sqrt(bias_correction(h.beta2, step));
    return {h.maximize != 0 ? -1.0 : 1.0,
            kDecoupled ? 1.0 - lr * h.weight_decay : h.weight_decay,
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            lr / bias_correction(h.beta1, step) * root,
            h.eps * root};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if constexpr (kDecoupled) {
      p = p * c.decay;
    } else if (c.decay != 0) {
      g = g + c.decay * p;
    }
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = c.keep2 * s[1] + c.take2 * (g * g);
    T second = s[1];
    if constexpr (V == kAmsgrad) second = s[2] = max_or_nan(s[2], s[1]);
    p = p - c.step_size * s[0] / (square_root(second) + c.eps);
  }
};

using Adam = AdamFamily<false>;
using AdamW = AdamFamily<true>;

}  // namespace thalweg
