// The CUDA driver of the optimizer steps: keeps the tables on the device and makes the launches.
//
// Eager steps share one table; what changed in it is copied through pinned memory, on the stream of the step. A
// captured step gets a table of its own, filled at once on a private stream and never written or freed again: the graph
// may be replayed at any time.
#include <cstring>
#include <utility>
#include <vector>

#include "runtime.cuh"
#include "step_image.hpp"
#include "step_tables.cuh"
#include "thalweg/step.hpp"
#include "upload.cuh"

namespace thalweg {

struct CudaStep::Impl {
  int optimizer = 0;
  int device = 0;
  cuda::StepImage image;
  cuda::DeviceBuffer buffer;  // the eager table
  cuda::PinnedRing ring;

  void run(const cuda::StepTable& table, const StepControl& control, void* stream) const {
    if (control.needs_norm) cuda::launch_norm(table, stream);
    cuda::launch_tick(optimizer, table, control, stream);
    cuda::launch_update(optimizer, table, stream);
  }

  // Whatever fails leaves an image that fits nothing: the next step begins anew.
  void renew_table(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count,
                   void* stream) {
    cuda::StepImage known = std::exchange(image, {});
    const cuda::StepLayout& layout = known.layout();
    if (!known.fits(items, count, groups, group_count)) {
      known.build(items, count, groups, group_count);
      buffer.reserve(layout.bytes);
      ring.copy(buffer.data(), known.data(), layout.uploaded, stream);
    } else {
      if (known.renew_groups(groups, group_count)) ring.copy(buffer.data(), known.data(), layout.plans, stream);
      if (known.renew_grads(items, count))
        ring.copy(buffer.data() + layout.grads, known.data() + layout.grads, layout.uploaded - layout.grads, stream);
    }
    image = std::move(known);
  }
};

CudaStep::CudaStep(int optimizer, int device) : impl_(std::make_unique<Impl>()) {
  const cuda::RelaxedCapture relaxed;  // the caller may find out only then that a stream captures
  cuda::require_device(device);
  const cuda::DeviceGuard guard(device);
  cuda::load_norm();
  cuda::load_tick(optimizer);
  cuda::load_update(optimizer);
  impl_->optimizer = optimizer;
  impl_->device = device;
}

CudaStep::~CudaStep() = default;

void CudaStep::step(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count,
                    const StepControl& control, std::int64_t* clock, void* stream) {
  const cuda::DeviceGuard guard(impl_->device);
  if (!cuda::is_capturing(stream)) {
    impl_->renew_table(items, count, groups, group_count, stream);
    return impl_->run(impl_->image.table_at(impl_->buffer.data(), clock), control, stream);
  }
  cuda::StepImage image;
  image.build(items, count, groups, group_count);
  cuda::DeviceBuffer own;
  {
    const cuda::RelaxedCapture relaxed;
    own.reserve(image.layout().bytes);
    cuda::copy_now(own.data(), image.data(), image.layout().uploaded);
  }
  impl_->run(image.table_at(own.data(), clock), control, stream);
  own.leak();
}

void step_cuda(int optimizer, int device, const StepItem* items, std::size_t count, const StepScalars* scalars,
               void* stream) {
  cuda::require_device(device);
  const cuda::DeviceGuard guard(device);
  std::vector<CudaStepItem> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i].tensor = items[i];
  const StepGroup group;
  cuda::StepImage image;
  image.build(all.data(), count, &group, 1);
  const cuda::StepLayout& layout = image.layout();
  // What the tick would have written.
  std::vector<char> written(layout.bytes - layout.scalars);
  for (std::size_t i = 0; i < count; ++i) {
    const StepScalars& from = scalars[items[i].scalars];
    const bool wide = items[i].dtype == DType::kFloat64;
    std::memcpy(written.data() + i * cuda::kScalarBytes, wide ? static_cast<const void*>(from.f64) : from.f32,
                wide ? sizeof(from.f64) : sizeof(from.f32));
  }
  StepVerdict verdict;
  verdict.grad_scale = count > 0 ? scalars[items[0].scalars].grad_scale : 1.0;
  std::memcpy(written.data() + (layout.verdict - layout.scalars), &verdict, sizeof(verdict));
  cuda::DeviceBuffer buffer, clock;
  buffer.reserve(layout.bytes);
  clock.reserve(sizeof(std::int64_t));
  cuda::copy_now(buffer.data(), image.data(), layout.uploaded);
  cuda::copy_now(buffer.data() + layout.scalars, written.data(), written.size());
  cuda::launch_update(optimizer, image.table_at(buffer.data(), reinterpret_cast<std::int64_t*>(clock.data())), stream);
  cuda::check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "an update");
}

bool cuda_is_capturing(int device, void* stream) {
  const cuda::DeviceGuard guard(device);
  return cuda::is_capturing(stream);
}

}  // namespace thalweg
