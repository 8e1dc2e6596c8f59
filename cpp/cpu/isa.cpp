// Detects the instruction sets of this CPU and keeps the chosen one: the core's only mutable global state.
#include "isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "thalweg/error.hpp"
#include "thalweg/info.hpp"

#if THALWEG_HAS_X86_ISA
#include <immintrin.h>
#endif

namespace thalweg {
namespace {

constexpr const char* kIsaNames[kNumIsas] = {"base", "avx2", "avx512"};

bool supported(Isa isa) {
#if THALWEG_HAS_X86_ISA
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kBase:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return false;
#else
  return isa == Isa::kBase;
#endif
}

Isa parse(const std::string& name) {
  for (int i = 0; i < kNumIsas; ++i) {
    if (name != kIsaNames[i]) continue;
    if (!supported(static_cast<Isa>(i)))
      throw std::invalid_argument(message("instruction set '", name, "' cannot run on this CPU"));
    return static_cast<Isa>(i);
  }
  throw std::invalid_argument(message("instruction set: expected one of 'base', 'avx2', 'avx512', got '", name, "'"));
}

Isa choose() {
  if (const char* forced = std::getenv("THALWEG_CPU_ISA"); forced != nullptr && *forced != '\0') return parse(forced);
  for (int i = kNumIsas - 1; i > 0; --i)
    if (supported(static_cast<Isa>(i))) return static_cast<Isa>(i);
  return Isa::kBase;
}

std::atomic<int> chosen{-1};

}  // namespace

Isa active_isa() {
  int isa = chosen.load(std::memory_order_relaxed);
  if (isa < 0) {
    isa = static_cast<int>(choose());
    chosen.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

std::vector<std::string> isa_compiled() {
  return THALWEG_HAS_X86_ISA ? std::vector<std::string>{"base", "avx2", "avx512"} : std::vector<std::string>{"base"};
}

std::vector<std::string> isa_supported() {
  std::vector<std::string> names;
  for (int i = 0; i < kNumIsas; ++i)
    if (supported(static_cast<Isa>(i))) names.emplace_back(kIsaNames[i]);
  return names;
}

std::string isa_active() { return kIsaNames[static_cast<int>(active_isa())]; }

void isa_force(const std::string& name) { chosen.store(static_cast<int>(parse(name)), std::memory_order_relaxed); }

bool openmp_compiled() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

#if THALWEG_HAS_X86_ISA
namespace {
constexpr std::uint32_t kFlushToZero = 0x8000u;
constexpr std::uint32_t kDenormalsAreZero = 0x0040u;
}  // namespace

DenormalGuard::DenormalGuard() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~(kFlushToZero | kDenormalsAreZero)); }
DenormalGuard::~DenormalGuard() { _mm_setcsr(saved_); }
#else
DenormalGuard::DenormalGuard() = default;
DenormalGuard::~DenormalGuard() = default;
#endif

}  // namespace thalweg
