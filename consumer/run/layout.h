// What is mounted where in a job's root: the binds and the three bounded tmpfs, parents before children, no two at one place.
// Pure; borrows the spec.
#pragma once

#include "consumer/run/spec.h"

struct kiln_layout_part {
    const char *dest;
    const struct kiln_run_bind *bind; // NULL: a tmpfs, in which mount points may be made
    uint64_t bytes, inodes;           // of the tmpfs
};

struct kiln_layout {
    struct kiln_layout_part *parts;
    size_t count;
};

int kiln_layout_make(const struct kiln_run_spec *spec, struct kiln_layout *layout, struct kiln_err *err);
void kiln_layout_release(struct kiln_layout *layout);
// The part among the first `among` that holds `dest`, its rest below it in *rest; NULL: the root itself.
const struct kiln_layout_part *kiln_layout_holder(const struct kiln_layout *layout, size_t among, const char *dest,
                                                  const char **rest);
// Refuses a path that cannot be made in the root, since a mount lies over it.
int kiln_layout_check_free(const struct kiln_layout *layout, const char *path, struct kiln_err *err);
// Must the working directory be made, or does it come with a mount?
bool kiln_layout_makes_cwd(const struct kiln_layout *layout, const struct kiln_run_spec *spec);
