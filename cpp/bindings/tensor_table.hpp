// TensorTable: the tensors that one optimizer owns, as addresses. It gathers gradients, runs the core's step and
// advances counters and schedules; hyper-parameters are read from the param groups at every step. Tensors may lie on
// the host and on several CUDA devices; on these the counters and the schedules' clock are advanced by the kernels.
//
// A step is one pass over the parameters that only reads and compares (addresses of parameters, identities of state
// tensors), then one call of the core. What changed since the last step is looked up again before anything is written.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "plan.hpp"
#include "thalweg/step.hpp"
#include "torch_border.hpp"

namespace thalweg::bindings {

// What an optimizer wants beside its update rule.
struct TableOptions {
  bool master_weights = false;       // float32 copies of 16-bit parameters are updated
  bool stochastic_rounding = false;  // of bfloat16 parameters without them
  bool zero_grad = false;
  double ema_decay = -1;          // negative: no moving average
  std::int32_t state_dtype = -1;  // a DType; -1: float32 beside master weights, otherwise as the parameter
};

// True for a torch.distributed.tensor.DTensor and for no other class.
bool is_dtensor(const pybind11::handle& value);

// The tensor that has the memory: a DTensor's local tensor, any other tensor itself.
pybind11::object memory_of(const pybind11::handle& tensor);

class TensorTable {
 public:
  // `owner`, the optimizer, is asked for what only Python can do (a weak reference is kept):
  //   _init_states(params, masks)  create the missing ones of the states that each mask names, and its 0-d states
  //   _adopt_state(param, mask)    make its state fit: number -> tensor, layout and dtype as the core needs
  //   _dense_pair(param)           dense copies (param, grad), because one of them is strided otherwise
  //   _copy_back(pairs, grads)     copy dense parameters, and gradients if asked, back into their originals
  //   _forget_states(params)       drop states that were created in a step which was then skipped
  //   _clock(param)                int64 on its device: the updates that the schedules have seen there
  //   _count_of(param, first)      its number of steps on the device, where torch's state has no such entry
  //   _control(param)              None, or what StepControl holds, as tensors on its device
  //   _mesh_place(param)           of a DTensor: its class, whose squares are added over the same processes (0: none),
  //                                and which of the different shards this process has
  //   _aligned_grad(param)         its gradient, sharded as the parameter is
  //   _sharded_alike(a, b)         whether two DTensors have the same local part of the same shape here
  //   _sum_over_mesh(numbers)      of each class but 0 a list: its elements' sums over the processes of the class
  //   _shared_sums(param, slots)   on its device a float64 per class, and two zeros for each of the classes' slots
  //   _add_shared(param, measured) turns the first ones, or the others, into sums over the processes of each class
  //   _explain(group, index)       raise the error that names the parameter, because the core refuses it
  TensorTable(const std::string& optimizer, const pybind11::object& owner, const TableOptions& options);

  // One step over all groups. plans: per group a list of (index, Plan), the index that of a hyper-parameter or -1 for
  // lr; what has a Plan becomes the value of step schedule_step + 1 in the group afterwards. controlled: whether
  // _control has anything to say. unscale: whether the gradients are left divided by the loss's scale.
  enum Result { kDone = 0, kSkipped = 1, kCaptured = 2 };
  int step(const pybind11::list& groups, const pybind11::dict& state, const pybind11::list& plans,
           std::int64_t schedule_step, int num_threads, bool controlled, bool unscale);

  // Whether the stream of one of the devices is being captured.
  bool capturing() const;

 private:
  static constexpr int kMaxKeys = kMaxStates + 1 + kMaxScalarStates + 2;  // all states, `master_param`, `ema`

  struct Hot {  // what every step reads of one parameter
    PyObject* param = nullptr;
    PyObject* memory = nullptr;  // the tensor that has its memory: itself, or a DTensor's local tensor
    PyObject* inner = nullptr;   // optimizer.state[param]; null while there is none
    void* seen = nullptr;        // address of the parameter when the states were looked up
    void* states[kMaxStates] = {};
    void* master = nullptr;
    void* ema = nullptr;
    ScalarStates scalars;  // first torch's 0-d `step`, or what _count_of gave
    std::int32_t group = 0;
    std::int32_t device = -1;     // -1 host, otherwise the CUDA ordinal
    bool first = false;           // its states were created in this step
    std::int16_t norm_class = 0;  // see _mesh_place
    std::int32_t mesh_slot = -1;  // see number_slots()
    std::uint32_t shard = 0;      // its number, in bits that no place of a parameter reaches
  };
  struct Check {                      // the values of `inner`, in its order
    PyObject* values[kMaxKeys] = {};  // borrowed from Owned::values, which has them all
    Py_ssize_t count = -1;
    std::uint64_t version = 0;  // of the dict, where Python keeps one
  };
  struct Owned {  // keeps what Hot and Check point to
    pybind11::object param, inner;
    pybind11::object accumulator;  // see hold_accumulator() in python_access.hpp
    pybind11::object count;        // what _count_of gave
    std::vector<pybind11::object> values;
    std::vector<pybind11::object> aliases;  // detached views: the cached addresses never dangle
  };
  struct Meshed {  // what a parameter that is a DTensor looked like last
    std::size_t place = 0;
    pybind11::object spec, local;
    pybind11::object grad_spec;  // another that shards alike
  };
  struct Group {
    std::int32_t variant = 0;
    unsigned states = 0;  // bit i: it keeps state i
    double lr = 0;
    double hyper[kMaxHyper] = {};
    TensorRef lr_tensor;            // where lr is a tensor on a device, which is not read on the host
    PyObject* lr_object = nullptr;  // that tensor
    const Plan* plans[kMaxPlans] = {};
  };
  struct Device {  // the step's tensors on one CUDA device
    std::int32_t ordinal = 0;
    std::unique_ptr<CudaStep> steps;
    pybind11::object param;  // any of its parameters
    pybind11::object clock;
    std::vector<CudaStepItem> items;
    std::vector<StepGroup> groups;
    std::vector<std::int32_t> group_of;  // index of each of groups among the param groups
    StepControl control;
  };
  struct HyperKey {
    pybind11::str key;
    int element = -1;  // of a tuple such as betas, or -1
  };
  struct Prepared {  // what one of scalars_ was made from, and where its parameters' 0-d states stand after the step
    std::int32_t group;
    double step;
    double before[kMaxScalarStates];
    double after[kMaxScalarStates];
  };
  enum class Pass { kDone, kStatesChanged };

