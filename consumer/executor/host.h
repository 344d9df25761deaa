// What the executor asks of its host before it takes work.
#pragma once

#include <stdbool.h>

#include "lib/base/err.h"

// Has kiln-run, or the like of it with `arguments` of its own (NULL: none), try which limits hold here (--limits). Where some do
// not: `weak_allowed` logs them once and goes on, else KILN_E_DENIED with a text that names them.
int kiln_executor_check_limits(const char *run_program, const char *const *arguments, bool weak_allowed, struct kiln_err *err);
