// TensorTable's second half of a step, after the gather: what may skip it, the calls of the core, and what is written
// back to Python's objects.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "python_access.hpp"
#include "tensor_table.hpp"
#include "thalweg/error.hpp"

namespace py = pybind11;

namespace thalweg::bindings {

StepControl TensorTable::control_for(const py::object& param) {
  StepControl control;
  const py::object given = owner().attr("_control")(param);
  if (given.is_none()) return control;
  const auto [max_norm, max_value, skips, seed, grad_scale, found_inf, found_inf_out, norm_out] = given.cast<
      std::tuple<py::object, py::object, bool, std::uint64_t, py::object, py::object, py::object, py::object>>();
  const std::int32_t device = view_of(memory_of(param).ptr()).ref.device;
  const auto scalar = [device](const py::object& tensor, DType dtype, const char* what) {
    return scalar_address(tensor, dtype, device, what);
  };
  if (!max_norm.is_none()) control.max_grad_norm = max_norm.cast<double>();
  if (!max_value.is_none()) control.max_grad_value = max_value.cast<double>();
  control.skips_nonfinite = skips;
  control.seed = seed;
  control.grad_scale = static_cast<const float*>(scalar(grad_scale, DType::kFloat32, "grad_scale"));
  control.found_inf = static_cast<const float*>(scalar(found_inf, DType::kFloat32, "found_inf"));
  control.found_inf_out = static_cast<float*>(scalar(found_inf_out, DType::kFloat32, "found_inf"));
  control.norm_out = static_cast<double*>(scalar(norm_out, DType::kFloat64, "grad_norm"));
  control.needs_norm = control.max_grad_norm >= 0 || skips || control.norm_out != nullptr;
  kept_.push_back(given);
  return control;
}

void TensorTable::read_controls(bool controlled) {
  control_ = StepControl{};
  for (Device& device : devices_) device.control = StepControl{};
  if (!controlled || (active_.empty() && !spans_mesh())) return;
  const std::size_t host = host_place();
  std::size_t places = 0;
  bool needs_norm = false;
  for (Device& device : devices_) {
    device.control = control_for(device.param);
    places += device.items.empty() ? 0 : 1;
    needs_norm = needs_norm || device.control.needs_norm;
  }
  if (host < hot_.size()) {
    control_ = control_for(owned_[host].param);
    ++places;
    needs_norm = needs_norm || control_.needs_norm;
  }
  if (places > 1 && needs_norm)
    throw py::value_error(
        message(info_.name,
                ": max_grad_norm, skip_nonfinite and thalweg.amp.GradScaler need all parameters on one "
                "device, got ",
                places, "; clip with torch.nn.utils.clip_grad_norm_, or give each device an optimizer"));
}

// A device without gradients in this step is called too: its schedules move on.
void TensorTable::update_devices() {
  for (Device& device : devices_) {
    auto* clock = static_cast<std::int64_t*>(view_of(device.clock.ptr()).ref.data);
    void* stream = current_stream(device.ordinal);
    const MeshSums mesh = shared_on(device);
    const py::gil_scoped_release release;
    device.steps->step(device.items.data(), device.items.size(), device.groups.data(), device.groups.size(),
                       device.control, clock, stream, mesh);
  }
}

// The host's part of a step, without the GIL; false when it is skipped.
bool TensorTable::update_host(int num_threads, const StepControl& control, std::int64_t schedule_step) {
  if (items_.empty() && !(spans_mesh() && (control.needs_norm || info_.two_phase))) return true;
  const py::gil_scoped_release release;
  const double squares = control.needs_norm ? grad_squares(num_threads) : 0.0;
  const StepVerdict verdict = judge(control, squares, schedule_step);
  report(control, verdict);
  if (verdict.skip) {
    if (options_.zero_grad)  // or the next backward pass would add to infinities
      for (const StepItem& item : items_)
        if (item.numel > 0) std::memset(item.grad, 0, static_cast<std::size_t>(item.numel * size_of(item.grad_dtype)));
    return false;
  }
  if (!info_.two_phase) {
    step_cpu(optimizer_, items_.data(), items_.size(), scalars_.data(), verdict, num_threads);
    return true;
  }
  sums_.resize(items_.size());
  own_scalars_.resize(items_.size());
  measure_cpu(optimizer_, items_.data(), items_.size(), scalars_.data(), verdict, num_threads, sums_.data());
  if (spans_mesh()) measure_over_mesh();
  adapt(optimizer_, items_.data(), items_.size(), scalars_.data(), sums_.data(), own_scalars_.data());
  step_cpu(optimizer_, items_.data(), items_.size(), own_scalars_.data(), verdict, num_threads);
  return true;
}

void TensorTable::forget_new_states() {
  py::list params;
  for (std::size_t n = 0; n < hot_.size(); ++n)
    if (std::exchange(hot_[n].first, false)) params.append(owned_[n].param);
  if (!params.empty()) owner().attr("_forget_states")(params);
  grads_.clear();
}

// What a schedule drives, for the next step. A number is replaced, a tensor written in place.
void TensorTable::write_next_rates(const py::list& groups, std::int64_t step) {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const py::dict group = groups[g];
    const auto& plans = groups_[g].plans;
    for (std::size_t k = 0; k < hyper_keys_.size(); ++k) {
      if (plans[k] == nullptr) continue;
      const py::float_ value(plans[k]->value_at(step));
      const HyperKey& at = hyper_keys_[k];
      if (at.element < 0) {
        group[at.key] = value;
      } else {
        py::list elements(group[at.key]);
        elements[static_cast<std::size_t>(at.element)] = value;
        group[at.key] = py::tuple(elements);
      }
    }
    if (plans[kLrPlan] != nullptr) write_next_lr(group, g, plans[kLrPlan]->value_at(step));
  }
}

