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
          entry["scalar_names"] = info.scalar_names;
          entry["counts_steps"] = info.counts_steps;
          entry["two_phase"] = info.two_phase;
          py::list variants;
          for (const unsigned mask : info.variants) {
            py::list kept;
            for (std::size_t i = 0; i < info.state_names.size(); ++i)
              if ((mask >> i & 1) != 0) kept.append(info.state_names[i]);
            variants.append(kept);
          }
          entry["variants"] = variants;
          out[py::str(info.name)] = entry;
        }
        return out;
      },
      "The registry: name -> hyper_names, state_names, scalar_names, counts_steps, two_phase, variants (state names).");
  py::class_<TensorTable>(module, "TensorTable", "Addresses of the tensors that one optimizer owns.")
      .def(py::init([](const std::string& optimizer, const py::object& owner, bool master_weights,
                       bool stochastic_rounding, bool zero_grad, double ema_decay, std::int32_t state_dtype) {
             const TableOptions options{master_weights, stochastic_rounding, zero_grad, ema_decay, state_dtype};
             return std::make_unique<TensorTable>(optimizer, owner, options);
           }),
           py::arg("optimizer"), py::arg("owner"), py::arg("master_weights") = false,
           py::arg("stochastic_rounding") = false, py::arg("zero_grad") = false, py::arg("ema_decay") = -1.0,
           py::arg("state_dtype") = -1)
      .def("step", &TensorTable::step, py::arg("groups"), py::arg("state"), py::arg("plans"), py::arg("schedule_step"),
           py::arg("num_threads"), py::arg("controlled") = false, py::arg("unscale") = false,
           "One step over all groups: 0 done, 1 skipped by the host, 2 captured into a CUDA graph.")
      .def("capturing", &TensorTable::capturing, "Whether a stream that it steps on is being captured.");
}

}  // namespace thalweg::bindings
