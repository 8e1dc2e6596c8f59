// thalweg._core.RateWriter: the usual step of a torch-named scheduler in one call. Moves Python objects; the values are
// the plans'.
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "bindings.hpp"
#include "plan.hpp"
#include "python_access.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

PyObject* find(PyObject* dict, const py::str& key) {  // borrowed; nullptr where it is missing
  PyObject* value = PyDict_GetItemWithError(dict, key.ptr());
  if (value == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

void put(PyObject* dict, const py::str& key, const py::object& value) {
  if (PyDict_SetItem(dict, key.ptr(), value.ptr()) != 0) throw py::error_already_set();
}

py::object number(PyObject* made) {
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

// What an attribute was, with the items of a list or dict: the same objects again mean that nothing changed.
class Seen {
 public:
  explicit Seen(PyObject* value) : value_(py::reinterpret_borrow<py::object>(value)) {
    visit(value, [this](PyObject* item) {
      items_.push_back(py::reinterpret_borrow<py::object>(item));
      return true;
    });
  }
  bool again(PyObject* value) const {
    if (value != value_.ptr()) return false;
    std::size_t at = 0;
    const bool same = visit(value, [&](PyObject* item) { return at < items_.size() && items_[at++].ptr() == item; });
    return same && at == items_.size();
  }

 private:
  template <class Each>
  static bool visit(PyObject* value, const Each& each) {
    if (value != nullptr && PyList_Check(value)) {
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i)
        if (!each(PyList_GET_ITEM(value, i))) return false;
    } else if (value != nullptr && PyDict_Check(value)) {
      PyObject* key = nullptr;
      PyObject* item = nullptr;
      for (Py_ssize_t at = 0; PyDict_Next(value, &at, &key, &item);)
        if (!each(key) || !each(item)) return false;
    }
    return true;
  }
  py::object value_;
  std::vector<py::object> items_;
};

// One value per group: distinct plans, and which of them each group has.
struct Curves {
  std::vector<Plan> plans;
  std::vector<std::size_t> place;

  Curves(std::vector<Plan> distinct, std::vector<std::size_t> of_group)
      : plans(std::move(distinct)), place(std::move(of_group)) {
    for (const std::size_t which : place)
      if (which >= plans.size()) throw py::value_error("RateWriter: a group has no plan");
  }
  std::vector<py::object> values(std::int64_t step) const {
    std::vector<py::object> found;
    for (const Plan& plan : plans) found.push_back(number(PyFloat_FromDouble(plan.value_at(step))));
    return found;
  }
  py::list list(std::int64_t step) const {
    const std::vector<py::object> found = values(step);
    py::list out(place.size());
    for (std::size_t i = 0; i < place.size(); ++i) out[i] = found[place[i]];
    return out;
  }
};

class RateWriter {
 public:
  RateWriter(const py::dict& own, std::vector<py::str> names, std::vector<py::str> group_names, Curves rates,
             Curves momenta, py::str momentum_key, std::int64_t last, bool counts)
      : names_(std::move(names)),
        group_names_(std::move(group_names)),
        rates_(std::move(rates)),
        momenta_(std::move(momenta)),
        momentum_key_(std::move(momentum_key)),
        last_(last),
        counts_(counts) {
    for (const py::str& name : names_) seen_.emplace_back(find(own.ptr(), name));
    const py::list groups = groups_of(own.ptr());
    for (const py::handle group : groups)
      for (const py::str& name : group_names_) group_seen_.emplace_back(find(group.ptr(), name));
  }

  bool matches(const py::dict& own) const { return matches(own.ptr(), groups_of(own.ptr())); }

  void leave(const py::list& rates) {
    left_.clear();
    for (const py::handle rate : rates) left_.push_back(py::reinterpret_borrow<py::object>(rate));
  }

  bool advance(const py::dict& scheduler) {
    PyObject* own = scheduler.ptr();
    if (left_.empty() || left_.size() != rates_.place.size()) return false;
    PyObject* epoch = item_of(own, key_.last_epoch);
    PyObject* count = item_of(own, key_.step_count);
    if (!PyLong_CheckExact(epoch) || !PyLong_CheckExact(count)) return false;
    const std::int64_t step = PyLong_AsLongLong(epoch) + 1;
    const std::int64_t calls = PyLong_AsLongLong(count);
    if (PyErr_Occurred()) throw py::error_already_set();
    if (step < 1 || step > last_ || (counts_ && calls < 2)) return false;
    const py::list groups = groups_of(own);
    if (groups.size() != left_.size() || !matches(own, groups)) return false;
    const py::str& lr = bindings::names().lr;
    for (std::size_t i = 0; i < left_.size(); ++i) {
      PyObject* group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i));
      if (!PyDict_CheckExact(group) || find(group, lr) != left_[i].ptr()) return false;
    }
    const std::vector<py::object> found = rates_.values(step);
    py::list rates(left_.size());
    for (std::size_t i = 0; i < left_.size(); ++i) {
      const py::object& value = found[rates_.place[i]];
      put(PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i)), lr, value);
      left_[i] = value;
      rates[i] = value;
    }
    write_momenta(groups, step);
    put(own, key_.last_lr, rates);
    put(own, key_.last_epoch, number(PyLong_FromLongLong(step)));
    if (counts_) put(own, key_.step_count, number(PyLong_FromLongLong(calls + 1)));
    return true;
  }

  void write_momenta(const py::list& groups, std::int64_t step) const {
    if (momenta_.place.empty()) return;
    if (momenta_.place.size() != groups.size()) throw py::value_error("RateWriter: the number of groups has changed");
    const std::vector<py::object> found = momenta_.values(step);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      PyObject* group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i));
      const py::object& value = found[momenta_.place[i]];
      const py::object old = py::reinterpret_borrow<py::object>(item_of(group, momentum_key_));
      if (!PyTuple_Check(old.ptr()) && !PyList_Check(old.ptr())) {
        put(group, momentum_key_, value);
        continue;
      }
      const py::tuple betas(old);  // a tuple is immutable and may be shared
      py::tuple moved(betas.size());
      for (std::size_t j = 0; j < betas.size(); ++j) moved[j] = j == 0 ? value : py::object(betas[j]);
      put(group, momentum_key_, moved);
    }
  }

  py::list values(std::int64_t step) const { return rates_.list(step); }

  py::tuple cycle_at(std::int64_t step) const {
    if (rates_.plans.empty()) throw py::value_error("RateWriter: no groups, no cycles");
    const Cycle cycle = thalweg::cycle_at(rates_.plans.front().words.data(), step);
    return py::make_tuple(cycle.index, cycle.position, cycle.length);
  }

 private:
  static py::list groups_of(PyObject* own) {
    static const py::str* const kOptimizer = new py::str(intern("optimizer"));  // never destroyed
    static const py::str* const kGroups = new py::str(intern("param_groups"));
    return number(PyObject_GetAttr(item_of(own, *kOptimizer), kGroups->ptr()));
  }
  bool matches(PyObject* own, const py::list& groups) const {
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (!seen_[i].again(find(own, names_[i]))) return false;
    if (group_names_.empty()) return true;
    if (groups.size() * group_names_.size() != group_seen_.size()) return false;
    for (std::size_t i = 0; i < group_seen_.size(); ++i) {
      PyObject* group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i / group_names_.size()));
      if (!PyDict_Check(group) || !group_seen_[i].again(find(group, group_names_[i % group_names_.size()])))
        return false;
    }
    return true;
  }

  struct Keys {
    py::str last_epoch = intern("last_epoch");
    py::str last_lr = intern("_last_lr");
    py::str step_count = intern("_step_count");
  };
  Keys key_;
  std::vector<py::str> names_;
  std::vector<py::str> group_names_;
  std::vector<Seen> seen_;
  std::vector<Seen> group_seen_;
  Curves rates_;
  Curves momenta_;
  py::str momentum_key_;
  std::int64_t last_;
  bool counts_;
  std::vector<py::object> left_;
};

