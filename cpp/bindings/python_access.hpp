// Short ways to what the TensorTable reads of Python objects: interned names, numbers, dict items, gradients.
#pragma once

#include <pybind11/pybind11.h>

namespace thalweg::bindings {

inline pybind11::str intern(const char* text) {
  return pybind11::reinterpret_steal<pybind11::str>(PyUnicode_InternFromString(text));
}

inline double as_double(PyObject* value) {
  if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
  if (value == Py_None || value == Py_False) return 0.0;
  if (value == Py_True) return 1.0;
  const pybind11::object number = pybind11::reinterpret_steal<pybind11::object>(PyNumber_Float(value));
  if (!number) throw pybind11::error_already_set();
  return PyFloat_AS_DOUBLE(number.ptr());
}

inline PyObject* item_of(PyObject* dict, const pybind11::str& key) {  // borrowed; throws KeyError
  PyObject* value = PyDict_GetItemWithError(dict, key.ptr());
  if (value == nullptr) {
    if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, key.ptr());
    throw pybind11::error_already_set();
  }
  return value;
}

// A 0-d state, which is float64 or float32.
inline double read_scalar(const void* at, bool wide) {
  return wide ? *static_cast<const double*>(at) : static_cast<double>(*static_cast<const float*>(at));
}
inline void write_scalar(void* at, bool wide, double value) {
  if (wide) {
    *static_cast<double*>(at) = value;
  } else {
    *static_cast<float*>(at) = static_cast<float>(value);
  }
}

// Interned names and torch's functions, looked up once and kept for the life of the process.
struct Names {
  pybind11::str ema = intern("ema");
  pybind11::str grad = intern("grad");
  pybind11::str lr = intern("lr");
  pybind11::str master_param = intern("master_param");
  pybind11::str params = intern("params");
  pybind11::str step = intern("step");
  pybind11::module_ torch = pybind11::module_::import("torch");
  pybind11::object increment_version = torch.attr("_C").attr("_increment_version");
  pybind11::object tensor = torch.attr("Tensor");
  pybind11::object parameter = torch.attr("nn").attr("Parameter");
  pybind11::object gradient_edge = pybind11::module_::import("torch.autograd.graph").attr("get_gradient_edge");
  pybind11::object grad_descriptor = torch.attr("Tensor").attr("grad");
};
inline const Names& names() {
  static const Names* const kNames = new Names();  // never destroyed: Python may be gone at exit
  return *kNames;
}

// param.grad; plain tensors, Parameters and DTensors skip the search through their classes.
inline pybind11::object grad_of(PyObject* param, bool is_dtensor) {
  const Names& known = names();
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(param));
  const bool plain = is_dtensor || type == known.parameter.ptr() || type == known.tensor.ptr();
  PyObject* descriptor = known.grad_descriptor.ptr();
  const descrgetfunc get = Py_TYPE(descriptor)->tp_descr_get;
  pybind11::object grad = pybind11::reinterpret_steal<pybind11::object>(
      plain && get != nullptr ? get(descriptor, param, type) : PyObject_GetAttr(param, known.grad.ptr()));
  if (!grad) throw pybind11::error_already_set();
  return grad;
}

// Inside torch.inference_mode() autograd makes no nodes.
inline bool in_inference_mode() { return names().torch.attr("is_inference_mode_enabled")().cast<bool>(); }

// The parameter's AccumulateGrad node, kept alive, or None. The node holds a C++ reference to its parameter: with that
// second reference torch no longer counts the Python object up and down (under the GIL's lock) at every call that takes
// the tensor, which makes reading its address and raising its version counter 20 to 35 ns cheaper each. Only for host
// leaves: on a CUDA device the node would also pin the stream that it was made on.
inline pybind11::object hold_accumulator(const pybind11::handle& param) {
  const bool leaf = pybind11::bool_(param.attr("requires_grad")) && pybind11::bool_(param.attr("is_leaf")) &&
                    pybind11::str(param.attr("device").attr("type")).equal(pybind11::str("cpu"));
  const bool plain =
      pybind11::type::handle_of(param).is(names().parameter) || pybind11::type::handle_of(param).is(names().tensor);
  if (!leaf || !plain || in_inference_mode()) return pybind11::none();
  return names().gradient_edge(param).attr("node");
}

inline bool is_tensor(PyObject* value) { return PyObject_IsInstance(value, names().tensor.ptr()) == 1; }

}  // namespace thalweg::bindings
