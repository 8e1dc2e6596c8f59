// RMSprop (Hinton 2012, lecture 6e), centered as in Graves 2013 (equations 38 to 45), with momentum, as
// torch.optim.RMSprop. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct RMSprop : OptimizerDefaults {
  static constexpr const char* kName = "rmsprop";
  static constexpr std::array<const char*, 3> kStateNames{"square_avg", "momentum_buffer", "grad_avg"};
  static constexpr std::array<const char*, 6> kHyperNames{"alpha",    "eps",      "weight_decay",
                                                          "momentum", "centered", "maximize"};
  static constexpr int kVariants = 4;
  enum Variant { kMomentum = 1, kCentered = 2 };  // bits

  struct Hyper {
    double alpha, eps, weight_decay, momentum, centered, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, keep, take, momentum, lr, eps;
  };

  static constexpr int variant(const Hyper& h) {
    return (h.momentum > 0 ? kMomentum : 0) | (h.centered != 0 ? kCentered : 0);
  }
  static constexpr unsigned states(int v) {
    return 1u | ((v & kMomentum) != 0 ? 2u : 0u) | ((v & kCentered) != 0 ? 4u : 0u);
  }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double, ScalarState&) {
    return {h.maximize != 0 ? -1.0 : 1.0, h.weight_decay, h.alpha, 1.0 - h.alpha, h.momentum, lr, h.eps};
  }

  // A variance that rounding has made negative counts as zero; torch's root of it is NaN.
  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    s[0] = c.keep * s[0] + c.take * (g * g);
    T variance = s[0];
    if constexpr ((V & kCentered) != 0) {
      s[2] = weighted_mean(s[2], g, c.keep, c.take);
      variance = variance - s[2] * s[2];
      variance = variance < 0 ? T(0) : variance;
    }
    T step = g / (square_root(variance) + c.eps);
    if constexpr ((V & kMomentum) != 0) step = s[1] = c.momentum * s[1] + step;
    p = p - c.lr * step;
  }
};

}  // namespace thalweg
