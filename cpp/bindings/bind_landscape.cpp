// thalweg._core: landscape and metric kernels over torch tensors. The callers keep the tensors alive and checked.
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
      [](py::handle tensor, int num_threads) {
        const TensorView view = view_of(tensor.ptr());
        const Sums sums = sum_cpu(view.ref.data, view.ref.numel, view.ref.dtype, num_threads);
        return py::make_tuple(sums.sum, sums.sum_of_squares);
      },
      py::arg("values"), py::arg("num_threads"), "(sum, sum of squares) in float64 of a contiguous float tensor.");
  module.def(
      "count_correct",
      [](py::handle scores, std::uintptr_t targets, int num_threads) {
        const TensorView view = view_of(scores.ptr());
        return count_correct_cpu(view.ref.data, reinterpret_cast<const std::int64_t*>(targets), view.shape[0],
                                 view.shape[1], view.ref.dtype, num_threads);
      },
      py::arg("scores"), py::arg("targets_address"), py::arg("num_threads"),
      "Rows of contiguous scores [rows, classes] whose first maximum is at the int64 target.");
  module.def(
      "squared_error",
      [](py::handle values, py::handle targets, int num_threads) {
        const TensorView a = view_of(values.ptr());
        const TensorView b = view_of(targets.ptr());
        return squared_error_cpu(a.ref.data, b.ref.data, a.ref.numel, a.ref.dtype, num_threads);
      },
      py::arg("values"), py::arg("targets"), py::arg("num_threads"), "Sum of squared differences in float64.");
}

}  // namespace thalweg::bindings