Curves curves_of(const py::list& plans, std::vector<std::size_t> place) {
  std::vector<Plan> distinct;
  for (const py::handle plan : plans) distinct.push_back(plan.cast<Plan>());
  return {std::move(distinct), std::move(place)};
}

}  // namespace

void bind_rates(py::module_& module) {
  py::class_<RateWriter>(module, "RateWriter", "Writes the values of plans into the param groups of an optimizer.")
      .def(py::init([](const py::dict& own, std::vector<py::str> names, std::vector<py::str> group_names,
                       const py::list& plans, std::vector<std::size_t> place, const py::list& momenta,
                       std::vector<std::size_t> momentum_place, const std::string& momentum_key, std::int64_t last,
                       bool counts) {
             return RateWriter(own, std::move(names), std::move(group_names), curves_of(plans, std::move(place)),
                               curves_of(momenta, std::move(momentum_place)), intern(momentum_key.c_str()), last,
                               counts);
           }),
           py::arg("own"), py::arg("names"), py::arg("group_names"), py::arg("plans"), py::arg("place"),
           py::arg("momenta"), py::arg("momentum_place"), py::arg("momentum_key"), py::arg("last"), py::arg("counts"))
      .def("matches", py::overload_cast<const py::dict&>(&RateWriter::matches, py::const_), py::arg("own"),
           "Whether the attributes that the plans came from are the same objects still.")
      .def("leave", &RateWriter::leave, py::arg("rates"), "The numbers that were left in the groups; empty: others.")
      .def("advance", &RateWriter::advance, py::arg("own"),
           "The next step, if nothing else was written; False: nothing was done.")
      .def("values", &RateWriter::values, py::arg("step"), "One rate per group.")
      .def("cycle_at", &RateWriter::cycle_at, py::arg("step"), "(index, position, length) in the first group's plan.")
      .def("write_momenta", &RateWriter::write_momenta, py::arg("groups"), py::arg("step"),
           "Write the momenta of a step, where there are any.");
}

}  // namespace thalweg::bindings
