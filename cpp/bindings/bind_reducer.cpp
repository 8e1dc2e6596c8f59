// thalweg._core.Reducer: metric kernels over torch tensors on a CUDA device, with results that stay there. The callers
// keep the tensors alive and see to integer types.
#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "thalweg/error.hpp"
#include "thalweg/metrics.hpp"
#include "torch_border.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// Running results [rows, width] in float64 on a device; the row is read there, too.
class Reducer {
 public:
  Reducer(py::object values, py::object cursor)
      : values_(std::move(values)), cursor_(std::move(cursor)), device_(device_of(values_)), reducer_(device_) {
    const TensorView view = view_of(values_.ptr());
    if (view.ref.dtype != DType::kFloat64 || view.ndim != 2 || !is_dense(view))
      throw py::value_error("Reducer: expected dense float64 values [rows, columns]");
    cells_.values = static_cast<double*>(view.ref.data);
    cells_.width = view.shape[1];
    if (!cursor_.is_none()) cells_.cursor = static_cast<const std::int64_t*>(here("cursor", cursor_).ref.data);
  }

  void number(std::int64_t column, const py::object& value, double weight) {
    Cells to = cells(column, 1);
    to.weight = weight;
    if (py::isinstance<py::float_>(value))
      return accumulate_cuda(device_, value.cast<double>(), to, current_stream(device_));
    const TensorView view = here("value", value);
    if (!view.supported || view.ref.numel != 1)
      throw py::value_error(message("Reducer: expected a float, or a tensor with one floating-point element, got ",
                                    view.ref.numel, " elements"));
    accumulate_cuda(device_, view.ref.data, view.ref.dtype, to, current_stream(device_));
  }

  void sum(std::int64_t column, const py::handle& values) {
    const TensorRef ref = floats("values", values);
    reducer_.sum(ref.data, ref.numel, ref.dtype, cells(column, 1), current_stream(device_));
  }

  void sum_and_squares(std::int64_t column, const py::handle& values) {
    const TensorRef ref = floats("values", values);
    reducer_.sum_and_squares(ref.data, ref.numel, ref.dtype, cells(column, 2), current_stream(device_));
  }

  void squared_error(std::int64_t column, const py::handle& values, const py::handle& targets) {
    const auto [a, b] = alike(values, targets);
    reducer_.squared_error(a.data, b.data, a.numel, a.dtype, cells(column, 1), current_stream(device_));
  }

  void cross_entropy(std::int64_t column, const py::handle& scores, const py::handle& targets) {
    const Scores rows = scores_of(scores, targets);
    reducer_.cross_entropy(rows.scores.data, rows.targets, rows.count, rows.classes, rows.scores.dtype,
                           cells(column, 1), current_stream(device_));
  }

  void count_correct(std::int64_t column, const py::handle& scores, const py::handle& targets, std::int64_t k,
                     double weight, double divisor) {
    const Scores rows = scores_of(scores, targets);
    Cells to = cells(column, 1);
    to.weight = weight;
    to.divisor = divisor;
    reducer_.count_correct(rows.scores.data, rows.targets, rows.count, rows.classes, k, rows.scores.dtype, to,
                           current_stream(device_));
  }

  void row_squares(std::int64_t column, const py::handle& values, std::int64_t rows) {
    const TensorRef ref = floats("values", values);
    if (rows <= 0 || ref.numel % rows != 0) throw py::value_error("Reducer: expected rows of equal length");
    reducer_.row_squares(ref.data, rows, ref.numel / rows, ref.dtype, cells(column, rows), current_stream(device_));
  }

  void dots(std::int64_t column, const py::list& first, const py::list& second) {
    if (first.size() != second.size()) throw py::value_error("Reducer: expected as many first as second vectors");
    std::vector<CudaReducer::Pair> pairs;
    for (std::size_t i = 0; i < first.size(); ++i) {
      const auto [a, b] = alike(first[i], second[i]);
      pairs.push_back({a.data, b.data, a.numel, a.dtype});
    }
    const Cells to = cells(column, static_cast<std::int64_t>(pairs.size()));
    reducer_.dots(pairs.data(), pairs.size(), to, current_stream(device_));
  }

  void advance() {
    if (cursor_.is_none()) throw py::value_error("Reducer: without a cursor there is no next row");
    advance_cuda(device_, const_cast<std::int64_t*>(cells_.cursor), current_stream(device_));
  }

