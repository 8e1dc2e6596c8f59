// Stands in for the CUDA side when it is not built: every entry point answers "not available".
#include "thalweg/info.hpp"

namespace thalweg {

CudaInfo cuda_info() {
  CudaInfo info;
  info.detail = "built without CUDA";
  return info;
}

}  // namespace thalweg
