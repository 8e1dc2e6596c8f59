// Drawn directions on the CPU, a block of neighbouring elements at a time.
#pragma once

#include <cstdint>

#include "thalweg/draws.hpp"
#include "thalweg/dtype.hpp"

namespace thalweg {

constexpr std::int64_t kDrawBlock = 1024;  // elements; what a block needs stays in the first-level cache

// out[i] = element at place begin + i of the memory, i < numel <= kDrawBlock; weight (kWeight alone) is the tensor's.
void draw_block(const Draw& draw, const void* weight, DType weight_dtype, std::int64_t begin, std::int64_t numel,
                float* out);
void draw_block(const Draw& draw, const void* weight, DType weight_dtype, std::int64_t begin, std::int64_t numel,
                double* out);

}  // namespace thalweg
