// The border to torch: the only C++ that knows torch tensors exist. Tensors are read through the C function pointers
// of torch.Tensor.__dlpack_c_exchange_api__ (about 30 ns each); nothing of torch is included or linked.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "thalweg/tensor.hpp"

namespace thalweg::bindings {

// ---- the few structs of the DLPack ABI (>= 1.2) that we read, declared by us; sizes asserted in torch_border.cpp ----
struct DlDevice {
  std::int32_t type;  // 1 CPU, 2 CUDA
  std::int32_t id;
};
struct DlDataType {
  std::uint8_t code;  // 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  std::int32_t ndim;
  DlDataType dtype;
  std::int64_t* shape;    // [ndim]; lives as long as the Python tensor
  std::int64_t* strides;  // [ndim], in elements
  std::uint64_t byte_offset;
};

// What a tensor looks like right now. shape and strides belong to the Python tensor.
struct TensorView {
  TensorRef ref;
  std::int32_t ndim = 0;
  const std::int64_t* shape = nullptr;
  const std::int64_t* strides = nullptr;
  bool supported = false;  // a strided tensor on CPU or CUDA with a floating type that DType names
};

// Finds the exchange API of the torch in this process; called once at import. Without it (a torch that lacks the
// attribute) views are taken through the tensor's Python attributes, slower and with the same result.
void bind_torch_border(pybind11::module_& module);

// Throws python errors as pybind11::error_already_set. `tensor` must be a torch.Tensor.
TensorView view_of(PyObject* tensor);

// Address of a one-element tensor of this type on this device (-1: host), or null for None; ValueError otherwise.
void* scalar_address(const pybind11::handle& tensor, DType dtype, std::int32_t device, const char* what);

// torch's current stream of CUDA device `device`, as the core's drivers take it.
void* current_stream(std::int32_t device);

// True when the elements fill numel consecutive places in some order of the dimensions (channels-last included).
bool is_dense(const TensorView& view);

// True when both have the same shape and strides, size-1 dimensions aside.
bool same_layout(const TensorView& a, const TensorView& b);

}  // namespace thalweg::bindings
