// The one list of optimizers. Drivers, bindings, tests, benchmarks and the README table iterate over it; the build
// makes one translation unit per entry, which is why the list stands in one statement.
#pragma once

#include <tuple>
#include <utility>

#include "adadelta.hpp"
#include "adagrad.hpp"
#include "adam.hpp"
#include "adamax.hpp"
#include "adan.hpp"
#include "ademamix.hpp"
#include "asgd.hpp"
#include "lamb.hpp"
#include "lars.hpp"
#include "lion.hpp"
#include "nadam.hpp"
#include "radam.hpp"
#include "rmsprop.hpp"
#include "rprop.hpp"
#include "schedule_free.hpp"
#include "sgd.hpp"

namespace thalweg {

template <class... Ops>
struct TypeList {
  static constexpr int size = sizeof...(Ops);
  template <int I>
  using At = std::tuple_element_t<I, std::tuple<Ops...>>;
};

using OptimizerList = TypeList<Sgd, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, Adadelta, RMSprop, Rprop, Asgd, Lion,
                               Adan, AdEMAMix, SgdScheduleFree, AdamWScheduleFree, Lamb, Lars>;

// Calls visit(Op{}, index) for every optimizer in the list.
template <class Visit, class... Ops>
void for_each_optimizer(Visit&& visit, TypeList<Ops...>) {
  int index = 0;
  (visit(Ops{}, index++), ...);
}

}  // namespace thalweg
