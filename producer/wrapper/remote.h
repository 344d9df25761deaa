// A compile by the agent: ask, wait, place, print, exit.
#pragma once

#include <stddef.h>

// Exits with the compiler's code when the agent had the answer. Returns when the compiler has to run here, for whatever
// reason; nothing was printed then. argv is NULL-terminated and holds argc arguments.
void kiln_remote_compile(size_t argc, char **argv);
