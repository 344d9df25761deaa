// How a target's linked outputs are called; from the target specifications of rustc 1.95. Private to lib/rustc/argv*.c
// and their tests. Pure.
#pragma once

#include <stdbool.h>

struct kiln_target_names {
    const char *exe_suffix, *dll_prefix, *dll_suffix;
    bool dll_optional; // rustc may drop dylib and cdylib with a warning (a static libc)
    bool has_dwp; // split-debuginfo=packed makes a .dwp beside each linked output
};

// `target` NULL: the host, a Linux with glibc. NULL for a target that Kiln does not know.
const struct kiln_target_names *kiln_target_names(const char *target);
