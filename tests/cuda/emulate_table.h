/* tests/cuda/emulate_table.h -- knobs of the emulated device, for tests. */
#ifndef TESTS_CUDA_EMULATE_TABLE_H
#define TESTS_CUDA_EMULATE_TABLE_H
#include "zo/cuda/abi.h"

enum emu_graphs { EMU_GRAPHS_NONE, EMU_GRAPHS_RUN, EMU_GRAPHS_FAIL }; /* recording fails, or playing does, after all was noted */
extern enum emu_graphs emu_graphs;
float emu_from_half(uint16_t h);
extern uint64_t emu_memory, emu_used; /* bytes it has, bytes handed out */
extern uint32_t emu_shared; /* bytes of shared memory a block may take */
extern uint64_t emu_fail_at, emu_calls; /* calls so far; from this one on every call says ERR_DEVICE; 0: none */
#endif
