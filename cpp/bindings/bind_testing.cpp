// thalweg._testing: the core's internals, for the tests alone.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "thalweg/dtype.hpp"
#include "thalweg/philox.hpp"
#include "thalweg/schedule.hpp"
#include "thalweg/step.hpp"

namespace py = pybind11;

namespace {

using namespace thalweg;

// One tensor: addresses of parameter, gradient and states, elements, whether float64.
using Tensor = std::tuple<std::uintptr_t, std::uintptr_t, std::vector<std::uintptr_t>, std::int64_t, bool>;

struct Step {
  int optimizer = 0;
  StepScalars scalars;
  std::vector<StepItem> items;
};

Step step_of(const std::string& name, const std::vector<double>& hyper, double lr, double step, double grad_scale,
             const std::vector<Tensor>& tensors) {
  Step out;
  out.optimizer = optimizer_index(name);
  prepare(out.optimizer, hyper.data(), lr, step, &out.scalars);
  out.scalars.grad_scale = grad_scale;
  for (const auto& [param, grad, states, numel, wide] : tensors) {
    StepItem item{};
    item.param = reinterpret_cast<void*>(param);
    item.grad = reinterpret_cast<const void*>(grad);
    for (std::size_t i = 0; i < states.size(); ++i) item.states[i] = reinterpret_cast<void*>(states[i]);
    item.numel = numel;
    item.variant = static_cast<std::int16_t>(variant_of(out.optimizer, hyper.data()));
    item.dtype = wide ? DType::kFloat64 : DType::kFloat32;
    out.items.push_back(item);
  }
  return out;
}

void bind_steps(py::module_& module) {
  module.def("step_cpu", [](const std::string& name, const std::vector<double>& hyper, double lr, double step,
                            double grad_scale, const std::vector<Tensor>& tensors, int num_threads) {
    const Step s = step_of(name, hyper, lr, step, grad_scale, tensors);
    step_cpu(s.optimizer, s.items.data(), s.items.size(), &s.scalars, num_threads);
  });
  module.def("step_cuda", [](const std::string& name, const std::vector<double>& hyper, double lr, double step,
                             double grad_scale, const std::vector<Tensor>& tensors, int device, std::uintptr_t stream) {
    const Step s = step_of(name, hyper, lr, step, grad_scale, tensors);
    step_cuda(s.optimizer, device, s.items.data(), s.items.size(), &s.scalars, reinterpret_cast<void*>(stream));
  });
  module.def("grad_squares_cpu", [](const std::vector<Tensor>& tensors, int num_threads) {
    const Step s = step_of("sgd", std::vector<double>(kMaxHyper), 0, 1, 1, tensors);
    return grad_squares_cpu(s.items.data(), s.items.size(), num_threads);
  });
  module.def("values_cuda", [](const py::bytes& plan, std::uintptr_t steps, std::int64_t count, std::uintptr_t out,
                               int device, std::uintptr_t stream) {
    const std::string_view bytes = plan;
    std::vector<std::uint64_t> words(bytes.size() / sizeof(std::uint64_t));
    std::memcpy(words.data(), bytes.data(), bytes.size());
    fill_values_cuda(words.data(), static_cast<std::int64_t>(words.size()),
                     reinterpret_cast<const std::int64_t*>(steps), count, reinterpret_cast<double*>(out), device,
                     reinterpret_cast<void*>(stream));
  });
}

}  // namespace

PYBIND11_MODULE(_testing, module) {
  bind_steps(module);
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
