// The user's own command, run in the wrapper's place: status, signals and everything else are the compiler's.
#pragma once

#include <stdbool.h>

// Does not return. argv is NULL-terminated; argv[0] is found as execvp(3) does. When it cannot be run the process exits
// as a shell would: 127 when it is not there, 126 otherwise.
_Noreturn void kiln_local_run(char *const *argv);
// Is `name`, which has no slash, a program on PATH?
bool kiln_local_is_program(const char *name);
