// The system calls of a job: the one table from which come the filter (compile.c) and the page for people (describe.h). What
// the table does not name is answered ENOSYS, as by an older kernel, so that calls of future kernels are refused before anybody
// has heard of them; calls of a foreign architecture kill the process.
//
// A changed table is another sandbox: its digest is in KILN_PROFILE (lib/core/profile.h), hence in every key, and the build
// stops while the two differ.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Lets a call through when (argument & mask) == value.
struct kiln_call_test {
    unsigned argument;
    uint64_t mask, value;
};

struct kiln_call_rule {
    const char *calls; // names, separated by single spaces
    int refusal;       // 0: allowed. Else an errno: never allowed, and that is the answer
    const struct kiln_call_test *tests; // of an allowed one: it must pass one of them, else the answer is ENOSYS; NULL: always
    size_t tests_count;
    const char *condition; // the tests in words; "" without
    const char *needed_by, *why;
};

extern const struct kiln_call_rule kiln_calls[];
extern const size_t kiln_calls_count;
