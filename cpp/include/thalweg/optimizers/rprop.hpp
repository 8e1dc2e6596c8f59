// Rprop (Riedmiller & Braun 1993) without weight backtracking: after a change of sign the gradient counts as zero
// (iRprop-, Igel & Huesken 2000, algorithm 4), as torch.optim.Rprop. Host and device.
#pragma once

#include "common.hpp"

namespace thalweg {

struct Rprop : OptimizerDefaults {
  static constexpr const char* kName = "rprop";
  static constexpr std::array<const char*, 2> kStateNames{"prev", "step_size"};
  static constexpr std::array<const char*, 5> kHyperNames{"eta1", "eta2", "step_size1", "step_size2", "maximize"};

  struct Hyper {
    double eta1, eta2, step_size1, step_size2, maximize;  // factors and bounds: the smaller, the larger one
  };

  template <class T>
  struct Scalars {
    T sign, shrink, grow, least, most;
  };

  static constexpr unsigned states(int) { return 0b11; }

  THALWEG_HD static Scalars<double> prepare(const Hyper& h, double, double, ScalarState&) {
    return {h.maximize != 0 ? -1.0 : 1.0, h.eta1, h.eta2, h.step_size1, h.step_size2};
  }

  template <int V, class T>
  THALWEG_HD static void update(const Scalars<T>& c, T& p, T g, T* s) {
    g = c.sign * g;
    const T agreement = g * s[0];
    const T size = s[1] * (agreement > 0 ? c.grow : agreement < 0 ? c.shrink : T(1));
    s[1] = size < c.least ? c.least : size > c.most ? c.most : size;
    s[0] = agreement < 0 ? T(0) : g;
    p = p - sign_of(s[0]) * s[1];
  }
};

}  // namespace thalweg
