// See tensor_table.hpp. Every parameter is checked before the first one is written.
#include "tensor_table.hpp"

#include <algorithm>

#include "python_access.hpp"
#include "thalweg/error.hpp"
#include "thalweg/step_elements.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

// "beta1" is element 0 of the group's "betas", and so every name with a number from 1 on; others stand under their
// name.
std::pair<std::string, int> key_of(const std::string& hyper) {
  const char last = hyper.back();
  if (last < '1' || last > '9') return {hyper, -1};
  return {hyper.substr(0, hyper.size() - 1) + "s", last - '1'};
}

// Hints alone, never read for a result: what a step needs of the parameters is scattered over the heap. The third
// word of a tensor object is where torch keeps the pointer to the tensor's own structure.
constexpr std::size_t kObjectsAhead = 12;
constexpr std::size_t kContentsAhead = 6;

void prefetch_tensor(PyObject* tensor) {
  const char* contents = static_cast<const char*>(reinterpret_cast<void**>(tensor)[2]);
  __builtin_prefetch(contents);
  __builtin_prefetch(contents + 64);
  __builtin_prefetch(contents + 128);
}

}  // namespace

TensorTable::TensorTable(const std::string& optimizer, const py::object& owner, const TableOptions& options)
    : optimizer_(optimizer_index(optimizer)),
      info_(optimizers()[static_cast<std::size_t>(optimizer_)]),
      options_(options),
      owner_(owner) {
  for (const std::string& hyper : info_.hyper_names) {
    const auto [key, element] = key_of(hyper);
    hyper_keys_.push_back({intern(key.c_str()), element});
  }
  for (const std::string& name : info_.state_names) state_keys_.push_back(intern(name.c_str()));
  scalar_keys_.push_back(names().step);
  for (const std::string& name : info_.scalar_names) scalar_keys_.push_back(intern(name.c_str()));
}

py::object TensorTable::owner() const {
  py::object alive = owner_();
  if (alive.is_none()) throw py::value_error("TensorTable: its optimizer is gone");
  return alive;
}

void TensorTable::refuse(std::size_t n) const {
  std::size_t index = 0;
  while (index < n && hot_[n - index - 1].group == hot_[n].group) ++index;
  owner().attr("_explain")(hot_[n].group, index);
  throw std::logic_error("thalweg: internal error, please report it: a parameter was refused without a reason");
}

int TensorTable::step(const py::list& groups, const py::dict& state, const py::list& plans, std::int64_t schedule_step,
                      int num_threads, bool controlled, bool unscale) {
  groups_.resize(groups.size());
  plans_.clear();
  for (std::size_t i = 0; i < groups_.size(); ++i) read_group(groups[i], plans[i], groups_[i]);
  capturing_ = capturing();
  grad_write_ = options_.zero_grad ? GradWrite::kZero : unscale ? GradWrite::kUnscale : GradWrite::kKeep;
  if (!collect_gradients(groups)) {
    rebuild(groups);
    collect_gradients(groups);
  }
  if (!meshed_.empty()) localize();
  try {
    Pass pass = gather(outer_state_same(state));
    if (pass == Pass::kStatesChanged) {
      look_up_states(state);
      pass = gather(true);
    }
    require_internal(pass == Pass::kDone, "the optimizer's state changes while it is read");
    read_controls(controlled);
    if (!update_host(num_threads, control_, schedule_step)) {
      forget_new_states();
      return kSkipped;
    }
    update_devices();
  } catch (...) {  // a tensor that cannot be stepped, a missing device, no memory there: as if nothing had been asked
    forget_new_states();
    throw;
  }
  if (!capturing_) write_next_rates(groups, schedule_step + 1);
  finish();
  return capturing_ ? kCaptured : kDone;
}

void TensorTable::rebuild(const py::list& groups) {
  hot_.clear();
  devices_.clear();
  owned_.clear();
  outer_.clear();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (const py::handle param : py::reinterpret_borrow<py::list>(item_of(groups[g].ptr(), names().params))) {
      Hot hot;
      hot.param = hot.memory = param.ptr();
      hot.group = static_cast<std::int32_t>(g);
      hot_.push_back(hot);
      owned_.push_back({py::reinterpret_borrow<py::object>(param), {}, hold_accumulator(param), {}, {}, {}});
    }
  }
  checks_.assign(hot_.size(), Check{});
  listed_.clear();
  find_meshed();
}