 private:
  struct Scores {
    TensorRef scores;  // [count, classes]
    const std::int64_t* targets;
    std::int64_t count;
    std::int64_t classes;
  };

  static std::int32_t device_of(const py::handle& values) {
    const std::int32_t device = view_of(values.ptr()).ref.device;
    if (device < 0) throw py::value_error("Reducer: expected values on a CUDA device, got a tensor on the CPU");
    return device;
  }

  TensorView here(const char* what, const py::handle& tensor) const {
    const TensorView view = view_of(tensor.ptr());
    if (view.ref.device == device_) return view;
    const std::string got = view.ref.device < 0 ? "the CPU" : message("CUDA device ", view.ref.device);
    throw py::value_error(message("Reducer: the results are on CUDA device ", device_, ", ", what, " on ", got,
                                  "; move it with .to(\"cuda:", device_, "\")"));
  }

  TensorRef floats(const char* what, const py::handle& tensor) const {
    const TensorView view = here(what, tensor);
    const bool wide = view.ref.dtype == DType::kFloat32 || view.ref.dtype == DType::kFloat64;
    if (!view.supported || !is_dense(view) || !wide)
      throw py::value_error(message("Reducer: expected ", what, " as a dense float32 or float64 tensor"));
    return view.ref;
  }

  std::pair<TensorRef, TensorRef> alike(const py::handle& first, const py::handle& second) const {
    const TensorRef a = floats("values", first);
    const TensorRef b = floats("targets", second);
    if (a.numel != b.numel || a.dtype != b.dtype)
      throw py::value_error("Reducer: expected two tensors of one size and type");
    return {a, b};
  }

  Scores scores_of(const py::handle& scores, const py::handle& targets) const {
    const TensorRef ref = floats("scores", scores);
    const TensorView shape = view_of(scores.ptr());
    const TensorView wanted = here("targets", targets);
    if (shape.ndim != 2 || wanted.ref.numel != shape.shape[0] || !is_dense(wanted))
      throw py::value_error("Reducer: expected scores [rows, classes] and dense int64 targets [rows]");
    return {ref, static_cast<const std::int64_t*>(wanted.ref.data), shape.shape[0], shape.shape[1]};
  }

  Cells cells(std::int64_t column, std::int64_t count) const {
    if (column < 0 || column + count > cells_.width)
      throw py::value_error(message("Reducer: ", count, " results from column ", column, " on do not fit into ",
                                    cells_.width, " columns"));
    Cells to = cells_;
    to.column = column;
    return to;
  }

  py::object values_;
  py::object cursor_;
  std::int32_t device_;
  CudaReducer reducer_;
  Cells cells_;
};

}  // namespace

void bind_reducer(py::module_& module) {
  py::class_<Reducer>(module, "Reducer",
                      "Adds results to values[cursor, column ...] [rows, columns] on a device, on torch's current "
                      "stream, without waiting.")
      .def(py::init<py::object, py::object>(), py::arg("values"), py::arg("cursor") = py::none())
      .def("number", &Reducer::number, py::arg("column"), py::arg("value"), py::arg("weight") = 1.0,
           "A float, or a tensor with one element.")
      .def("sum", &Reducer::sum, py::arg("column"), py::arg("values"))
      .def("sum_and_squares", &Reducer::sum_and_squares, py::arg("column"), py::arg("values"), "Two columns.")
      .def("squared_error", &Reducer::squared_error, py::arg("column"), py::arg("values"), py::arg("targets"))
      .def("cross_entropy", &Reducer::cross_entropy, py::arg("column"), py::arg("scores"), py::arg("targets"))
      .def("count_correct", &Reducer::count_correct, py::arg("column"), py::arg("scores"), py::arg("targets"),
           py::arg("k") = 1, py::arg("weight") = 1.0, py::arg("divisor") = 1.0, "The number * weight / divisor.")
      .def("row_squares", &Reducer::row_squares, py::arg("column"), py::arg("values"), py::arg("rows"),
           "A column per row.")
      .def("dots", &Reducer::dots, py::arg("column"), py::arg("first"), py::arg("second"), "A column per pair.")
      .def("advance", &Reducer::advance, "The next row, for all work that follows on this stream.");
}

}  // namespace thalweg::bindings
