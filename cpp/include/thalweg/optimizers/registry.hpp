// The one list of optimizers. Drivers, bindings, tests, benchmarks and the README table iterate over it.
#pragma once

#include <utility>

#include "adam.hpp"
#include "sgd.hpp"

namespace thalweg {

template <class... Ops>
struct TypeList {
  static constexpr int size = sizeof...(Ops);
};

using OptimizerList = TypeList<Sgd, Adam, AdamW>;

// Calls visit(Op{}, index) for every optimizer in the list.
template <class Visit, class... Ops>
void for_each_optimizer(Visit&& visit, TypeList<Ops...>) {
  int index = 0;
  (visit(Ops{}, index++), ...);
}

}  // namespace thalweg
