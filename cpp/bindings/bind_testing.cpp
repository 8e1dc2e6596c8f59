// thalweg._testing: the core's internals, for the tests alone.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "thalweg/dtype.hpp"
#include "thalweg/philox.hpp"
#include "thalweg/schedule.hpp"
#include "thalweg/step.hpp"
#include "thalweg/step_elements.hpp"

namespace py = pybind11;

namespace {

using namespace thalweg;

struct Step {
  int optimizer = 0;
  StepScalars scalars;
  StepVerdict verdict;
  std::vector<StepItem> items;
};

void* address(const py::dict& from, const char* key) {
  return from.contains(key) ? reinterpret_cast<void*>(from[key].cast<std::uintptr_t>()) : nullptr;
}

DType dtype_in(const py::dict& from, const char* key, DType otherwise) {
  if (!from.contains(key)) return otherwise;
  for (int i = 0; i < kNumDTypes; ++i)
    if (from[key].cast<std::string>() == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  throw py::value_error("no such dtype");
}

// tensor: numel and the members of StepItem that are not as by default, addresses as integers, types by name.
StepItem item_of(const py::dict& tensor) {
  StepItem item;
  item.param = address(tensor, "param");
  item.grad = address(tensor, "grad");
  item.master = address(tensor, "master");
  item.ema = address(tensor, "ema");
  item.numel = tensor["numel"].cast<std::int64_t>();
  if (tensor.contains("states")) {
    const auto states = tensor["states"].cast<std::vector<std::uintptr_t>>();
    for (std::size_t i = 0; i < states.size(); ++i) item.states[i] = reinterpret_cast<void*>(states[i]);
  }
  item.dtype = dtype_in(tensor, "dtype", DType::kFloat32);
  item.grad_dtype = dtype_in(tensor, "grad_dtype", item.dtype);
  item.state_dtype = dtype_in(tensor, "state_dtype", item.dtype);
  item.ema_dtype = dtype_in(tensor, "ema_dtype", item.dtype);
  if (tensor.contains("zero_grad")) item.grad_write = GradWrite::kZero;
  if (tensor.contains("unscale_grad")) item.grad_write = GradWrite::kUnscale;
  item.stochastic = tensor.contains("stochastic");
  item.place = tensor.contains("place") ? tensor["place"].cast<std::uint32_t>() : 0;
  return item;
}

// options: lr, step, and the members of StepVerdict and the average's decay that are not as by default.
Step step_of(const std::string& name, const std::vector<double>& hyper, const py::dict& options,
             const std::vector<py::dict>& tensors) {
  const auto number = [&options](const char* key, double otherwise) {
    return options.contains(key) ? options[key].cast<double>() : otherwise;
  };
  Step out;
  out.optimizer = optimizer_index(name);
  const double step = number("step", 1);
  std::vector<double> state(kMaxScalarStates);
  if (options.contains("scalar_states")) {
    const auto given = options["scalar_states"].cast<std::vector<double>>();
    std::copy(given.begin(), given.end(), state.begin());
  }
  prepare(out.optimizer, hyper.data(), number("lr", 0), step, state.data(), &out.scalars);
  const AverageWeights average = average_weights(number("ema_decay", 0), step == 1);
  out.scalars.ema_keep = average.keep;
  out.scalars.ema_take = average.take;
  out.verdict.grad_scale = number("grad_scale", 1);
  out.verdict.unscale = number("unscale", 1);
  out.verdict.grad_limit = number("grad_limit", INFINITY);
  out.verdict.seed = static_cast<std::uint64_t>(number("seed", 0));
  out.verdict.step = static_cast<std::int64_t>(step) - 1;
  for (const py::dict& tensor : tensors) {
    out.items.push_back(item_of(tensor));
    out.items.back().variant = static_cast<std::int16_t>(variant_of(out.optimizer, hyper.data()));
  }
  return out;
}

void bind_steps(py::module_& module) {
  module.def("step_cpu", [](const std::string& name, const std::vector<double>& hyper, const py::dict& options,
                            const std::vector<py::dict>& tensors, int num_threads) {
    Step s = step_of(name, hyper, options, tensors);
    if (optimizers()[static_cast<std::size_t>(s.optimizer)].two_phase) {
      std::vector<Measured<double>> sums(s.items.size());
      std::vector<StepScalars> own(s.items.size());
      measure_cpu(s.optimizer, s.items.data(), s.items.size(), &s.scalars, s.verdict, num_threads, sums.data());
      adapt(s.optimizer, s.items.data(), s.items.size(), &s.scalars, sums.data(), own.data());
      return step_cpu(s.optimizer, s.items.data(), s.items.size(), own.data(), s.verdict, num_threads);
    }
    step_cpu(s.optimizer, s.items.data(), s.items.size(), &s.scalars, s.verdict, num_threads);
  });
  module.def("step_cuda", [](const std::string& name, const std::vector<double>& hyper, const py::dict& options,
                             const std::vector<py::dict>& tensors, int device, std::uintptr_t stream) {
    const Step s = step_of(name, hyper, options, tensors);
    step_cuda(s.optimizer, device, s.items.data(), s.items.size(), &s.scalars, s.verdict,
              reinterpret_cast<void*>(stream));
  });
  module.def("grad_squares_cpu", [](const std::vector<py::dict>& tensors, int num_threads) {
    std::vector<StepItem> items;
    for (const py::dict& tensor : tensors) items.push_back(item_of(tensor));
    return grad_squares_cpu(items.data(), items.size(), num_threads);
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
