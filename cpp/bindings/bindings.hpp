// The registrars that module.cpp calls, one per topic. Bindings convert and release the GIL; no arithmetic here.
#pragma once

#include <pybind11/pybind11.h>

namespace thalweg::bindings {

void bind_info(pybind11::module_& module);
void bind_schedule(pybind11::module_& module);
void bind_rates(pybind11::module_& module);
void bind_step(pybind11::module_& module);
void bind_landscape(pybind11::module_& module);
void bind_convolution(pybind11::module_& module);
void bind_moves(pybind11::module_& module);
void bind_reducer(pybind11::module_& module);

}  // namespace thalweg::bindings
