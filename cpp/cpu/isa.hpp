// Instruction sets of the CPU drivers: chosen once, forced by THALWEG_CPU_ISA or isa_force().
#pragma once

#include <cstdint>

// Entry points are compiled once per instruction set from one forced-inline body; other architectures than
// x86-64 have the base body alone.
#if defined(__x86_64__) && defined(__GNUC__)
#define THALWEG_HAS_X86_ISA 1
#define THALWEG_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define THALWEG_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define THALWEG_HAS_X86_ISA 0
#endif

namespace thalweg {

enum class Isa : int { kBase = 0, kAvx2 = 1, kAvx512 = 2 };

constexpr int kNumIsas = 3;

Isa active_isa();

// While one lives, denormals are computed and not flushed to zero on this thread (x86: MXCSR bits FTZ and DAZ).
class DenormalGuard {
 public:
  DenormalGuard();
  ~DenormalGuard();
  DenormalGuard(const DenormalGuard&) = delete;
  DenormalGuard& operator=(const DenormalGuard&) = delete;

 private:
  std::uint32_t saved_ = 0;
};

}  // namespace thalweg
