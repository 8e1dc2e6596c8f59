// thalweg._testing: the core's internals, for the tests alone.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "thalweg/dtype.hpp"
#include "thalweg/philox.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_testing, module) {
  using namespace thalweg;
  module.doc() = "Internals of the core, for the tests.";
  module.def("philox4x32", [](std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    const Philox4 out = philox4x32(Philox4{{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
    return py::make_tuple(out.word[0], out.word[1], out.word[2], out.word[3]);
  });
  module.def("philox_normal", py::vectorize([](std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
               return philox_normal(seed, stream, index);
             }));
  module.def("normal_quantile", py::vectorize([](double u) { return normal_quantile(u); }));
  module.def("portable_log", py::vectorize([](double x) { return portable_log(x); }));
  module.def("bfloat16_to_float", py::vectorize([](std::uint16_t bits) { return bfloat16_to_float(bits); }));
  module.def("float_to_bfloat16", py::vectorize([](float value) { return float_to_bfloat16(value); }));
  module.def("float16_to_float", py::vectorize([](std::uint16_t bits) { return float16_to_float(bits); }));
  module.def("float_to_float16", py::vectorize([](float value) { return float_to_float16(value); }));
}
