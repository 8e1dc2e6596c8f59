// TensorTable's parameters that a mesh of processes shares (DTensors): the local tensors that have the memory, their
// gradients sharded alike, and sums of squares over all shards.
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "python_access.hpp"
#include "tensor_table.hpp"
#include "thalweg/error.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// Of the places of parameters, which key stochastic rounding: above these the number of the shard stands.
constexpr int kPlaceBits = 20;

const py::str& spec_name() {
  static const py::str* const kName = new py::str(intern("_spec"));
  return *kName;
}

const py::str& local_name() {
  static const py::str* const kName = new py::str(intern("_local_tensor"));
  return *kName;
}

bool is_plain_tensor(const py::handle& value) {
  const py::handle type = py::type::handle_of(value);
  return type.is(names().tensor) || type.is(names().parameter);
}

}  // namespace

// Asked of tensors that are neither torch.Tensor nor Parameter: nobody has made a DTensor before its module is loaded.
bool is_dtensor(const py::handle& value) {
  static PyObject* known = nullptr;  // found once and kept for the life of the process
  if (known == nullptr) {
    const py::object loaded = py::module_::import("sys").attr("modules").attr("get")("torch.distributed.tensor");
    if (loaded.is_none() || !py::hasattr(loaded, "DTensor")) return false;
    known = py::object(loaded.attr("DTensor")).release().ptr();
  }
  return reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())) == known;
}

py::object memory_of(const py::handle& tensor) {
  const bool local = !is_plain_tensor(tensor) && is_dtensor(tensor);
  return local ? tensor.attr(local_name()) : py::reinterpret_borrow<py::object>(tensor);
}

void TensorTable::find_meshed() {
  meshed_.clear();
  norm_classes_ = 1;
  slots_ = {0};
  for (std::size_t n = 0; n < hot_.size(); ++n) {
    if (is_plain_tensor(owned_[n].param) || !is_dtensor(owned_[n].param)) continue;
    meshed_.emplace_back();
    meshed_.back().place = n;
  }
}

// Before every step: where the local tensors lie now, and grads_ holds local gradients. What a comparison of addresses
// does not settle is asked of Python, and may take the other processes: all of them ask in the same order.
void TensorTable::localize() {
  bool moved = false;
  for (Meshed& meshed : meshed_) {
    const std::size_t n = meshed.place;
    Hot& hot = hot_[n];
    const py::handle param = hot.param;
    if (!is_dtensor(param)) throw py::type_error(message(info_.name, ": a parameter is no longer a DTensor"));
    py::object spec = param.attr(spec_name());
    if (!spec.is(meshed.spec)) {
      const auto [norm_class, shard] =
          owner().attr("_mesh_place")(param).cast<std::pair<std::int16_t, std::uint32_t>>();
      hot.norm_class = norm_class;
      hot.shard = shard << kPlaceBits;
      norm_classes_ = std::max<std::size_t>(norm_classes_, static_cast<std::size_t>(norm_class) + 1);
      meshed.spec = std::move(spec);
      meshed.grad_spec = py::none();
      moved = true;
    }
    py::object local = param.attr(local_name());
    if (!local.is(meshed.local)) {
      hot.memory = local.ptr();
      hot.seen = nullptr;  // its states are looked up again
      listed_.clear();
      meshed.local = std::move(local);
    }
    if (!grads_[n].is_none()) grads_[n] = local_gradient(meshed, grads_[n]);
  }
  if (moved) number_slots();
}

// The sums of DTensors, class by class, each in the order of the parameters: the same in all processes.
void TensorTable::number_slots() {
  slots_.assign(norm_classes_, 0);
  std::int32_t next = 0;
  for (std::size_t k = 1; k < norm_classes_; ++k)
    for (const Meshed& meshed : meshed_) {
      Hot& hot = hot_[meshed.place];
      if (static_cast<std::size_t>(hot.norm_class) == k) hot.mesh_slot = next++, ++slots_[k];
    }
}

py::object TensorTable::local_gradient(Meshed& meshed, const py::object& grad) {
  if (is_dtensor(grad)) {
    const py::object spec = grad.attr(spec_name());
    py::object local = grad.attr(local_name());
    if ((spec.is(meshed.spec) || spec.is(meshed.grad_spec)) && is_plain_tensor(local)) return local;
  }
  const py::object aligned = owner().attr("_aligned_grad")(owned_[meshed.place].param);
  meshed.grad_spec = aligned.attr(spec_name());
  return aligned.attr(local_name());
}