  void rebuild(const pybind11::list& groups);
  void read_group(const pybind11::dict& group, const pybind11::handle& plans, Group& out);
  bool outer_state_same(const pybind11::dict& state) const;
  bool inner_state_same(std::size_t n);
  bool collect_gradients(const pybind11::list& groups);
  Pass gather(bool states_known);
  void add_item(std::size_t n, const TensorView& param, const TensorView& grad);
  void look_up_states(const pybind11::dict& state);
  void look_up(std::size_t n, const TensorView& param, const pybind11::dict& state);
  bool is_missing(std::size_t n, const pybind11::dict& state) const;
  bool fits(std::size_t n, const TensorView& param);
  bool scalars_fit(std::size_t n, std::int32_t device);
  std::int32_t scalars_index(const Hot& hot);
  bool update_host(int num_threads, const StepControl& control, std::int64_t schedule_step);
  void forget_new_states();
  void write_next_rates(const pybind11::list& groups, std::int64_t step);
  void write_next_lr(const pybind11::dict& group, std::size_t g, double value);
  void finish();
  bool keeps_state(std::size_t n) const;
  bool keeps_master(DType param) const;
  DType state_dtype_for(DType param) const;
  void* fitting(std::size_t n, const TensorView& param, const pybind11::str& key, DType dtype) const;
  pybind11::object owner() const;
  [[noreturn]] void refuse(std::size_t n) const;

  // tensor_table_mesh.cpp
  void find_meshed();
  void localize();
  void number_slots();
  MeshSums shared_on(const Device& device);
  pybind11::object local_gradient(Meshed& meshed, const pybind11::object& grad);
  using ClassSums = std::vector<std::vector<double>>;  // numbers of each class
  double grad_squares(int num_threads);
  void measure_over_mesh();
  void sum_over_mesh(ClassSums& sums);
  std::size_t host_place();
  bool sharded_alike(std::size_t n, const pybind11::handle& state) const;
  bool spans_mesh() const { return norm_classes_ > 1; }

  // tensor_table_cuda.cpp
  Device& device_of(std::size_t n);
  void add_cuda_item(std::size_t n, const StepItem& item);
  void look_up_count(std::size_t n);
  StepControl control_for(const pybind11::object& param);
  void read_controls(bool controlled);
  void update_devices();

  int optimizer_;
  const OptimizerInfo& info_;
  TableOptions options_;
  pybind11::weakref owner_;
  std::vector<HyperKey> hyper_keys_;
  std::vector<pybind11::str> state_keys_;
  std::vector<pybind11::str> scalar_keys_;  // `step` first

  std::vector<Hot> hot_;
  std::vector<Check> checks_;
  std::vector<Owned> owned_;
  std::vector<std::pair<PyObject*, PyObject*>> outer_;  // (key, value) at each place of optimizer.state

  std::deque<Device> devices_;
  std::vector<Meshed> meshed_;
  std::size_t norm_classes_ = 1;
  std::vector<std::int32_t> slots_{0};  // of each class

  // of this step
  bool capturing_ = false;
  GradWrite grad_write_ = GradWrite::kKeep;
  StepControl control_;
  std::vector<pybind11::object> kept_;  // tensors whose addresses the step uses
  std::vector<pybind11::object> plans_;
  std::vector<Group> groups_;
  std::vector<StepItem> items_;
  std::vector<pybind11::object> grads_;
  std::vector<std::size_t> active_;
  std::vector<StepScalars> scalars_;
  std::vector<Prepared> prepared_;        // of each of scalars_
  std::vector<std::int32_t> scalars_of_;  // of each of active_: its index there, or -1 on a device
  std::vector<StepScalars> own_scalars_;  // of each of items_, where the optimizer has two phases
  std::vector<Measured<double>> sums_;    // likewise
  std::vector<pybind11::object> substitutes_;
  std::size_t recheck_ = 0;
  // of the last one
  std::vector<std::size_t> listed_;
  pybind11::list updated_;  // the parameters of listed_, for the version counters
};

}  // namespace thalweg::bindings
