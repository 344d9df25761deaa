// Looking at the walls from inside the container, before anything hostile runs in it: what Docker was asked for must be there.
#pragma once

#include "consumer/docker/gate.h"

// KILN_E_DENIED names the wall that does not stand.
int kiln_world_check(const struct kiln_gate_order *order, struct kiln_err *err);