void TensorTable::read_group(const py::dict& group, const py::handle& plans, Group& out) {
  std::fill(std::begin(out.plans), std::end(out.plans), nullptr);
  for (const py::handle pair : py::reinterpret_borrow<py::list>(plans)) {
    const auto [index, plan] = pair.cast<std::pair<int, py::object>>();
    out.plans[index < 0 ? kLrPlan : index] = &plan.cast<const Plan&>();
    plans_.push_back(plan);
  }
  PyObject* lr = item_of(group.ptr(), names().lr);
  out.lr_object = nullptr;
  if (!PyFloat_CheckExact(lr) && is_tensor(lr)) {
    out.lr_tensor = view_of(lr).ref;
    if (out.lr_tensor.device >= 0) out.lr_object = lr;
  }
  if (out.lr_object == nullptr) out.lr = as_double(lr);
  for (std::size_t i = 0; i < hyper_keys_.size(); ++i) {
    PyObject* value = item_of(group.ptr(), hyper_keys_[i].key);
    if (hyper_keys_[i].element < 0) {
      out.hyper[i] = as_double(value);
    } else {
      if (!PyTuple_Check(value) && !PyList_Check(value))
        throw py::type_error(
            message("param_groups: '", std::string(hyper_keys_[i].key), "' must be a tuple of numbers"));
      const py::object element = py::reinterpret_steal<py::object>(PySequence_GetItem(value, hyper_keys_[i].element));
      if (!element) throw py::error_already_set();
      out.hyper[i] = as_double(element.ptr());
    }
  }
  // A schedule may pass through zero; the loop body stays that of a hyper-parameter which is used.
  double used[kMaxHyper];
  for (int i = 0; i < kMaxHyper; ++i) used[i] = out.plans[i] != nullptr ? 0.5 : out.hyper[i];
  out.variant = variant_of(optimizer_, used);
  out.states = info_.variants[static_cast<std::size_t>(out.variant)];
}

// Reads every parameter's gradient object; false when the param groups hold other parameters than the table.
bool TensorTable::collect_gradients(const py::list& groups) {
  grads_.clear();
  std::size_t n = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    PyObject* params = item_of(groups[g].ptr(), names().params);
    if (!PyList_Check(params)) throw py::type_error("param_groups: 'params' must be a list of tensors");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(params); ++i, ++n) {
      if (n >= hot_.size() || hot_[n].param != PyList_GET_ITEM(params, i) ||
          hot_[n].group != static_cast<std::int32_t>(g))
        return false;
      if (n + kObjectsAhead < hot_.size()) {
        __builtin_prefetch(hot_[n + kObjectsAhead].param);
        __builtin_prefetch(hot_[n + kObjectsAhead].inner);
        prefetch_tensor(hot_[n + kContentsAhead].param);
      }
      grads_.push_back(grad_of(hot_[n].param, hot_[n].memory != hot_[n].param));
    }
  }
  return n == hot_.size();
}

// The pass: checks tensors and compares what is cached, fills items_. Writes nothing that belongs to the user.
TensorTable::Pass TensorTable::gather(bool states_known) {
  items_.clear();
  active_.clear();
  scalars_.clear();
  prepared_.clear();
  scalars_of_.clear();
  substitutes_.clear();
  kept_.clear();
  for (Device& device : devices_) device.items.clear(), device.groups.clear(), device.group_of.clear();
  bool same = states_known;
  for (std::size_t n = 0; n < hot_.size(); ++n) {
    Hot& hot = hot_[n];
    if (n + kContentsAhead < hot_.size()) prefetch_tensor(grads_[n + kContentsAhead].ptr());
    if (grads_[n].is_none()) {
      if (capturing_ && py::bool_(owned_[n].param.attr("requires_grad"))) refuse(n);
      continue;
    }
    TensorView p, d;
    try {
      d = view_of(grads_[n].ptr());
      p = view_of(hot.memory);
    } catch (const py::error_already_set&) {  // sparse, meta and other tensors without plain memory
      refuse(n);
    }
    if (!p.supported || !d.supported || p.ref.device != d.ref.device || p.ref.numel != d.ref.numel ||
        (capturing_ && p.ref.device < 0))
      refuse(n);
    hot.device = p.ref.device;
    if (!same && hot.device >= 0) device_of(n);  // before states are made: a capture on a new device is refused here
    if (same && keeps_state(n))
      same = hot.inner != nullptr && hot.seen == p.ref.data && checks_[n].count >= 0 && inner_state_same(n);
    if (same) add_item(n, p, d);
  }
  if (same && !active_.empty()) {
    // A state tensor whose .data was swapped keeps its identity: one parameter per step has its addresses read anew.
    const std::size_t sample = active_[recheck_++ % active_.size()];
    const Hot before = hot_[sample];
    if (keeps_state(sample) && (!fits(sample, view_of(before.memory)) ||
                                !std::equal(std::begin(before.states), std::end(before.states), hot_[sample].states)))
      same = false;
  }
  return same ? Pass::kDone : Pass::kStatesChanged;
}

