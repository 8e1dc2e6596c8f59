// thalweg._core: the 3 x 3 convolution of the landscape's programs, over torch tensors.
#include <string>

#include "bindings.hpp"
#include "thalweg/winograd.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

[[noreturn]] void refuse(const char* what) { throw py::value_error(std::string("convolve_3x3: expected ") + what); }

// A float32 tensor on the CPU.
TensorView floats(const py::handle& tensor, const char* what) {
  const TensorView view = view_of(tensor.ptr());
  if (!view.supported || view.ref.device >= 0 || view.ref.dtype != DType::kFloat32) refuse(what);
  return view;
}

// [samples, channels, height, width], channels last in memory.
TensorView image(const py::handle& tensor, const char* what) {
  const TensorView view = floats(tensor, what);
  const auto strides = [&](int dimension, std::int64_t wanted) {
    return view.shape[dimension] == 1 || view.strides[dimension] == wanted;
  };
  if (view.ndim != 4) refuse(what);
  const std::int64_t row = view.shape[1] * view.shape[3];
  if (!strides(1, 1) || !strides(3, view.shape[1]) || !strides(2, row) || !strides(0, row * view.shape[2]))
    refuse(what);
  return view;
}

const float* vector_of(const py::handle& tensor, std::int64_t numel, const char* what) {
  if (tensor.is_none()) return nullptr;
  const TensorView view = floats(tensor, what);
  if (!is_dense(view) || view.ref.numel != numel) refuse(what);
  return static_cast<const float*>(view.ref.data);
}

void convolve(const py::handle& input, const py::handle& weights, const py::handle& bias, const py::handle& added,
              const py::handle& output, bool relu, int num_threads) {
  const TensorView in = image(input, "an input [samples, channels, height, width], float32, channels last");
  const TensorView out = image(output, "an output [samples, channels, height, width], float32, channels last");
  Convolution3x3 work{};
  work.samples = in.shape[0];
  work.inputs = in.shape[1];
  work.height = in.shape[2];
  work.width = in.shape[3];
  work.outputs = out.shape[1];
  if (work.inputs % kWinogradChannels != 0 || work.outputs % kWinogradChannels != 0)
    refuse("channels in multiples of 8");
  if (out.shape[0] != work.samples || out.shape[2] != work.height || out.shape[3] != work.width)
    refuse("an output as large as the input");
  work.input = static_cast<const float*>(in.ref.data);
  work.output = static_cast<float*>(out.ref.data);
  work.weights = vector_of(weights, kWinogradPlaces * work.inputs * work.outputs, "weights [36, inputs, outputs]");
  work.bias = vector_of(bias, work.outputs, "a bias [outputs]");
  work.relu = relu;
  if (!added.is_none()) {
    const TensorView more = image(added, "an addend like the output");
    for (int i = 0; i < 4; ++i)
      if (more.shape[i] != out.shape[i]) refuse("an addend like the output");
    work.added = static_cast<const float*>(more.ref.data);
  }
  const py::gil_scoped_release release;
  convolve_3x3_cpu(work, num_threads);
}

}  // namespace

void bind_convolution(py::module_& module) {
  module.def("convolve_3x3", &convolve, py::arg("input"), py::arg("weights"), py::arg("bias"), py::arg("added"),
             py::arg("output"), py::arg("relu"), py::arg("num_threads"),
             "Convolution with transformed weights [36, inputs, outputs], stride 1, one zero around; channels last.");
}

}  // namespace thalweg::bindings
