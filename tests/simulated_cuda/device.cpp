// A CUDA device whose memory is the CPU's: tensors say that they are on cuda:0, and the CPU's kernels compute on them.
// To be loaded before torch is, which asks once what there is.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <set>
#include <string>

namespace {

constexpr auto kind = c10::DeviceType::CUDA;
const c10::Device device(kind, 0);

c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device); }

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kind> {
  c10::Device getDevice() const override { return device; }
  c10::Device exchangeDevice(c10::Device) const override { return device; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

const Guard guard;
const c10::impl::DeviceGuardImplRegistrar guard_registered(kind, &guard);

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
};

// Memory: what is allocated now, and the most that was, in blocks of 512 bytes as CUDA's allocator of torch gives them.

std::atomic<int64_t> allocated{0}, peak{0};

struct Block {
  void* memory;
  int64_t bytes;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  allocated -= block->bytes;
  std::free(block->memory);
  delete block;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t wanted) override {
    const auto bytes = static_cast<int64_t>((wanted + 511) / 512 * 512);
    void* memory = nullptr;
    if (bytes > 0 && posix_memalign(&memory, 64, bytes) != 0) throw std::bad_alloc();
    auto* block = new Block{memory, bytes};
    const auto now = allocated += bytes;
    auto most = peak.load();
    while (now > most && !peak.compare_exchange_weak(most, now)) {
    }
    return {memory, block, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Memory memory;
const bool allocator_registered = [] {
  c10::SetAllocator(kind, &memory);
  return true;
}();

at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic_symint(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_symint_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

// Operations: the CPU's kernel, on tensors of the CPU that share the memory.

bool here(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == kind; }

at::Tensor on_cpu(const at::Tensor& tensor) {
  auto storage = tensor.storage();
  auto shared = c10::Storage(
      c10::Storage::use_byte_size_t(), storage.nbytes(),
      c10::DataPtr(storage.mutable_data(), new c10::Storage(storage),
                   [](void* kept) { delete static_cast<c10::Storage*>(kept); }, c10::Device(c10::DeviceType::CPU)),
      c10::GetCPUAllocator(), true);
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(shared), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) made._set_conj(true);
  return made;
}

at::Tensor on_device(const at::Tensor& tensor) {
  auto made = at::detail::empty_strided_generic(
      tensor.sizes(), tensor.strides(), &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), tensor.scalar_type());
  const auto bytes = std::min(made.storage().nbytes(), tensor.storage().nbytes() - tensor.storage_offset() * tensor.itemsize());
  if (bytes > 0) std::memcpy(made.storage().mutable_data(), static_cast<const char*>(tensor.const_data_ptr()), bytes);
  return made;
}

bool may_mix(const std::string& name) {
  static const std::set<std::string> names{
      "aten::copy_", "aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_",
      "aten::_to_copy"};
  const auto& known = names;
  return known.count(name) > 0 || name == "aten::index";
}

c10::IValue moved(const c10::IValue& value, const std::string& name, bool refuse) {
  const auto one = [&](const at::Tensor& tensor) {
    if (here(tensor)) return on_cpu(tensor);
    TORCH_CHECK(
        !refuse || !tensor.defined() || tensor.dim() == 0,
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name, ")");
    return tensor;
  };
  if (value.isTensor()) return one(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> found;
    for (const at::Tensor& tensor : value.toTensorVector()) found.push_back(one(tensor));
    return found;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> found;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      found.push_back(tensor ? std::optional<at::Tensor>(one(*tensor)) : std::nullopt);
    }
    return found;
  }
  if (value.isDevice()) return c10::Device(c10::DeviceType::CPU);
  return value;
}

c10::IValue back(const c10::IValue& value) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? c10::IValue(on_device(value.toTensor())) : value;
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> found;
    for (const at::Tensor& tensor : value.toTensorVector()) found.push_back(on_device(tensor));
    return found;
  }
  return value;
}

void resize_as(const at::Tensor& tensor, const at::Tensor& computed) {
  if (!here(tensor) || tensor.sizes() == computed.sizes()) return;
  const auto found = on_device(computed);
  tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(found.storage());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(found.sizes(), found.strides());
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto given = schema.arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - given, stack->end());
  const bool refuse = !may_mix(schema.name());
  torch::jit::drop(*stack, given);
  std::vector<c10::IValue> lent;
  for (const auto& argument : arguments) lent.push_back(moved(argument, schema.name(), refuse));
  for (const auto& argument : lent) torch::jit::push(*stack, argument);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const auto returned = schema.returns().size();
  std::vector<c10::IValue> results(stack->end() - returned, stack->end());
  torch::jit::drop(*stack, returned);
  for (size_t place = 0; place < returned; ++place) {
    const auto* alias = schema.returns()[place].alias_info();
    if (alias == nullptr) {
      torch::jit::push(*stack, back(results[place]));
      continue;
    }
    bool found = false;
    for (size_t i = 0; i < given && !found; ++i) {
      const auto* of = schema.arguments()[i].alias_info();
      if (of != nullptr && *of == *alias) {
        if (arguments[i].isTensor()) resize_as(arguments[i].toTensor(), lent[i].toTensor());
        torch::jit::push(*stack, arguments[i]);
        found = true;
      }
    }
    TORCH_CHECK(found && alias->isWrite(), schema.name(), " returns a view, which the simulated device does not know");
  }
}

// Which attention torch takes: that of linear memory where the device's kernel takes what is asked, all scores else.

int64_t attention_kernel(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor&, const std::optional<at::Tensor>&,
    double dropout, bool, std::optional<double>, bool) {
  const bool efficient = dropout == 0 && query.dim() == 4 && query.size(1) == key.size(1);
  return static_cast<int64_t>(efficient ? at::SDPBackend::efficient_attention : at::SDPBackend::math);
}

const bool attention_registered = [] {
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&attention_kernel);
  return true;
}();

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("convolution", torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
  m.impl("convolution_backward", torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

extern "C" {
int64_t simulated_allocated() { return allocated; }
int64_t simulated_peak() { return peak; }
void simulated_reset_peak() { peak = allocated.load(); }
}
