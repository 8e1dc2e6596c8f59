// THALWEG_HD: how a function that runs on host and device is declared. Knows nothing else.
#pragma once

#if defined(__CUDACC__)
#define THALWEG_HD __host__ __device__ __forceinline__
#else
#define THALWEG_HD inline __attribute__((always_inline))
#endif
