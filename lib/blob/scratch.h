// Files without a name for content on its way: in memory when small, else unlinked in a scratch directory, so that nothing is
// left behind and nobody else can open them. Thread: re-entrant.
#pragma once

#include <stdint.h>

#include "lib/base/err.h"

#define KILN_SCRATCH_MEMORY_MAX (8ull << 20)

// For about `bytes` bytes (0: unknown, small). *fd is open for reading and writing.
int kiln_scratch_file(int scratch_dir, uint64_t bytes, int *fd, struct kiln_err *err);
// No write reaches the bytes after this (sealed, or a read-only descriptor in its place); offset 0.
int kiln_scratch_seal(int *fd, struct kiln_err *err);