// A tensor on a device whose group took part in the step is the kernels' to write.
void TensorTable::write_next_lr(const py::dict& group, std::size_t g, double value) {
  const auto has_items = [g](const Device& device) {
    return std::find(device.group_of.begin(), device.group_of.end(), static_cast<std::int32_t>(g)) !=
           device.group_of.end();
  };
  if (groups_[g].lr_object != nullptr && std::any_of(devices_.begin(), devices_.end(), has_items)) return;
  PyObject* lr = item_of(group.ptr(), names().lr);
  if (is_tensor(lr)) {
    py::handle(lr).attr("fill_")(value);
  } else {
    group[names().lr] = py::float_(value);
  }
}

// Counters, copies back, and the version counters that tell autograd of the writes.
void TensorTable::finish() {
  for (std::size_t i = 0; i < active_.size(); ++i) {
    Hot& hot = hot_[active_[i]];
    hot.first = false;
    if (hot.device >= 0) continue;
    const Prepared& done = prepared_[static_cast<std::size_t>(scalars_of_[i])];
    if (info_.counts_steps) write_scalar(hot.scalars.at[0], (hot.scalars.wide & 1) != 0, done.step);
    for (std::size_t k = 1; k < scalar_keys_.size(); ++k)
      write_scalar(hot.scalars.at[k], (hot.scalars.wide >> k & 1) != 0, done.after[k - 1]);
  }
  if (listed_ != active_ || active_.empty()) {
    updated_ = py::list();
    for (const std::size_t n : active_) {
      updated_.append(owned_[n].param);
      if (hot_[n].memory != hot_[n].param) updated_.append(py::handle(hot_[n].memory));
    }
    listed_ = active_;
  }
  if (!substitutes_.empty()) {
    py::list pairs;
    for (const py::object& pair : substitutes_) pairs.append(pair);
    owner().attr("_copy_back")(pairs, grad_write_ != GradWrite::kKeep);
  }
  names().increment_version(updated_);
  grads_.clear();
}

}  // namespace thalweg::bindings
