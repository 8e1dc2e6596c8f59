// The CUDA driver of the optimizer steps: keeps the tables on the device and makes the launches.
//
// Eager steps share one table; what changed in it is copied through pinned memory, on the stream of the step. A
// captured step gets a table of its own, filled at once on a private stream and never written or freed again: the graph
// may be replayed at any time.
#include <cstring>
#include <utility>
#include <vector>

#include "optimizer.cuh"
#include "runtime.cuh"
#include "step_image.hpp"
#include "step_tables.cuh"
#include "thalweg/optimizers/registry.hpp"
#include "thalweg/step.hpp"
#include "upload.cuh"

namespace thalweg {
namespace {

// Calls visit with the kernels of an optimizer, as a type.
template <class Visit>
void with_kernels(int optimizer, const Visit& visit) {
  for_each_optimizer(
      [&](auto op, int index) {
        if (index == optimizer) visit(cuda::Kernels<decltype(op)>{});
      },
      OptimizerList{});
}

}  // namespace

struct CudaStep::Impl {
  int optimizer = 0;
  int device = 0;
  cuda::StepImage image;
  cuda::DeviceBuffer buffer;  // the eager table
  cuda::PinnedRing ring;

  void run(const cuda::StepTable& table, StepControl control, const MeshSums& mesh, void* stream) const {
    if (control.needs_norm) {
      cuda::launch_norm(table, stream);
      if (mesh.classes > 1) {
        cuda::launch_class_sums(table, mesh.classes, mesh.squares, stream);
        mesh.add(false);
        control.mesh_squares = mesh.squares;
        control.norm_classes = mesh.classes;
      }
    }
    with_kernels(optimizer, [&](auto kernels) {
      kernels.tick(table, control, stream);
      kernels.measure(table, mesh, stream);
      kernels.update(table, stream);
    });
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
  with_kernels(optimizer, [](auto kernels) { kernels.load(); });
  impl_->optimizer = optimizer;
  impl_->device = device;
}

CudaStep::~CudaStep() = default;

void CudaStep::step(const CudaStepItem* items, std::size_t count, const StepGroup* groups, std::size_t group_count,
                    const StepControl& control, std::int64_t* clock, void* stream, const MeshSums& mesh) {
  const cuda::DeviceGuard guard(impl_->device);
  if (!cuda::is_capturing(stream)) {
    impl_->renew_table(items, count, groups, group_count, stream);
    return impl_->run(impl_->image.table_at(impl_->buffer.data(), clock), control, mesh, stream);
  }
  cuda::StepImage image;
  image.build(items, count, groups, group_count);
  cuda::DeviceBuffer own;
  {
    const cuda::RelaxedCapture relaxed;
    own.reserve(image.layout().bytes);
    cuda::copy_now(own.data(), image.data(), image.layout().uploaded);
  }
  impl_->run(image.table_at(own.data(), clock), control, mesh, stream);
  own.leak();
}

void step_cuda(int optimizer, int device, const StepItem* items, std::size_t count, const StepScalars* scalars,
               const StepVerdict& verdict, void* stream) {
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
    char* to = written.data() + i * cuda::kScalarBytes;
    if (wide) {
      const double average[2] = {from.ema_keep, from.ema_take};
      std::memcpy(to, from.f64, sizeof(from.f64));
      std::memcpy(to + cuda::kEmaWeights, average, sizeof(average));
    } else {
      const float average[2] = {static_cast<float>(from.ema_keep), static_cast<float>(from.ema_take)};
      std::memcpy(to, from.f32, sizeof(from.f32));
      std::memcpy(to + cuda::kEmaWeights, average, sizeof(average));
    }
  }
  std::memcpy(written.data() + (layout.verdict - layout.scalars), &verdict, sizeof(verdict));
  cuda::DeviceBuffer buffer, clock;
  buffer.reserve(layout.bytes);
  clock.reserve(sizeof(std::int64_t));
  cuda::copy_now(buffer.data(), image.data(), layout.uploaded);
  cuda::copy_now(buffer.data() + layout.scalars, written.data(), written.size());
  const cuda::StepTable table = image.table_at(buffer.data(), reinterpret_cast<std::int64_t*>(clock.data()));
  with_kernels(optimizer, [&](auto kernels) {
    kernels.measure(table, MeshSums{}, stream);
    kernels.update(table, stream);
  });
  cuda::check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "an update");
}

bool cuda_is_capturing(int device, void* stream) {
  const cuda::DeviceGuard guard(device);
  return cuda::is_capturing(stream);
}

}  // namespace thalweg
