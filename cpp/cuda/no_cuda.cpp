// Stands in for the CUDA side when it is not built: every entry point answers "not available".
#include "thalweg/error.hpp"
#include "thalweg/info.hpp"
#include "thalweg/schedule.hpp"
#include "thalweg/step.hpp"

namespace thalweg {

CudaInfo cuda_info() {
  CudaInfo info;
  info.detail = "built without CUDA";
  return info;
}

namespace {

[[noreturn]] void refuse() {
  throw CudaError(
      "thalweg: the tensors are on a CUDA device, but this thalweg was built without CUDA. Reinstall it with nvcc on "
      "PATH (THALWEG_CUDA=ON makes that a must), or move the model with model.cpu()");
}

}  // namespace

struct CudaStep::Impl {};

CudaStep::CudaStep(int, int) { refuse(); }
CudaStep::~CudaStep() = default;
void CudaStep::step(const CudaStepItem*, std::size_t, const StepGroup*, std::size_t, const StepControl&, std::int64_t*,
                    void*) {}
void step_cuda(int, int, const StepItem*, std::size_t, const StepScalars*, const StepVerdict&, void*) { refuse(); }
bool cuda_is_capturing(int, void*) { return false; }

void fill_values_cuda(const std::uint64_t*, std::int64_t, const std::int64_t*, std::int64_t, double*, int, void*) {
  refuse();
}

}  // namespace thalweg
