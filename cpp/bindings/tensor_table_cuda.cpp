// TensorTable's tensors on CUDA devices: what a step needs there beside addresses.
#include <algorithm>

#include "python_access.hpp"
#include "tensor_table.hpp"
#include "thalweg/error.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
bool TensorTable::capturing() const {
  return std::any_of(devices_.begin(), devices_.end(), [](const Device& device) {
    return cuda_is_capturing(device.ordinal, current_stream(device.ordinal));
  });
}

// The device of a parameter, made ready for steps when it is the first one there.
TensorTable::Device& TensorTable::device_of(std::size_t n) {
  const std::int32_t ordinal = hot_[n].device;
  for (Device& device : devices_)
    if (device.ordinal == ordinal) return device;
  auto steps = std::make_unique<CudaStep>(optimizer_, ordinal);
  if (cuda_is_capturing(ordinal, current_stream(ordinal)))
    throw std::runtime_error(
        message(info_.name,
                ": the optimizer has not stepped yet on this device, and its tables cannot be made "
                "while a CUDA graph is captured; step once before"));
  devices_.emplace_back();
  Device& device = devices_.back();
  device.ordinal = ordinal;
  device.steps = std::move(steps);
  device.param = owned_[n].param;
  device.clock = owner().attr("_clock")(device.param);
  return device;
}

void TensorTable::add_cuda_item(std::size_t n, const StepItem& item) {
  const Hot& hot = hot_[n];
  Device& device = device_of(n);
  if (device.group_of.empty() || device.group_of.back() != hot.group) {
    const Group& options = groups_[static_cast<std::size_t>(hot.group)];
    StepGroup group;
    std::copy(std::begin(options.hyper), std::end(options.hyper), std::begin(group.hyper));
    group.lr = options.lr;
    group.ema_decay = options_.ema_decay;
    for (int k = 0; k < kMaxPlans; ++k) {
      const Plan* plan = options.plans[k];
      if (plan != nullptr) group.plans[k] = {plan->words.data(), static_cast<std::int64_t>(plan->words.size())};
    }
    if (options.lr_object != nullptr) {
      py::object lr = py::reinterpret_borrow<py::object>(options.lr_object);
      if (options.lr_tensor.device != device.ordinal) lr = lr.attr("to")(device.param.attr("device"));
      const TensorRef ref = view_of(lr.ptr()).ref;
      if (ref.dtype != DType::kFloat32 && ref.dtype != DType::kFloat64)
        throw py::type_error(message(info_.name, ": a tensor lr must be float32 or float64, got ", name_of(ref.dtype)));
      group.lr_tensor = ref.data;
      group.lr_dtype = ref.dtype;
      kept_.push_back(std::move(lr));
    }
    device.groups.push_back(group);
    device.group_of.push_back(hot.group);
  }
  CudaStepItem out;
  out.tensor = item;
  out.scalars = hot.scalars;
  out.group = static_cast<std::int32_t>(device.groups.size() - 1);
  device.items.push_back(out);
}

// The number of steps on the device of a parameter whose optimizer keeps no `step`: it tells the first one apart, which
// the host cannot, as the device may have skipped it.
void TensorTable::look_up_count(std::size_t n) {
  Hot& hot = hot_[n];
  owned_[n].count = owner().attr("_count_of")(owned_[n].param, hot.first);
  hot.scalars.at[0] = scalar_address(owned_[n].count, DType::kFloat32, hot.device, "TensorTable: a step count");
}

}  // namespace thalweg::bindings
