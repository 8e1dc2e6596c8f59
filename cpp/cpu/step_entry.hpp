// What a type-erased call needs to know of one functor. Every optimizer's is made in a translation unit of its own
// (optimizer.cpp.in), so that they compile side by side.
#pragma once

#include "step_spans.hpp"

namespace thalweg {

struct Entry {
  SpanTable spans[kNumIsas] = {};
  int (*variant)(const double*) = nullptr;
  void (*prepare)(const double*, double, double, double*, StepScalars*) = nullptr;
  void (*adapt)(StepScalars*, bool, const Measured<double>&) = nullptr;  // null where the optimizer has one phase
};

template <class Op>
void prepare_as(const double* hyper, double lr, double step, double* state, StepScalars* out) {
  const auto wide = scalars_for<Op>(hyper, lr, step, state);
  const auto narrow = rounded_to<Op, float>(wide);
  static_assert(sizeof(wide) <= sizeof(out->f64), "raise kMaxScalars");
  std::memcpy(out->f64, &wide, sizeof(wide));
  std::memcpy(out->f32, &narrow, sizeof(narrow));
}

template <class Op>
void adapt_as(StepScalars* scalars, bool wide, const Measured<double>& sums) {
  if (wide) {
    auto c = constants_of<Op, double>(*scalars);
    Op::adapt(c, sums);
    std::memcpy(scalars->f64, &c, sizeof(c));
  } else {
    auto c = constants_of<Op, float>(*scalars);
    Op::adapt(c, sums);
    std::memcpy(scalars->f32, &c, sizeof(c));
  }
}

template <class Op>
Entry make_entry();  // optimizer.cpp.in instantiates it

}  // namespace thalweg
