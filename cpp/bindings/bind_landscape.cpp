// thalweg._core: landscape and metric kernels over torch tensors. The callers keep the tensors alive and checked.
#include <pybind11/numpy.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "thalweg/landscape.hpp"
#include "thalweg/metrics.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// The tensors of a model and up to two directions, read once and perturbed at every point.
class Perturbation {
 public:
  Perturbation(py::list out, py::list weights, py::list first, py::list second)
      : keep_{std::move(out), std::move(weights), std::move(first), std::move(second)} {
    for (std::size_t i = 0; i < keep_[0].size(); ++i) {
      const TensorView target = dense(keep_[0][i], nullptr);
      PerturbItem item{};
      item.out = target.ref.data;
      item.numel = target.ref.numel;
      item.dtype = target.ref.dtype;
      item.weight = dense(keep_[1][i], &target).ref.data;
      if (!keep_[2][i].is_none()) item.first = dense(keep_[2][i], &target).ref.data;
      if (!keep_[3][i].is_none()) item.second = dense(keep_[3][i], &target).ref.data;
      items_.push_back(item);
    }
  }
  void perturb(double a, double b, int num_threads) const {
    perturb_cpu(items_.data(), items_.size(), a, b, num_threads);
  }
  void lerp(double t, int num_threads) const { lerp_cpu(items_.data(), items_.size(), t, num_threads); }

 private:
  static TensorView dense(const py::handle& tensor, const TensorView* like) {
    const TensorView view = view_of(tensor.ptr());
    const bool fits = like == nullptr || same_layout(view, *like);
    if (!view.supported || view.ref.device >= 0 || !is_dense(view) || !fits)
      throw py::value_error("Perturbation: expected dense host tensors of one layout");
    return view;
  }

  py::list keep_[4];
  std::vector<PerturbItem> items_;
};

// A dense float32 or float64 host tensor, in memory order.
TensorRef floats(const char* who, const py::handle& tensor) {
  const TensorView view = view_of(tensor.ptr());
  const bool wide = view.ref.dtype == DType::kFloat32 || view.ref.dtype == DType::kFloat64;
  if (!view.supported || view.ref.device >= 0 || !is_dense(view) || !wide)
    throw py::value_error(std::string(who) + ": expected a dense float32 or float64 tensor on the CPU");
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

}  // namespace

void bind_landscape(py::module_& module) {
  py::class_<Perturbation>(module, "Perturbation", "A model's tensors with their directions.")
      .def(py::init<py::list, py::list, py::list, py::list>(), py::arg("out"), py::arg("weights"), py::arg("first"),
           py::arg("second"))
      .def("perturb", &Perturbation::perturb, py::arg("a"), py::arg("b"), py::arg("num_threads"),
           py::call_guard<py::gil_scoped_release>(), "out = (weight + a * first) + b * second.")
      .def("lerp", &Perturbation::lerp, py::arg("t"), py::arg("num_threads"), py::call_guard<py::gil_scoped_release>(),
           "out between weight (t = 0) and first (t = 1), exact at both.");
  module.def(
      "fill_normal",
      [](py::handle tensor, std::uint64_t seed, std::uint64_t stream, int num_threads) {
        const TensorView view = view_of(tensor.ptr());
        if (view.ref.dtype != DType::kFloat32 || !is_dense(view)) throw py::value_error("fill_normal: dense float32");
        const py::gil_scoped_release release;
        fill_normal_cpu(static_cast<float*>(view.ref.data), view.ref.numel, seed, stream, num_threads);
      },
      py::arg("tensor"), py::arg("seed"), py::arg("stream"), py::arg("num_threads"),
      "Fill a float32 tensor with the normal variates of (seed, stream).");
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
}

}  // namespace thalweg::bindings
