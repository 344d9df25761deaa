// kiln-calls: makes what is made of the table of system calls. A tool of the build; the only program that links libseccomp.
//
//   kiln-calls filter   C source of the filter that kiln-run holds (consumer/run/filter.h); fails when KILN_PROFILE is not this
//                       table's
//   kiln-calls page     the table for people; kiln-calls docker  Docker's profile; kiln-calls profile  what KILN_PROFILE must be
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "consumer/policy/calls.h"
#include "consumer/policy/describe.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/digest.h"
#include "lib/core/profile.h"

#define TEXT_BYTES_MAX (1u << 20)
#define DIGITS 16

static int profile_of_table(char profile[64], struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(TEXT_BYTES_MAX);
    struct kiln_digest digest;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    int rc = kiln_calls_canonical(&text, err);
    if (rc)
        return rc;
    kiln_digest_of(text.data, text.len, &digest);
    kiln_digest_format(&digest, hex);
    snprintf(profile, 64, KILN_PROFILE_VERSION "-%.*s", DIGITS, hex);
    return 0;
}

static int add_call(scmp_filter_ctx filter, const char *name, const struct kiln_call_rule *rule, struct kiln_err *err) {
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR)
        return kiln_fail(err, KILN_E_INVAL, "%s is no system call that libseccomp knows", name);
    uint32_t action = rule->refusal ? SCMP_ACT_ERRNO((unsigned)rule->refusal) : SCMP_ACT_ALLOW;
    int rc = 0;
    if (rule->tests_count == 0)
        rc = seccomp_rule_add(filter, action, number, 0);
    for (size_t i = 0; rc == 0 && i < rule->tests_count; i++) {
        const struct scmp_arg_cmp test = {.arg = rule->tests[i].argument, .op = SCMP_CMP_MASKED_EQ,
                                          .datum_a = rule->tests[i].mask, .datum_b = rule->tests[i].value};
        rc = seccomp_rule_add_array(filter, action, number, 1, &test);
    }
    return rc ? kiln_fail(err, KILN_E_INVAL, "the rule of %s: %s", name, strerror(-rc)) : 0;
}

static int add_rule(scmp_filter_ctx filter, const struct kiln_call_rule *rule, struct kiln_err *err) {
    kiln_autofree char *names = strdup(rule->calls);
    if (!names)
        return kiln_fail(err, KILN_E_NOMEM, "filter");
    int rc = 0;
    char *rest = names;
    for (char *name; rc == 0 && (name = strsep(&rest, " "));)
        rc = add_call(filter, name, rule, err);
    return rc;
}

// The compiled filter, as an array of struct sock_filter.
static int compile(struct kiln_buf *code, struct kiln_err *err) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (!filter)
        return kiln_fail(err, KILN_E_NOMEM, "filter");
    int rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS)
                 ? kiln_fail(err, KILN_E_INTERNAL, "libseccomp refuses to kill")
                 : 0;
    for (size_t i = 0; rc == 0 && i < kiln_calls_count; i++)
        rc = add_rule(filter, &kiln_calls[i], err);
    kiln_autofd int memfd = memfd_create("kiln-calls", MFD_CLOEXEC);
    if (rc == 0 && (memfd < 0 || seccomp_export_bpf(filter, memfd) || lseek(memfd, 0, SEEK_SET) < 0))
        rc = kiln_fail(err, KILN_E_INTERNAL, "libseccomp cannot export the filter");
    if (rc == 0)
        rc = kiln_fs_read_fd(memfd, code, err);
    seccomp_release(filter);
    if (rc == 0 && (code->len == 0 || code->len % sizeof(struct sock_filter)))
        rc = kiln_fail(err, KILN_E_INTERNAL, "libseccomp made no filter");
    return rc;
}

static int make_source(struct kiln_buf *out, struct kiln_err *err) {
    char profile[64];
    int rc = profile_of_table(profile, err);
    if (rc == 0 && strcmp(profile, KILN_PROFILE))
        rc = kiln_fail(err, KILN_E_INVAL, "the table of system calls has changed: KILN_PROFILE in lib/core/profile.h must be \"%s\" "
                                          "now, so that no result of the old sandbox is taken for one of the new", profile);
    kiln_autobuf struct kiln_buf code = KILN_BUF_INIT(TEXT_BYTES_MAX);
    if (rc == 0)
        rc = compile(&code, err);
    if (rc)
        return rc;
    const struct sock_filter *steps = (const struct sock_filter *)(const void *)code.data;
    kiln_buf_addf(out, "// Made by kiln-calls from consumer/policy/calls.c.\n#include \"consumer/run/filter.h\"\n\n"
                       "const struct sock_filter kiln_filter_code[] = {\n");
    for (size_t i = 0; i < code.len / sizeof *steps; i++)
        kiln_buf_addf(out, "    {%#x, %u, %u, %#x},\n", steps[i].code, steps[i].jt, steps[i].jf, steps[i].k);
    kiln_buf_add_str(out, "};\nconst size_t kiln_filter_code_count = sizeof kiln_filter_code / sizeof *kiln_filter_code;\n");
    return kiln_buf_check(out, "filter", err);
}

static int make_profile(struct kiln_buf *out, struct kiln_err *err) {
    char profile[64];
    int rc = profile_of_table(profile, err);
    return rc ? rc : kiln_buf_addf(out, "%s\n", profile);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*make)(struct kiln_buf *out, struct kiln_err *err);
    } products[] = {{"filter", make_source}, {"page", kiln_calls_page}, {"docker", kiln_calls_docker}, {"profile", make_profile}};
    for (size_t i = 0; argc == 2 && i < sizeof products / sizeof *products; i++) {
        if (strcmp(argv[1], products[i].name))
            continue;
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(TEXT_BYTES_MAX);
        struct kiln_err err = {0};
        if (products[i].make(&out, &err) == 0 && fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0)
            return EXIT_SUCCESS;
        fprintf(stderr, "kiln-calls: %s\n", err.text);
        return EXIT_FAILURE;
    }
    fputs("usage: kiln-calls filter|page|docker|profile\n", stderr);
    return 2;
}
