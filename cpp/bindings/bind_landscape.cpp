// thalweg._core: landscape and metric kernels over torch tensors. The callers keep the tensors alive and checked.
#include <pybind11/numpy.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "thalweg/error.hpp"
#include "thalweg/landscape.hpp"
#include "thalweg/metrics.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

std::string place_of(std::int32_t device) { return device < 0 ? "the host" : message("CUDA device ", device); }

// The tensors of a model and up to two directions, read once and perturbed at every point; all on the host or all on
// one device, where the work goes to torch's current stream.
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
    if (device_ >= 0) on_device_ = std::make_unique<CudaPerturbation>(device_, items_.data(), items_.size());
  }
  void perturb(double a, double b, int num_threads) const {
    if (on_device_ != nullptr) return on_device_->perturb(a, b, current_stream(device_));
    const py::gil_scoped_release release;
    perturb_cpu(items_.data(), items_.size(), a, b, num_threads);
  }
  void lerp(double t, int num_threads) const {
    if (on_device_ != nullptr) return on_device_->lerp(t, current_stream(device_));
    const py::gil_scoped_release release;
    lerp_cpu(items_.data(), items_.size(), t, num_threads);
  }
  void perturb_at(const py::handle& table, const py::handle& cursor) const {
    const PointTable at = point_table(table, cursor);
    if (on_device_ != nullptr) on_device_->perturb_at(at.table, at.width, at.cursor, current_stream(device_));
  }
  void lerp_at(const py::handle& table, const py::handle& cursor) const {
    const PointTable at = point_table(table, cursor);
    if (on_device_ != nullptr) on_device_->lerp_at(at.table, at.width, at.cursor, current_stream(device_));
  }

 private:
  struct PointTable {
    const double* table;
    std::int64_t width;
    const std::int64_t* cursor;
  };

  // Without tensors there is nothing to move, and no device.
  PointTable point_table(const py::handle& table, const py::handle& cursor) const {
    const TensorView points = view_of(table.ptr());
    const TensorView row = view_of(cursor.ptr());
    if (points.ref.dtype != DType::kFloat64 || points.ndim != 2 || points.shape[1] < 1 || !is_dense(points))
      throw py::value_error("Perturbation: expected a dense float64 table [points, coordinates]");
    if (!items_.empty() && (device_ < 0 || points.ref.device != device_ || row.ref.device != device_))
      throw py::value_error(message("Perturbation: the tensors are on ", place_of(device_), ", the table on ",
                                    place_of(points.ref.device), ", the cursor on ", place_of(row.ref.device),
                                    "; expected all on one CUDA device"));
    return {static_cast<const double*>(points.ref.data), points.shape[1],
            static_cast<const std::int64_t*>(row.ref.data)};
  }

  TensorView dense(const py::handle& tensor, const TensorView* like) {
    const TensorView view = view_of(tensor.ptr());
    if (!view.supported || !is_dense(view) || (like != nullptr && !same_layout(view, *like)))
      throw py::value_error("Perturbation: expected dense tensors of one layout");
    if (items_.empty() && like == nullptr) device_ = view.ref.device;
    if (view.ref.device != device_)
      throw py::value_error(message("Perturbation: expected all tensors on one device, got ", place_of(device_),
                                    " and ", place_of(view.ref.device)));
    return view;
  }

  py::list keep_[4];
  std::vector<PerturbItem> items_;
  std::int32_t device_ = -1;
  std::unique_ptr<CudaPerturbation> on_device_;
};

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
  py::class_<Perturbation>(module, "Perturbation", "A model's tensors with their directions.")
      .def(py::init<py::list, py::list, py::list, py::list>(), py::arg("out"), py::arg("weights"), py::arg("first"),
           py::arg("second"))
      .def("perturb", &Perturbation::perturb, py::arg("a"), py::arg("b"), py::arg("num_threads"),
           "out = (weight + a * first) + b * second.")
      .def("lerp", &Perturbation::lerp, py::arg("t"), py::arg("num_threads"),
           "out between weight (t = 0) and first (t = 1), exact at both.")
      .def("perturb_at", &Perturbation::perturb_at, py::arg("table"), py::arg("cursor"),
           "The same on a device with (a, b) from row `cursor` of a float64 table [points, 1 or 2] there.")
      .def("lerp_at", &Perturbation::lerp_at, py::arg("table"), py::arg("cursor"), "The same with t.");
  module.def(
      "fill_normal",
      [](py::handle tensor, std::uint64_t seed, std::uint64_t stream, int num_threads) {
        const TensorView view = view_of(tensor.ptr());
        if (view.ref.dtype != DType::kFloat32 || !is_dense(view)) throw py::value_error("fill_normal: dense float32");
        float* out = static_cast<float*>(view.ref.data);
        if (view.ref.device >= 0)
          return fill_normal_cuda(view.ref.device, out, view.ref.numel, seed, stream, current_stream(view.ref.device));
        const py::gil_scoped_release release;
        fill_normal_cpu(out, view.ref.numel, seed, stream, num_threads);
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
  module.def("cross_entropy", &cross_entropy, py::arg("scores"), py::arg("targets_address"), py::arg("num_threads"),
             "Sum over the rows of contiguous scores [rows, classes] of their cross-entropy in float64.");
  bind_reducer(module);
}

}  // namespace thalweg::bindings
