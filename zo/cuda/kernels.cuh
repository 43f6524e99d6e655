/* zo/cuda/kernels.cuh -- every kernel of ZO_CUDA_KERNELS (zo/cuda/abi.h), in one translation unit. */
#ifndef ZO_CUDA_KERNELS_CUH
#define ZO_CUDA_KERNELS_CUH
#include "zo/cuda/state.cuh"
#include "zo/cuda/weights.cuh"
#include "zo/cuda/rows.cuh"
#include "zo/cuda/attend.cuh"
#endif
