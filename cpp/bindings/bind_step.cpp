// thalweg._core: the registry of optimizers and the TensorTable that steps them.
#include <pybind11/stl.h>

#include "bindings.hpp"
#include "tensor_table.hpp"
#include "thalweg/step.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_step(py::module_& module) {
  module.def(
      "optimizers",
      [] {
        py::dict out;
        for (const OptimizerInfo& info : optimizers()) {
          py::dict entry;
          entry["hyper_names"] = info.hyper_names;
          entry["state_names"] = info.state_names;
          entry["counts_steps"] = info.counts_steps;
          out[py::str(info.name)] = entry;
        }
        return out;
      },
      "The registry: name -> hyper_names, state_names, counts_steps.");
  py::class_<TensorTable>(module, "TensorTable", "Addresses of the tensors that one optimizer owns.")
      .def(py::init<const std::string&, const py::object&>(), py::arg("optimizer"), py::arg("owner"))
      .def("step", &TensorTable::step, py::arg("groups"), py::arg("state"), py::arg("plans"), py::arg("schedule_step"),
           py::arg("num_threads"), py::arg("controlled") = false,
           "One step over all groups: 0 done, 1 skipped by the host, 2 captured into a CUDA graph.")
      .def("capturing", &TensorTable::capturing, "Whether a stream that it steps on is being captured.");
}

}  // namespace thalweg::bindings