void TensorTable::add_item(std::size_t n, const TensorView& param, const TensorView& grad) {
  const Hot& hot = hot_[n];
  StepItem item;
  item.param = param.ref.data;
  item.grad = grad.ref.data;
  item.numel = param.ref.numel;
  item.dtype = param.ref.dtype;
  item.grad_dtype = grad.ref.dtype;
  item.state_dtype = state_dtype_for(param.ref.dtype);
  item.ema_dtype = param.ref.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  item.master = hot.master;
  item.ema = hot.ema;
  item.place = static_cast<std::uint32_t>(n) + hot.shard;
  item.norm_class = hot.norm_class;
  item.mesh_slot = hot.norm_class == 0 ? -1 : hot.mesh_slot;
  item.grad_write = grad_write_;
  item.stochastic = options_.stochastic_rounding && param.ref.dtype == DType::kBFloat16 && hot.master == nullptr;
  item.variant = static_cast<std::int16_t>(groups_[static_cast<std::size_t>(hot.group)].variant);
  std::copy(std::begin(hot.states), std::end(hot.states), std::begin(item.states));
  if (!same_layout(param, grad) || !is_dense(param)) {
    const py::tuple pair = owner().attr("_dense_pair")(py::reinterpret_borrow<py::object>(hot.param));
    item.param = view_of(pair[0].ptr()).ref.data;
    item.grad = view_of(pair[1].ptr()).ref.data;
    substitutes_.push_back(py::make_tuple(owned_[n].param, pair[0], pair[1]));
  }
  active_.push_back(n);
  if (hot.device >= 0) {
    scalars_of_.push_back(-1);
    return add_cuda_item(n, item);
  }
  item.scalars = scalars_index(hot);
  scalars_of_.push_back(item.scalars);
  items_.push_back(item);
}

// Parameters of one group normally share their step count, so the last one found is tried first.
std::int32_t TensorTable::scalars_index(const Hot& hot) {
  Prepared wanted{hot.group, hot.first ? 1.0 : 2.0, {}, {}};  // without a counter only the first step is told apart
  if (info_.counts_steps) wanted.step = 1 + read_scalar(hot.scalars.at[0], (hot.scalars.wide & 1) != 0);
  for (std::size_t k = 1; k < scalar_keys_.size(); ++k)
    wanted.before[k - 1] = read_scalar(hot.scalars.at[k], (hot.scalars.wide >> k & 1) != 0);
  for (std::size_t i = prepared_.size(); i-- > 0;)
    if (prepared_[i].group == wanted.group && prepared_[i].step == wanted.step &&
        std::equal(std::begin(wanted.before), std::end(wanted.before), std::begin(prepared_[i].before)))
      return static_cast<std::int32_t>(i);
  Group& options = groups_[static_cast<std::size_t>(hot.group)];
  if (options.lr_object != nullptr) options.lr = as_double(options.lr_object);  // waits for its device
  std::copy(std::begin(wanted.before), std::end(wanted.before), std::begin(wanted.after));
  scalars_.emplace_back();
  prepare(optimizer_, options.hyper, options.lr, wanted.step, wanted.after, &scalars_.back());
  prepared_.push_back(wanted);
  const AverageWeights average = average_weights(options_.ema_decay, wanted.step == 1);
  scalars_.back().ema_keep = average.keep;
  scalars_.back().ema_take = average.take;
  return static_cast<std::int32_t>(scalars_.size() - 1);
}

}  // namespace thalweg::bindings
