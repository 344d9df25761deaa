// Did the user set a variable, or a repository?
//
// What a wrapper sees may have been changed by cargo's [env] tables and by build scripts; cargo's own environment is what
// the user gave. Read from /proc. Thread: re-entrant.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

// True when the nearest process above `process` that is cargo was started with NAME=value, or when no cargo is above it.
// False when /proc does not tell.
bool kiln_origin_is_user(pid_t process, const char *name, const char *value);
