// Creates thalweg._core and calls the registrars.
#include <pybind11/pybind11.h>

#include "bindings.hpp"
#include "thalweg/error.hpp"
#include "torch_border.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "C++ core of thalweg. Private: use the package's public modules.";
  module.attr("__version__") = THALWEG_VERSION;
  pybind11::register_exception<thalweg::CudaError>(module, "CudaError", PyExc_RuntimeError);
  thalweg::bindings::bind_torch_border(module);
  thalweg::bindings::bind_info(module);
  thalweg::bindings::bind_schedule(module);
  thalweg::bindings::bind_rates(module);
  thalweg::bindings::bind_step(module);
  thalweg::bindings::bind_landscape(module);
}
