// thalweg._core: landscape.
#include "bindings.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_landscape(py::module_& module) { static_cast<void>(module); }

}  // namespace thalweg::bindings
