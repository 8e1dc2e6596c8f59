// thalweg._core: schedule plans.
#include <pybind11/numpy.h>

#include <cstring>

#include "bindings.hpp"
#include "plan.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_schedule(py::module_& module) {
  module.attr("PLAN_MAGIC") = kPlanMagic;
  py::class_<Plan>(module, "Plan", "A schedule as the core and its kernels read it.")
      .def(py::init([](const py::bytes& bytes) {
             const std::string_view view = bytes;
             Plan plan;
             plan.words.resize(view.size() / sizeof(std::uint64_t));
             if (view.size() % sizeof(std::uint64_t) != 0) throw py::value_error("plan: not a whole number of words");
             if (!view.empty()) std::memcpy(plan.words.data(), view.data(), view.size());
             validate_plan(plan.words.data(), static_cast<std::int64_t>(plan.words.size()));
             return plan;
           }),
           py::arg("words"))
      .def("value_at", &Plan::value_at, py::arg("step"), "The value that update step + 1 uses; step >= 0.")
      .def(
          "values",
          [](const Plan& plan, std::int64_t begin, std::int64_t count) {
            py::array_t<double> out(count);
            double* data = out.mutable_data();
            {
              const py::gil_scoped_release release;
              fill_values(plan.words.data(), begin, count, data);
            }
            return out;
          },
          py::arg("begin"), py::arg("count"), "value_at for count steps from begin on: float64 [count].")
      .def(
          "cycle_at",
          [](const Plan& plan, std::int64_t step) {
            const Cycle cycle = cycle_at(plan.words.data(), step);
            return py::make_tuple(cycle.index, cycle.position, cycle.length);
          },
          py::arg("step"), "(index, position, length) of the cycle at step; index -1 where there is none.")
      .def(
          "to_bytes",
          [](const Plan& plan) {
            return py::bytes(reinterpret_cast<const char*>(plan.words.data()),
                             plan.words.size() * sizeof(std::uint64_t));
          },
          "The words, for another process or a device.");
}

}  // namespace thalweg::bindings
