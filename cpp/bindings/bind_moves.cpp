// thalweg._core: weights moved by directions that are stored or drawn, over torch tensors. The callers keep the tensors
// alive and checked.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "thalweg/error.hpp"
#include "thalweg/landscape.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

std::string place_of(std::int32_t device) { return device < 0 ? "the host" : message("CUDA device ", device); }

// A direction of one tensor that is not stored, with the scales that it reads.
struct DrawnDirection {
  Draw draw;
  py::object scales;         // float64 [rows], or None
  std::int64_t rows = 0;     // of scales
  std::int32_t device = -1;  // of scales

  DrawnDirection(std::uint64_t seed, std::uint64_t stream, py::object row_scales, bool by_weight,
                 std::pair<std::int64_t, std::int64_t> swap)
      : scales(std::move(row_scales)) {
    draw.seed = seed;
    draw.stream = stream;
    draw.swap_a = swap.first;
    draw.swap_b = swap.second;
    if (swap.first < 1 || swap.second < 1) throw py::value_error("Draw: swap must be two numbers of at least 1");
    if (by_weight) draw.factor = DrawFactor::kWeight;
    if (scales.is_none()) return;
    const TensorView view = view_of(scales.ptr());
    if (by_weight || view.ref.dtype != DType::kFloat64 || !is_dense(view) || view.ref.numel < 1)
      throw py::value_error("Draw: expected float64 scales, one per row, or by_weight");
    draw.factor = DrawFactor::kRow;
    draw.scales = static_cast<const double*>(view.ref.data);
    rows = view.ref.numel;
    device = view.ref.device;
  }

  // The same for a tensor of that many elements on that device.
  Draw of(std::int64_t numel, std::int32_t where) const {
    Draw out = draw;
    if (draw.factor == DrawFactor::kRow) {
      if (device != where || numel % rows != 0)
        throw py::value_error(message("Draw: ", rows, " scales on ", place_of(device), " for a tensor of ", numel,
                                      " elements on ", place_of(where)));
      out.row = std::max<std::int64_t>(numel / rows, 1);
    }
    if (numel % (draw.swap_a * draw.swap_b) != 0)
      throw py::value_error("Draw: swap does not fit the number of elements");
    return out;
  }
};

// The tensors of a model and its directions, read once and perturbed at every point; all on the host or all on one
// device, where the work goes to torch's current stream.
class Perturbation {
 public:
  // directions: for each coordinate a list with one entry per tensor: a tensor, a Draw, or None where it stays.
  Perturbation(py::list out, py::list weights, std::vector<py::list> directions)
      : out_(std::move(out)), weights_(std::move(weights)), directions_(std::move(directions)) {
    if (directions_.empty() || directions_.size() > kMaxDirections)
      throw py::value_error(
          message("Perturbation: expected 1 to ", kMaxDirections, " directions, got ", directions_.size()));
    for (std::size_t i = 0; i < out_.size(); ++i) add(i);
    if (device_ >= 0) on_device_ = std::make_unique<CudaPerturbation>(device_, items_.data(), items_.size());
  }

  void perturb(const std::vector<double>& point, int num_threads) const {
    if (point.size() != directions_.size())
      throw py::value_error(message("Perturbation: expected ", directions_.size(), " coordinates, got ", point.size()));
    require_plane();
    std::array<double, kMaxDirections> coordinates{};
    std::copy(point.begin(), point.end(), coordinates.begin());
    if (on_device_ != nullptr) return on_device_->perturb(coordinates.data(), current_stream(device_));
    const py::gil_scoped_release release;
    perturb_cpu(items_.data(), items_.size(), coordinates.data(), num_threads);
  }
  void lerp(double t, int num_threads) const {
    require_line();
    if (on_device_ != nullptr) return on_device_->lerp(t, current_stream(device_));
    const py::gil_scoped_release release;
    lerp_cpu(items_.data(), items_.size(), t, num_threads);
  }
  void perturb_at(const py::handle& table, const py::handle& cursor) const {
    require_plane();
    const PointTable at = point_table(table, cursor);
    if (on_device_ != nullptr) on_device_->perturb_at(at.table, at.width, at.cursor, current_stream(device_));
  }
  void lerp_at(const py::handle& table, const py::handle& cursor) const {
    require_line();
    const PointTable at = point_table(table, cursor);
    if (on_device_ != nullptr) on_device_->lerp_at(at.table, at.width, at.cursor, current_stream(device_));
  }

 private:
  struct PointTable {
    const double* table;
    std::int64_t width;
    const std::int64_t* cursor;
  };

  void add(std::size_t i) {
    const TensorView target = dense(out_[i], nullptr);
    PerturbItem item{};
    item.out = target.ref.data;
    item.numel = target.ref.numel;
    item.dtype = target.ref.dtype;
    item.weight = dense(weights_[i], &target).ref.data;
    int drawn = 0;
    for (std::size_t k = 0; k < directions_.size(); ++k) {
      const py::object direction = directions_[k][i];
      if (direction.is_none()) continue;
      PerturbTerm& term = item.terms[item.count++];
      term.coordinate = static_cast<std::int32_t>(k);
      if (py::isinstance<DrawnDirection>(direction)) {
        term.draw = direction.cast<const DrawnDirection&>().of(item.numel, device_);
        ++drawn;
      } else {
        const TensorView values = dense(direction, &target);
        const DType compute = item.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
        perturbs_ = perturbs_ && values.ref.dtype == compute;
        lerps_ = lerps_ && values.ref.dtype == item.dtype;
        term.values = values.ref.data;
      }
    }
    lerps_ = lerps_ && item.count == 1 && drawn == 0;
    if (drawn != 0 && drawn != item.count)
      throw py::value_error("Perturbation: expected the directions of a tensor all stored or all drawn");
    items_.push_back(item);
  }

