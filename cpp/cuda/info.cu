// CUDA side of info.hpp: the static runtime asks the driver, if there is one.
#include <cuda_runtime.h>

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

}  // namespace thalweg
