// A caller's environment as it travelled: NAME=VALUE strings.
#pragma once

#include <stddef.h>

// The value of a variable, borrowed; NULL when it is not set.
const char *kiln_request_env(char *const *env, size_t count, const char *name);
// Finds a program as execvp would with the caller's PATH; absolute path on the heap, NULL when there is none.
char *kiln_request_which(char *const *env, size_t count, const char *cwd, const char *program);
