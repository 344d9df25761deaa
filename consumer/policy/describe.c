#include "consumer/policy/describe.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "consumer/policy/calls.h"

#define DEFAULT_ANSWER ENOSYS

int kiln_calls_canonical(struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_str(out, "kiln-calls-1\n");
    for (size_t i = 0; i < kiln_calls_count; i++) {
        const struct kiln_call_rule *rule = &kiln_calls[i];
        kiln_buf_addf(out, "%s %d", rule->calls, rule->refusal);
        for (size_t k = 0; k < rule->tests_count; k++)
            kiln_buf_addf(out, " %u&%#" PRIx64 "=%#" PRIx64, rule->tests[k].argument, rule->tests[k].mask, rule->tests[k].value);
        kiln_buf_add_str(out, "\n");
    }
    return kiln_buf_check(out, "table of system calls", err);
}

static size_t count_names(const char *calls) {
    size_t count = 1;
    for (; (calls = strchr(calls, ' ')); calls++)
        count++;
    return count;
}

static void add_page_rule(struct kiln_buf *out, const struct kiln_call_rule *rule) {
    kiln_buf_addf(out, "| `%s` | ", rule->calls);
    if (rule->refusal)
        kiln_buf_addf(out, "%s | %s |\n", strerrorname_np(rule->refusal), rule->why);
    else
        kiln_buf_addf(out, "%s | %s | %s |\n", *rule->condition ? rule->condition : "always", rule->needed_by, rule->why);
}

int kiln_calls_page(struct kiln_buf *out, struct kiln_err *err) {
    size_t allowed = 0, refused = 0;
    for (size_t i = 0; i < kiln_calls_count; i++)
        *(kiln_calls[i].refusal ? &refused : &allowed) += count_names(kiln_calls[i].calls);
    kiln_buf_addf(out,
                  "# System calls of a job\n\n"
                  "Made from `consumer/policy/calls.c` by `kiln-calls page`; a test compares. The same table is the filter of all jobs, "
                  "behind\nbubblewrap and in containers, and its digest is part of every key. %zu calls are allowed, %zu refused "
                  "with an answer that says why;\nall others, also those of kernels to come, are answered %s. A call of a foreign "
                  "architecture (`int 0x80`, x32) kills the process.\n\n"
                  "| allowed | when | needed by | what for |\n|---|---|---|---|\n",
                  allowed, refused, strerrorname_np(DEFAULT_ANSWER));
    for (size_t i = 0; i < kiln_calls_count; i++)
        if (!kiln_calls[i].refusal)
            add_page_rule(out, &kiln_calls[i]);
    kiln_buf_add_str(out, "\n| refused | answer | what it would be |\n|---|---|---|\n");
    for (size_t i = 0; i < kiln_calls_count; i++)
        if (kiln_calls[i].refusal)
            add_page_rule(out, &kiln_calls[i]);
    kiln_buf_addf(out, "\nNot named and worth knowing: `getrandom` (%s, so that programs read `/dev/urandom`, which holds the job's own "
                       "repeatable\nbytes), `clone3`, `io_uring_*`, `openat2`, `fchmodat2`, `memfd_create`, `seccomp`, `open_by_handle_at`, shared memory and "
                       "queues of System V,\n`inotify_*`, `fanotify_*`, `sync`.\n", strerrorname_np(DEFAULT_ANSWER));
    return kiln_buf_check(out, "page of system calls", err);
}
