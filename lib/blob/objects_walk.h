// The walk over a directory of objects that decides what goes first. Private to lib/blob.
#pragma once

#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/blob/objects.h"

static inline int64_t kiln_object_time(const struct timespec *time) {
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

// What an object takes on a disk of 4 KiB blocks: many small ones must not slip under the bound.
static inline uint64_t kiln_object_bytes(const struct stat *st) { return ((uint64_t)st->st_size + 4095) / 4096 * 4096; }

// Calls visit for each entry of the directory `name`; an absent directory has none.
void kiln_objects_walk_dir(int dir, const char *name, int (*visit)(int dir, const char *name));
// kiln_objects_prune() for an open directory; the entry `except` of its top is left alone.
int kiln_objects_walk_prune(int dir, const char *except, uint64_t max_bytes, int64_t keep_ns,
                            struct kiln_objects_usage *usage, struct kiln_err *err);
