// Errors of the core: standard exceptions, so that any border can map them. Host only.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace thalweg {

// A failed CUDA call or a missing device; the border turns it into thalweg.CudaError.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One part of a message. Not through a stream: in a module with a C++ library of its own beside another one in the
// process, its locales are not to be relied on.
inline const std::string& part_of(const std::string& text) { return text; }
inline std::string part_of(std::string_view text) { return std::string(text); }
inline std::string part_of(const char* text) { return text; }
template <class Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
std::string part_of(Number number) {
  if constexpr (std::is_integral_v<Number>) {
    return std::to_string(number);
  } else {
    char digits[32];
    std::snprintf(digits, sizeof(digits), "%g", static_cast<double>(number));
    return digits;
  }
}

// message("AdamW: expected ", n, " states"): the parts written one after the other.
template <class... Parts>
std::string message(const Parts&... parts) {
  std::string out;
  (out.append(part_of(parts)), ...);
  return out;
}

// For what only a defect of thalweg itself can cause; user errors are std::invalid_argument.
template <class... Parts>
void require_internal(bool condition, const Parts&... parts) {
  if (!condition) throw std::logic_error(message("thalweg: internal error, please report it: ", parts...));
}

}  // namespace thalweg
