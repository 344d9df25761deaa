// The filters of a job's system calls (consumer/policy/): compiled when Kiln is built, so that kiln-run can neither be without
// one nor be given another.
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

// Made by the build.
extern const struct sock_filter kiln_filter_code[]; // the table of system calls
extern const size_t kiln_filter_code_count;
// For a watched job (consumer/run/watch.h): the same, but that it lets through what kiln-run refuses; and what stands before it
// and sends whoever asks for something to kiln-run.
extern const struct sock_filter kiln_filter_watched_code[], kiln_filter_watch_code[];
extern const size_t kiln_filter_watched_code_count, kiln_filter_watch_code_count;
// The answers of the table to those calls.
struct kiln_filter_refusal {
    int number, answer; // an errno
};
extern const struct kiln_filter_refusal kiln_filter_refusals[];
extern const size_t kiln_filter_refusals_count;

// A sealed memfd with the job's filter, read from its start; for one job.
int kiln_filter_open(bool watched, int *fd, struct kiln_err *err);
