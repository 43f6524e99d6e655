#include "zo/cuda/cuda.h"
