// Stands in for the CUDA side when it is not built: every entry point answers "not available".
#include "thalweg/error.hpp"
#include "thalweg/info.hpp"
#include "thalweg/landscape.hpp"
#include "thalweg/metrics.hpp"
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
                    void*, const MeshSums&) {}
void step_cuda(int, int, const StepItem*, std::size_t, const StepScalars*, const StepVerdict&, void*) { refuse(); }
bool cuda_is_capturing(int, void*) { return false; }

void fill_values_cuda(const std::uint64_t*, std::int64_t, const std::int64_t*, std::int64_t, double*, int, void*) {
  refuse();
}

// ---- landscapes and metrics ----

struct CudaPerturbation::Impl {};

CudaPerturbation::CudaPerturbation(int, const PerturbItem*, std::size_t) { refuse(); }
CudaPerturbation::~CudaPerturbation() = default;
void CudaPerturbation::perturb(const double*, void*) const {}
void CudaPerturbation::lerp(double, void*) const {}
void CudaPerturbation::perturb_at(const double*, std::int64_t, const std::int64_t*, void*) const {}
void CudaPerturbation::lerp_at(const double*, std::int64_t, const std::int64_t*, void*) const {}

void fill_drawn_cuda(int, void*, DType, std::int64_t, const Draw&, const void*, DType, void*) { refuse(); }

struct CudaReducer::Impl {};

CudaReducer::CudaReducer(int) { refuse(); }
CudaReducer::~CudaReducer() = default;
void CudaReducer::sum(const void*, std::int64_t, DType, const Cells&, void*) {}
void CudaReducer::sum_and_squares(const void*, std::int64_t, DType, const Cells&, void*) {}
void CudaReducer::squared_error(const void*, const void*, std::int64_t, DType, const Cells&, void*) {}
void CudaReducer::cross_entropy(const void*, const std::int64_t*, std::int64_t, std::int64_t, DType, const Cells&,
                                void*) {}
void CudaReducer::count_correct(const void*, const std::int64_t*, std::int64_t, std::int64_t, std::int64_t, DType,
                                const Cells&, void*) {}
void CudaReducer::row_squares(const void*, std::int64_t, std::int64_t, DType, const Cells&, void*) {}
void CudaReducer::dots(const Pair*, std::size_t, const Cells&, void*) {}

void accumulate_cuda(int, const void*, DType, const Cells&, void*) { refuse(); }
void accumulate_cuda(int, double, const Cells&, void*) { refuse(); }
void advance_cuda(int, std::int64_t*, void*) { refuse(); }

}  // namespace thalweg
