// Errors of the core: standard exceptions, so that any border can map them. Host only.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace thalweg {

// A failed CUDA call or a missing device; the border turns it into thalweg.CudaError.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// message("AdamW: expected ", n, " states"): the parts written one after the other.
template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// For what only a defect of thalweg itself can cause; user errors are std::invalid_argument.
template <class... Parts>
void require_internal(bool condition, const Parts&... parts) {
  if (!condition) throw std::logic_error(message("thalweg: internal error, please report it: ", parts...));
}

}  // namespace thalweg
