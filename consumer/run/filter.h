// The filter of a job's system calls (consumer/policy/): compiled when Kiln is built, so that kiln-run can neither be without
// one nor be given another.
#pragma once

#include <linux/filter.h>
#include <stddef.h>

#include "lib/base/err.h"

extern const struct sock_filter kiln_filter_code[]; // made by the build
extern const size_t kiln_filter_code_count;

// A sealed memfd with the filter, read from its start; for one job.
int kiln_filter_open(int *fd, struct kiln_err *err);