// The sum of the squares of all gradients, each element of a sharded one counted once; without the GIL.
double TensorTable::grad_squares(int num_threads) {
  if (norm_classes_ == 1) return grad_squares_cpu(items_.data(), items_.size(), num_threads);
  ClassSums squares;
  std::vector<StepItem> members;
  for (std::size_t k = 0; k < norm_classes_; ++k) {
    members.clear();
    for (const StepItem& item : items_)
      if (static_cast<std::size_t>(item.norm_class) == k) members.push_back(item);
    squares.push_back({grad_squares_cpu(members.data(), members.size(), num_threads)});
  }
  sum_over_mesh(squares);
  double total = 0;
  for (const std::vector<double>& square : squares) total += square.front();
  return total;
}

// What a two-phase optimizer measured of shards becomes what the whole tensors measure; without the GIL. Every process
// sends numbers for all its DTensors, zeros where it has no gradient: they stand at the same places in all of them.
void TensorTable::measure_over_mesh() {
  ClassSums sums(norm_classes_);
  for (std::size_t k = 1; k < norm_classes_; ++k) sums[k].resize(static_cast<std::size_t>(2 * slots_[k]));
  const auto of_item = [&](const StepItem& item) {
    const auto k = static_cast<std::size_t>(item.norm_class);
    const std::int32_t before = std::accumulate(slots_.begin(), slots_.begin() + item.norm_class, 0);
    return k == 0 ? nullptr : &sums[k][static_cast<std::size_t>(2 * (item.mesh_slot - before))];
  };
  for (std::size_t i = 0; i < items_.size(); ++i)
    if (double* const own = of_item(items_[i])) own[0] = sums_[i].first, own[1] = sums_[i].second;
  sum_over_mesh(sums);
  for (std::size_t i = 0; i < items_.size(); ++i)
    if (const double* const own = of_item(items_[i])) sums_[i] = {own[0], own[1]};
}

// Each class's numbers but those of class 0 become their sums over the processes of that class.
void TensorTable::sum_over_mesh(ClassSums& sums) {
  const py::gil_scoped_acquire acquire;
  const py::object total = owner().attr("_sum_over_mesh")(ClassSums(sums.begin() + 1, sums.end()));
  const auto reduced = total.cast<ClassSums>();
  std::copy(reduced.begin(), reduced.end(), sums.begin() + 1);
}

// The numbers on a device that its step shares with other processes.
MeshSums TensorTable::shared_on(const Device& device) {
  MeshSums mesh;
  if (!spans_mesh() || !(device.control.needs_norm || info_.two_phase)) return mesh;
  const py::tuple sums =
      owner().attr("_shared_sums")(device.param, info_.two_phase ? slots_ : std::vector<std::int32_t>(norm_classes_));
  mesh.classes = static_cast<int>(norm_classes_);
  mesh.squares = static_cast<double*>(view_of(sums[0].ptr()).ref.data);
  mesh.measured = static_cast<double*>(view_of(sums[1].ptr()).ref.data);
  mesh.add = [this, param = device.param.ptr()](bool measured) {
    const py::gil_scoped_acquire acquire;
    owner().attr("_add_shared")(py::handle(param), measured);
  };
  return mesh;
}

// A parameter on the host that this step concerns, or hot_.size(). A process without a gradient of its own takes part
// in the norm of the others, wherever its shards lie.
std::size_t TensorTable::host_place() {
  if (active_.empty() && spans_mesh()) {
    const std::size_t n = meshed_.front().place;
    hot_[n].device = view_of(hot_[n].memory).ref.device;
    if (hot_[n].device < 0) return n;
    device_of(n);
  }
  if (items_.empty()) return hot_.size();
  return *std::find_if(active_.begin(), active_.end(), [this](std::size_t n) { return hot_[n].device < 0; });
}

// A state is sharded as its parameter.
bool TensorTable::sharded_alike(std::size_t n, const py::handle& state) const {
  const Hot& hot = hot_[n];
  if (hot.memory == hot.param) return is_plain_tensor(state) || !is_dtensor(state);
  if (is_plain_tensor(state) || !is_dtensor(state)) return false;
  const py::handle param = hot.param;
  const py::object wanted = param.attr(spec_name()), spec = state.attr(spec_name());
  return spec.is(wanted) || owner().attr("_sharded_alike")(param, state).cast<bool>();
}

}  // namespace thalweg::bindings
