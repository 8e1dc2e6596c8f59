// LAMB (You et al. 2019, algorithm 2): Adam's direction, scaled tensor by tensor to the length of the weights. Host and
// device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Lamb : OptimizerDefaults {
  static constexpr const char* kName = "lamb";
  static constexpr std::array<const char*, 2> kStateNames{"exp_avg", "exp_avg_sq"};
  static constexpr std::array<const char*, 8> kHyperNames{
      "beta1", "beta2", "eps", "weight_decay", "bias_correction", "trust_clip", "always_adapt", "maximize"};
  static constexpr bool kTwoPhase = true;

  struct Hyper {
    double beta1, beta2, eps, weight_decay, bias_correction, trust_clip, always_adapt, maximize;
  };

  template <class T>
  struct Scalars {
    T sign, keep1, take1, keep2, take2, scale, eps, weight_decay, lr, adapts, clips;
  };

  static constexpr unsigned states(int) { return 0b11; }

  // Both bias corrections are folded into scale and eps, as in Adam.
  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState&) {
    const bool corrects = h.bias_correction != 0;
    const double root = corrects ? sqrt(thalweg::bias_correction(h.beta2, step)) : 1.0;
    return {h.maximize != 0 ? -1.0 : 1.0,
            h.beta1,
            1.0 - h.beta1,
            h.beta2,
            1.0 - h.beta2,
            corrects ? root / thalweg::bias_correction(h.beta1, step) : 1.0,
            h.eps * root,
            h.weight_decay,
            lr,
            h.weight_decay != 0 || h.always_adapt != 0 ? 1.0 : 0.0,
            h.trust_clip};
  }

  template <class T>
  THALWEG_HD static T direction(const Scalars<T>& c, T p, T g, T* s) {
    g = c.sign * g;
    s[0] = weighted_mean(s[0], g, c.keep1, c.take1);
    s[1] = c.keep2 * s[1] + c.take2 * (g * g);
    return c.scale * s[0] / (square_root(s[1]) + c.eps) + c.weight_decay * p;
  }

  template <int V, class T>
  THALWEG_HD static Measured<T> measure(const Scalars<T>& c, T p, T g, T* s) {
    return {p, direction(c, p, g, s)};
  }

  template <class T>
  THALWEG_HD static void adapt(Scalars<T>& c, const Measured<double>& sums) {
    if (c.adapts == 0) return;
    const double weights = sqrt(sums.first), update = sqrt(sums.second);
    double ratio = weights > 0 && update > 0 ? weights / update : 1.0;
    if (c.clips != 0 && ratio > 1.0) ratio = 1.0;
    c.lr = static_cast<T>(static_cast<double>(c.lr) * ratio);
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    p = p - c.lr * direction(c, p, g, s);
  }
};

}  // namespace thalweg
