/* zo/model/ops_avx512.c -- the loops of ops_body.h compiled for avx512. */
#define OPS_NAME avx512
#include "zo/model/ops_body.h"
