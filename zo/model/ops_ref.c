/* zo/model/ops_ref.c -- the loops of ops_body.h compiled for any CPU. */
#define OPS_NAME ref
#include "zo/model/ops_body.h"
