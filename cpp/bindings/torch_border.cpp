// See torch_border.hpp.
#include "torch_border.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <vector>

#include "thalweg/error.hpp"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

struct DlVersion {
  std::uint32_t major;
  std::uint32_t minor;
};
struct DlExchangeHeader {
  DlVersion version;
  DlExchangeHeader* previous;
};
struct DlExchangeApi {
  DlExchangeHeader header;
  void* allocator;
  void* managed_from_py_object;
  void* managed_to_py_object;
  int (*tensor_from_py_object)(void* py_object, DlTensor* out);  // 0, or -1 with a Python error set
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

static_assert(sizeof(DlTensor) == 48 && offsetof(DlTensor, shape) == 24, "DLPack 1.x DLTensor");
static_assert(sizeof(DlExchangeApi) == 16 + 5 * sizeof(void*), "DLPack 1.2 DLPackExchangeAPI");

constexpr std::uint32_t kDlpackMajor = 1;
constexpr std::int32_t kDlCpu = 1;
#ifndef THALWEG_DLPACK_CUDA
#define THALWEG_DLPACK_CUDA 2  // DLPack's number of a CUDA device; the emulated build (tests/emulation) names the host
#endif
constexpr std::int32_t kDlCuda = THALWEG_DLPACK_CUDA;

// Set once at import and never changed: the exchange API of the torch in this process, or null.
const DlExchangeApi* exchange_api = nullptr;

const DlExchangeApi* find_exchange_api() {
  const py::object tensor_class = py::module_::import("torch").attr("Tensor");
  if (!py::hasattr(tensor_class, "__dlpack_c_exchange_api__")) return nullptr;
  const py::object capsule = tensor_class.attr("__dlpack_c_exchange_api__");
  auto* header = static_cast<DlExchangeHeader*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (header == nullptr) throw py::error_already_set();
  while (header != nullptr && header->version.major != kDlpackMajor) header = header->previous;
  const auto* api = reinterpret_cast<const DlExchangeApi*>(header);
  return api != nullptr && api->tensor_from_py_object != nullptr ? api : nullptr;
}

bool dtype_of(DlDataType type, DType* out) {
  constexpr std::uint8_t kFloat = 2;
  constexpr std::uint8_t kBfloat = 4;
  if (type.lanes != 1) return false;
  if (type.code == kBfloat && type.bits == 16) return *out = DType::kBFloat16, true;
  if (type.code != kFloat) return false;
  if (type.bits == 64) return *out = DType::kFloat64, true;
  if (type.bits == 32) return *out = DType::kFloat32, true;
  if (type.bits == 16) return *out = DType::kFloat16, true;
  return false;
}

std::int64_t numel_of(std::int32_t ndim, const std::int64_t* shape) {
  std::int64_t numel = 1;
  for (std::int32_t d = 0; d < ndim; ++d) numel *= shape[d];
  return numel;
}

}  // namespace

TensorView view_of(PyObject* tensor) {
  DlTensor dl;
  if (exchange_api->tensor_from_py_object(tensor, &dl) != 0) throw py::error_already_set();
  TensorView view;
  view.ref.numel = numel_of(dl.ndim, dl.shape);
  const bool has_memory = dl.data != nullptr || view.ref.numel == 0;  // a FakeTensor has none
  view.supported =
      has_memory && dtype_of(dl.dtype, &view.ref.dtype) && (dl.device.type == kDlCpu || dl.device.type == kDlCuda);
  view.ref.data = static_cast<char*>(dl.data) + dl.byte_offset;
  view.ref.device = dl.device.type == kDlCuda ? std::max(dl.device.id, 0) : -1;
  view.ndim = dl.ndim;
  view.shape = dl.shape;
  view.strides = dl.strides;
  return view;
}

void* scalar_address(const py::handle& tensor, DType dtype, std::int32_t device, const char* what) {
  if (tensor.is_none()) return nullptr;
  const TensorRef ref = view_of(tensor.ptr()).ref;
  if (ref.numel != 1 || ref.dtype != dtype || ref.device != device)
    throw py::value_error(message(what, ": expected one ", name_of(dtype), " on the device of the parameters"));
  return ref.data;
}

void* current_stream(std::int32_t device) {
  void* stream = nullptr;
  if (exchange_api->current_work_stream(kDlCuda, device, &stream) != 0) throw py::error_already_set();
  return stream;
}

bool is_dense(const TensorView& view) {
  if (view.ref.numel <= 1) return true;
  std::int64_t expected = 1;
  std::int32_t d = view.ndim;
  while (d > 0 && (view.shape[d - 1] == 1 || view.strides[d - 1] == expected)) expected *= view.shape[--d];
  if (d == 0) return true;  // row-major, the usual case
  std::vector<std::int32_t> order(static_cast<std::size_t>(view.ndim));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](std::int32_t a, std::int32_t b) { return view.strides[a] < view.strides[b]; });
  expected = 1;
  for (const std::int32_t dim : order) {
    if (view.shape[dim] == 1) continue;
    if (view.strides[dim] != expected) return false;
    expected *= view.shape[dim];
  }
  return true;
}

bool same_layout(const TensorView& a, const TensorView& b) {
  if (a.ndim != b.ndim) return false;
  for (std::int32_t d = 0; d < a.ndim; ++d) {
    if (a.shape[d] != b.shape[d]) return false;
    if (a.shape[d] != 1 && a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

void bind_torch_border(py::module_& module) {
  exchange_api = find_exchange_api();
  if (exchange_api == nullptr)
    throw py::import_error("thalweg: this torch has no torch.Tensor.__dlpack_c_exchange_api__; install torch >= 2.10");
  module.def(
      "tensor_view",
      [](py::handle tensor) {
        const TensorView view = view_of(tensor.ptr());
        return py::make_tuple(reinterpret_cast<std::uintptr_t>(view.ref.data), view.ref.numel, name_of(view.ref.dtype),
                              view.ref.device, is_dense(view), view.supported);
      },
      py::arg("tensor"), "(address, numel, dtype, CUDA ordinal or -1, dense, supported) of a tensor.");
}

}  // namespace thalweg::bindings
