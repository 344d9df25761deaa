// Finding a bind's source again by the name behind its descriptor, for whoever cannot mount the descriptor itself: one of
// another mount namespace. Device and inode must be the same, else it is refused.
#pragma once

#include "consumer/run/spec.h"

// *found is an O_PATH descriptor of this mount namespace. `path` (may be NULL): where it was found; heap.
int kiln_source_find(const struct kiln_run_bind *bind, int *found, char **path, struct kiln_err *err);
