// TensorTable's states: sees whether something in optimizer.state changed; if so, the slow path finds, creates or mends
// what it keeps addresses of.
#include <algorithm>

#include "python_access.hpp"
#include "tensor_table.hpp"
#include "thalweg/error.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// Python below 3.12 numbers every state of every dict; equal numbers mean the same dict with the same values.
std::uint64_t version_of(PyObject* dict) {
#if PY_VERSION_HEX < 0x030C0000
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#else
  static_cast<void>(dict);
  return 0;
#endif
}

}  // namespace

// optimizer.state holds the same inner dicts under the same parameters, in the same order.
bool TensorTable::outer_state_same(const py::dict& state) const {
  if (static_cast<std::size_t>(PyDict_Size(state.ptr())) != outer_.size()) return false;
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  for (const auto& [known_key, known_value] : outer_)
    if (PyDict_Next(state.ptr(), &position, &key, &value) == 0 || key != known_key || value != known_value)
      return false;
  return true;
}

bool TensorTable::inner_state_same(std::size_t n) {
  Check& check = checks_[n];
  PyObject* inner = hot_[n].inner;
  if (check.version != 0 && check.version == version_of(inner)) return true;
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  if (PyDict_Size(inner) != check.count) return false;
  for (Py_ssize_t i = 0; i < check.count; ++i) {
    const PyObject* known = i < kMaxKeys ? check.values[i] : owned_[n].values[static_cast<std::size_t>(i)].ptr();
    if (PyDict_Next(inner, &position, &key, &value) == 0 || value != known) return false;
  }
  check.version = version_of(inner);
  return true;
}

bool TensorTable::keeps_state(std::size_t n) const {
  return info_.counts_steps || !info_.scalar_names.empty() || options_.ema_decay >= 0 ||
         groups_[static_cast<std::size_t>(hot_[n].group)].states != 0 ||
         (options_.master_weights && keeps_master(view_of(hot_[n].memory).ref.dtype));
}

bool TensorTable::keeps_master(DType param) const { return options_.master_weights && size_of(param) == 2; }

DType TensorTable::state_dtype_for(DType param) const {
  if (param == DType::kFloat64) return param;
  if (options_.state_dtype >= 0) return static_cast<DType>(options_.state_dtype);
  return keeps_master(param) ? DType::kFloat32 : param;
}

void TensorTable::look_up_states(const py::dict& state) {
  std::vector<std::size_t> stateful;
  py::list missing, masks;
  for (std::size_t n = 0; n < hot_.size(); ++n) {
    hot_[n].inner = nullptr;
    checks_[n].count = -1;
    if (!keeps_state(n) || grads_[n].is_none()) continue;
    stateful.push_back(n);
    if (!is_missing(n, state)) continue;
    missing.append(owned_[n].param);
    masks.append(groups_[static_cast<std::size_t>(hot_[n].group)].states);
    hot_[n].first = true;
  }
  if (!missing.empty() && capturing_)
    throw std::runtime_error(message(
        info_.name, ": the state of ", missing.size(),
        " parameters does not exist yet and cannot be created while a CUDA graph is captured; step once before"));
  if (!missing.empty()) owner().attr("_init_states")(missing, masks);
  for (const std::size_t n : stateful) look_up(n, view_of(hot_[n].memory), state);
  outer_.clear();
  Py_ssize_t position = 0;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  while (PyDict_Next(state.ptr(), &position, &key, &value) != 0) outer_.emplace_back(key, value);
}

bool TensorTable::is_missing(std::size_t n, const py::dict& state) const {
  if (!state.contains(owned_[n].param)) return true;
  const py::dict inner = state[owned_[n].param];
  const unsigned wanted = groups_[static_cast<std::size_t>(hot_[n].group)].states;
  for (std::size_t i = 0; i < state_keys_.size(); ++i)
    if ((wanted >> i & 1) != 0 && (!inner.contains(state_keys_[i]) || inner[state_keys_[i]].is_none())) return true;
  for (std::size_t k = info_.counts_steps ? 0 : 1; k < scalar_keys_.size(); ++k)
    if (!inner.contains(scalar_keys_[k])) return true;
  if (options_.ema_decay >= 0 && !inner.contains(names().ema)) return true;
  return keeps_master(view_of(hot_[n].memory).ref.dtype) && !inner.contains(names().master_param);
}

