// Plan: a validated schedule plan that Python owns.
#pragma once

#include <cstdint>
#include <vector>

#include "thalweg/schedule.hpp"

namespace thalweg::bindings {

struct Plan {
  std::vector<std::uint64_t> words;
  double value_at(std::int64_t step) const { return thalweg::value_at(words.data(), step); }
};

}  // namespace thalweg::bindings
