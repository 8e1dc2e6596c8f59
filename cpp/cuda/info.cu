// CUDA side of info.hpp: the static runtime asks the driver, if there is one.
#include "runtime.cuh"
#include "thalweg/info.hpp"

namespace thalweg {

CudaInfo cuda_info() {
  CudaInfo info;
  info.compiled = true;
  cudaRuntimeGetVersion(&info.runtime_version);
  cudaDriverGetVersion(&info.driver_version);
  const cudaError_t status = cudaGetDeviceCount(&info.device_count);
  if (status != cudaSuccess) {
    info.device_count = 0;
    info.detail = cudaGetErrorString(status);
    cudaGetLastError();  // clears the sticky-free error so that it does not surface in somebody else's call
  }
  return info;
}

namespace cuda {
namespace {

__global__ void probe_kernel() {}

std::string version_text(int version) { return message(version / 1000, ".", version % 1000 / 10); }

}  // namespace

void require_device(int device) {
  const CudaInfo info = cuda_info();
  if (info.device_count == 0)
    throw CudaError(message("thalweg: no usable CUDA device (", info.detail, "): built with CUDA ",
                            version_text(info.runtime_version), ", the driver supports ",
                            version_text(info.driver_version),
                            ". Update the driver, or reinstall thalweg with an nvcc that the driver supports"));
  if (device >= info.device_count)
    throw CudaError(message("thalweg: CUDA device ", device, " does not exist, there are ", info.device_count));
  const DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, probe_kernel) == cudaSuccess) return;
  cudaGetLastError();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "asking for the device's properties");
  throw CudaError(message("thalweg: this build has no kernels for ", properties.name, " (compute capability ",
                          properties.major, ".", properties.minor, "). Reinstall it with CUDAARCHS=", properties.major,
                          properties.minor, " or without CUDAARCHS"));
}

}  // namespace cuda
}  // namespace thalweg