void TensorTable::look_up(std::size_t n, const TensorView& param, const py::dict& state) {
  Owned& owned = owned_[n];
  Hot& hot = hot_[n];
  owned.inner = state[owned.param];
  hot.inner = owned.inner.ptr();
  if (!fits(n, param)) {
    owner().attr("_adopt_state")(owned.param, groups_[static_cast<std::size_t>(hot.group)].states);
    owned.inner = state[owned.param];
    hot.inner = owned.inner.ptr();
    require_internal(fits(n, param), "a state tensor does not fit its parameter");
  }
  owned.values.clear();
  owned.aliases.clear();
  Check& check = checks_[n];
  check.count = 0;
  check.version = 0;
  for (const auto& item : py::reinterpret_borrow<py::dict>(owned.inner)) {
    owned.values.push_back(py::reinterpret_borrow<py::object>(item.second));
    if (is_tensor(item.second.ptr())) owned.aliases.push_back(memory_of(item.second).attr("detach")());
    if (check.count < kMaxKeys) check.values[check.count] = item.second.ptr();
    ++check.count;
  }
  hot.seen = param.ref.data;
  hot.device = param.ref.device;
  if (hot.device >= 0 && !info_.counts_steps) look_up_count(n);
}

// Address of a state tensor that has the parameter's device and layout and this type; null where there is none such.
void* TensorTable::fitting(std::size_t n, const TensorView& param, const py::str& key, DType dtype) const {
  PyObject* value = PyDict_GetItemWithError(hot_[n].inner, key.ptr());
  if (value == nullptr || !is_tensor(value) || !sharded_alike(n, value)) return nullptr;
  const TensorView state = view_of(memory_of(value).ptr());
  const bool laid_out = is_dense(param) ? same_layout(param, state) : is_dense(state);
  const bool fits = laid_out && state.supported && state.ref.dtype == dtype && state.ref.device == param.ref.device &&
                    state.ref.numel == param.ref.numel;
  static char empty = 0;  // tensors without elements may have no address
  return !fits ? nullptr : state.ref.data != nullptr ? state.ref.data : &empty;
}

// Reads the states' addresses; false when one does not fit.
bool TensorTable::fits(std::size_t n, const TensorView& param) {
  Hot& hot = hot_[n];
  const unsigned wanted = groups_[static_cast<std::size_t>(hot.group)].states;
  for (std::size_t i = 0; i < state_keys_.size(); ++i) {
    hot.states[i] = nullptr;
    if ((wanted >> i & 1) == 0) continue;
    hot.states[i] = fitting(n, param, state_keys_[i], state_dtype_for(param.ref.dtype));
    if (hot.states[i] == nullptr) return false;
  }
  const bool wide = param.ref.dtype == DType::kFloat64;
  hot.master = keeps_master(param.ref.dtype) ? fitting(n, param, names().master_param, DType::kFloat32) : nullptr;
  if (keeps_master(param.ref.dtype) && hot.master == nullptr) return false;
  const bool averages = options_.ema_decay >= 0;
  hot.ema = averages ? fitting(n, param, names().ema, wide ? DType::kFloat64 : DType::kFloat32) : nullptr;
  if (averages && hot.ema == nullptr) return false;
  return scalars_fit(n, param.ref.device);
}

// Reads the addresses of the 0-d states; false when one of them is not a number on this device.
bool TensorTable::scalars_fit(std::size_t n, std::int32_t device) {
  Hot& hot = hot_[n];
  hot.scalars.wide = 0;
  for (std::size_t k = info_.counts_steps ? 0 : 1; k < scalar_keys_.size(); ++k) {  // 0 may be what _count_of gave
    PyObject* value = PyDict_GetItemWithError(hot.inner, scalar_keys_[k].ptr());
    if (value == nullptr || !is_tensor(value)) return false;
    const TensorView scalar = view_of(memory_of(py::handle(value)).ptr());
    const bool wide = scalar.ref.dtype == DType::kFloat64;
    const bool floating = wide || scalar.ref.dtype == DType::kFloat32;
    if (!scalar.supported || !floating || scalar.ref.numel != 1 || scalar.ref.device != device) return false;
    hot.scalars.at[k] = scalar.ref.data;
    if (wide) hot.scalars.wide = static_cast<std::uint8_t>(hot.scalars.wide | 1u << k);
  }
  return true;
}

}  // namespace thalweg::bindings
