// thalweg._core: schedule.
#include "bindings.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_schedule(py::module_& module) { static_cast<void>(module); }

}  // namespace thalweg::bindings
