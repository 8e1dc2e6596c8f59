// Schedule-free SGD and AdamW (Defazio et al. 2024, algorithm 1 and section 4.5) in the form that keeps y in the
// parameter and z as its state: x, the average, is (y - (1 - beta) z) / beta. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

template <bool kAdaptive>
struct ScheduleFree : OptimizerDefaults {
  static constexpr const char* kName = kAdaptive ? "adamw_schedule_free" : "sgd_schedule_free";
  static constexpr auto kStateNames = [] {
    if constexpr (kAdaptive) {
      return std::array<const char*, 2>{"z", "exp_avg_sq"};
    } else {
      return std::array<const char*, 1>{"z"};
    }
  }();
  static constexpr std::array<const char*, 2> kScalarNames{"weight_sum", "lr_max"};
  static constexpr auto kHyperNames = [] {
    if constexpr (kAdaptive) {
      return std::array<const char*, 8>{"beta1",           "weight_decay", "warmup_steps", "r",
                                        "weight_lr_power", "beta2",        "eps",          "maximize"};
    } else {
      return std::array<const char*, 6>{"momentum", "weight_decay", "warmup_steps", "r", "weight_lr_power", "maximize"};
    }
  }();

  struct AdaptiveHyper {
    double beta, weight_decay, warmup_steps, r, weight_lr_power, beta2, eps, maximize;
  };
  struct PlainHyper {
    double beta, weight_decay, warmup_steps, r, weight_lr_power, maximize;
  };
  using Hyper = std::conditional_t<kAdaptive, AdaptiveHyper, PlainHyper>;
  struct ScalarState {
    double weight_sum, lr_max;  // of the average's weights so far; the largest learning rate so far
  };

  template <class T>
  struct Scalars {
    T sign, weight_decay, keep2, take2, root, eps, keep, take, y_step, z_step;
  };

  static constexpr unsigned states(int) { return kAdaptive ? 0b11 : 0b01; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double lr, double step, ScalarState& state) {
    if (step < h.warmup_steps) lr = lr * (step / h.warmup_steps);
    state.lr_max = lr > state.lr_max ? lr : state.lr_max;
    const double weight = pow(step, h.r) * pow(state.lr_max, h.weight_lr_power);
    state.weight_sum += weight;
    const double take = state.weight_sum != 0 ? weight / state.weight_sum : 0.0;
    Scalars<double> out{h.maximize != 0 ? -1.0 : 1.0,
                        h.weight_decay,
                        0,
                        0,
                        1,
                        0,
                        1.0 - take,
                        take,
                        lr * (1.0 - h.beta * (1.0 - take)),
                        lr};
    if constexpr (kAdaptive) {
      out.keep2 = h.beta2;
      out.take2 = 1.0 - h.beta2;
      out.root = sqrt(bias_correction(h.beta2, step));
      out.eps = h.eps * out.root;
    }
    return out;
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    if constexpr (kAdaptive) {
      s[1] = c.keep2 * s[1] + c.take2 * (g * g);
      g = c.root * g / (square_root(s[1]) + c.eps);
    }
    if (c.weight_decay != 0) g = g + c.weight_decay * p;
    p = weighted_mean(p, s[0], c.keep, c.take) - c.y_step * g;
    s[0] = s[0] - c.z_step * g;
  }
};

using SgdScheduleFree = ScheduleFree<false>;
using AdamWScheduleFree = ScheduleFree<true>;

}  // namespace thalweg
