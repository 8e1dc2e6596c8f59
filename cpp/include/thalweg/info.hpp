// What this build has and what this machine offers. Host only.
#pragma once

#include <string>
#include <vector>

namespace thalweg {

// ---- CPU instruction sets: "base", "avx2", "avx512", in growing order ----
std::vector<std::string> isa_compiled();   // loop bodies in this build
std::vector<std::string> isa_supported();  // those that this CPU can run
std::string isa_active();                  // the one in use; THALWEG_CPU_ISA forces one
void isa_force(const std::string& name);   // throws std::invalid_argument where this CPU cannot run it
bool openmp_compiled();

// ---- CUDA ----
struct CudaInfo {
  bool compiled = false;    // the CUDA side is in this build
  int runtime_version = 0;  // of the static runtime, e.g. 13000; 0 without
  int driver_version = 0;   // of the machine's driver; 0 without
  int device_count = 0;
  std::string detail;  // why there is no device, when there is none
};
CudaInfo cuda_info();

}  // namespace thalweg
