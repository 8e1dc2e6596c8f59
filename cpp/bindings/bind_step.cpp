// thalweg._core: step.
#include "bindings.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_step(py::module_& module) { static_cast<void>(module); }

}  // namespace thalweg::bindings
