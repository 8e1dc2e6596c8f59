// thalweg._core: what this build and machine have.
#include <pybind11/stl.h>

#include "bindings.hpp"
#include "thalweg/info.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

void bind_info(py::module_& module) {
  module.def("isa_compiled", &isa_compiled, "Instruction sets with a loop body in this build.");
  module.def("isa_supported", &isa_supported, "Those of them that this CPU can run.");
  module.def("isa_active", &isa_active, "The instruction set in use.");
  module.def("isa_force", &isa_force, py::arg("name"), "Use this instruction set from now on.");
  module.def("openmp_compiled", &openmp_compiled, "Whether the CPU drivers use OpenMP.");
  module.def(
      "cuda_info",
      [] {
        const CudaInfo info = cuda_info();
        py::dict out;
        out["compiled"] = info.compiled;
        out["runtime_version"] = info.runtime_version;
        out["driver_version"] = info.driver_version;
        out["device_count"] = info.device_count;
        out["detail"] = info.detail;
        return out;
      },
      "CUDA side of this build and devices of this machine.");
}

}  // namespace thalweg::bindings
