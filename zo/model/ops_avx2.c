/* zo/model/ops_avx2.c -- the loops of ops_body.h compiled for avx2. */
#define OPS_NAME avx2
#include "zo/model/ops_body.h"
