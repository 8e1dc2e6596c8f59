// thalweg._core: metric kernels over torch tensors, lengths and angles. The callers keep the tensors alive and checked.
#include <pybind11/numpy.h>

#include <string>
#include <utility>

#include "bindings.hpp"
#include "thalweg/error.hpp"
#include "thalweg/landscape.hpp"
#include "thalweg/metrics.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// A dense float32 or float64 host tensor, in memory order.
TensorRef floats(const char* who, const py::handle& tensor) {
  const TensorView view = view_of(tensor.ptr());
  const bool wide = view.ref.dtype == DType::kFloat32 || view.ref.dtype == DType::kFloat64;
  if (!view.supported || view.ref.device >= 0 || !is_dense(view) || !wide)
    throw py::value_error(std::string(who) +
                          ": expected a dense float32 or float64 tensor on the CPU; on a device use "
                          "a Reducer");
  return view.ref;
}

std::pair<TensorRef, TensorRef> pair_of(const char* who, const py::handle& first, const py::handle& second) {
  const TensorRef a = floats(who, first);
  const TensorRef b = floats(who, second);
  if (a.numel != b.numel || a.dtype != b.dtype)
    throw py::value_error(std::string(who) + ": expected two tensors of one size and type");
  return {a, b};
}

py::array_t<double> row_squares(const py::handle& values, std::int64_t rows, int num_threads) {
  const TensorRef ref = floats("row_squares", values);
  if (rows <= 0 || ref.numel % rows != 0) throw py::value_error("row_squares: expected rows of equal length");
  py::array_t<double> out(rows);
  double* data = out.mutable_data();
  {
    const py::gil_scoped_release release;
    row_squares_cpu(ref.data, rows, ref.numel / rows, ref.dtype, data, num_threads);
  }
  return out;
}

std::int64_t count_correct(const py::handle& scores, std::uintptr_t targets, int num_threads, std::int64_t k) {
  const TensorRef ref = floats("count_correct", scores);
  const TensorView view = view_of(scores.ptr());
  const py::gil_scoped_release release;
  return count_correct_cpu(ref.data, reinterpret_cast<const std::int64_t*>(targets), view.shape[0], view.shape[1], k,
                           ref.dtype, num_threads);
}

double cross_entropy(const py::handle& scores, std::uintptr_t targets, int num_threads) {
  const TensorRef ref = floats("cross_entropy", scores);
  const TensorView view = view_of(scores.ptr());
  const py::gil_scoped_release release;
  return cross_entropy_cpu(ref.data, reinterpret_cast<const std::int64_t*>(targets), view.shape[0], view.shape[1],
                           ref.dtype, num_threads);
}

}  // namespace

void bind_landscape(py::module_& module) {
  module.def(
      "sums",
      [](py::handle values, int num_threads) {
        const TensorRef ref = floats("sums", values);
        Sums sums;
        {
          const py::gil_scoped_release release;
          sums = sum_cpu(ref.data, ref.numel, ref.dtype, num_threads);
        }
        return py::make_tuple(sums.sum, sums.sum_of_squares);
      },
      py::arg("values"), py::arg("num_threads"), "(sum, sum of squares) in float64 of a contiguous float tensor.");
  module.def(
      "dot",
      [](py::handle first, py::handle second, int num_threads) {
        const auto [a, b] = pair_of("dot", first, second);
        const py::gil_scoped_release release;
        return dot_cpu(a.data, b.data, a.numel, a.dtype, num_threads);
      },
      py::arg("first"), py::arg("second"), py::arg("num_threads"), "Inner product in float64.");
  module.def("row_squares", &row_squares, py::arg("values"), py::arg("rows"), py::arg("num_threads"),
             "[rows] sums of squares in float64 of equal slices along the first dimension of a contiguous tensor.");
  module.def("count_correct", &count_correct, py::arg("scores"), py::arg("targets_address"), py::arg("num_threads"),
             py::arg("k") = 1, "Rows of contiguous scores [rows, classes] with the int64 target among the k largest.");
  module.def(
      "squared_error",
      [](py::handle values, py::handle targets, int num_threads) {
        const auto [a, b] = pair_of("squared_error", values, targets);
        const py::gil_scoped_release release;
        return squared_error_cpu(a.data, b.data, a.numel, a.dtype, num_threads);
      },
      py::arg("values"), py::arg("targets"), py::arg("num_threads"), "Sum of squared differences in float64.");
  module.def("cross_entropy", &cross_entropy, py::arg("scores"), py::arg("targets_address"), py::arg("num_threads"),
             "Sum over the rows of contiguous scores [rows, classes] of their cross-entropy in float64.");
  bind_convolution(module);
  bind_moves(module);
  bind_reducer(module);
}

}  // namespace thalweg::bindings