  void require_plane() const {
    if (!perturbs_)
      throw py::value_error("Perturbation: expected directions of the type of the weights, float32 for 16-bit weights");
  }

  void require_line() const {
    if (!lerps_ || directions_.size() != 1)
      throw py::value_error("Perturbation: a line has one stored end of the type of the weights");
  }

  // Without tensors there is nothing to move, and no device.
  PointTable point_table(const py::handle& table, const py::handle& cursor) const {
    const TensorView points = view_of(table.ptr());
    const TensorView row = view_of(cursor.ptr());
    const auto width = static_cast<std::int64_t>(directions_.size());
    if (points.ref.dtype != DType::kFloat64 || points.ndim != 2 || points.shape[1] != width || !is_dense(points))
      throw py::value_error(message("Perturbation: expected a dense float64 table [points, ", width, "]"));
    if (!items_.empty() && (device_ < 0 || points.ref.device != device_ || row.ref.device != device_))
      throw py::value_error(message("Perturbation: the tensors are on ", place_of(device_), ", the table on ",
                                    place_of(points.ref.device), ", the cursor on ", place_of(row.ref.device),
                                    "; expected all on one CUDA device"));
    return {static_cast<const double*>(points.ref.data), width, static_cast<const std::int64_t*>(row.ref.data)};
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

  py::list out_;
  py::list weights_;
  std::vector<py::list> directions_;
  std::vector<PerturbItem> items_;
  bool perturbs_ = true;  // whether the terms have the types of directions
  bool lerps_ = true;     // whether they have those of other ends
  std::int32_t device_ = -1;
  std::unique_ptr<CudaPerturbation> on_device_;
};

void fill_drawn(const py::handle& tensor, const DrawnDirection& direction, const py::handle& weight, int num_threads) {
  const TensorView out = view_of(tensor.ptr());
  const bool wide = out.ref.dtype == DType::kFloat32 || out.ref.dtype == DType::kFloat64;
  if (!out.supported || !wide || !is_dense(out))
    throw py::value_error("fill_drawn: expected a dense float32 or float64 tensor");
  const Draw draw = direction.of(out.ref.numel, out.ref.device);
  TensorView factor = out;
  if (draw.factor == DrawFactor::kWeight) factor = view_of(weight.ptr());
  if (!factor.supported || !same_layout(factor, out) || factor.ref.device != out.ref.device)
    throw py::value_error("fill_drawn: expected a weight of the same layout and device");
  if (out.ref.device >= 0)
    return fill_drawn_cuda(out.ref.device, out.ref.data, out.ref.dtype, out.ref.numel, draw, factor.ref.data,
                           factor.ref.dtype, current_stream(out.ref.device));
  const py::gil_scoped_release release;
  fill_drawn_cpu(out.ref.data, out.ref.dtype, out.ref.numel, draw, factor.ref.data, factor.ref.dtype, num_threads);
}

}  // namespace

void bind_moves(py::module_& module) {
  py::class_<DrawnDirection>(module, "Draw", "A direction of one tensor that is drawn again wherever it is needed.")
      .def(py::init<std::uint64_t, std::uint64_t, py::object, bool, std::pair<std::int64_t, std::int64_t>>(),
           py::arg("seed"), py::arg("stream"), py::arg("scales") = py::none(), py::arg("by_weight") = false,
           py::arg("swap") = std::pair<std::int64_t, std::int64_t>(1, 1));
  py::class_<Perturbation>(module, "Perturbation", "A model's tensors with their directions.")
      .def(py::init<py::list, py::list, std::vector<py::list>>(), py::arg("out"), py::arg("weights"),
           py::arg("directions"))
      .def("perturb", &Perturbation::perturb, py::arg("point"), py::arg("num_threads"),
           "out = ((weight + point[0] * directions[0]) + point[1] * directions[1]) + ...")
      .def("lerp", &Perturbation::lerp, py::arg("t"), py::arg("num_threads"),
           "out between weight (t = 0) and the one direction (t = 1), exact at both.")
      .def("perturb_at", &Perturbation::perturb_at, py::arg("table"), py::arg("cursor"),
           "The same on a device with the point from row `cursor` of a float64 table [points, directions] there.")
      .def("lerp_at", &Perturbation::lerp_at, py::arg("table"), py::arg("cursor"), "The same with t.");
  module.def("fill_drawn", &fill_drawn, py::arg("tensor"), py::arg("draw"), py::arg("weight"), py::arg("num_threads"),
             "Fill a contiguous tensor with a whole direction.");
  module.def(
      "fill_normal",
      [](py::handle tensor, std::uint64_t seed, std::uint64_t stream, int num_threads) {
        const TensorView view = view_of(tensor.ptr());
        if (view.ref.dtype != DType::kFloat32 || !is_dense(view)) throw py::value_error("fill_normal: dense float32");
        fill_drawn(tensor, DrawnDirection(seed, stream, py::none(), false, {1, 1}), py::none(), num_threads);
      },
      py::arg("tensor"), py::arg("seed"), py::arg("stream"), py::arg("num_threads"),
      "Fill a float32 tensor with the normal variates of (seed, stream).");
}

}  // namespace thalweg::bindings
