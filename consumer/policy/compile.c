// kiln-calls: makes what is made of the table of system calls. A tool of the build; the only program that links libseccomp.
//
//   kiln-calls filter   C source of the filters that kiln-run holds (consumer/run/filter.h); fails when KILN_PROFILE is not this
//                       table's
//   kiln-calls page     the table for people; kiln-calls profile  what KILN_PROFILE must be
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "consumer/policy/calls.h"
#include "consumer/policy/describe.h"
#include "consumer/preload/asking.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/digest.h"
#include "lib/core/profile.h"

#define TEXT_BYTES_MAX (1u << 20)
#define DIGITS 16
#define DEFAULT_ANSWER ENOSYS
#define NOTIFY_API 5

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

// Refused calls that a macro could learn something by elsewhere. Where a job is watched (consumer/run/watch.h), kiln-run refuses
// them, having noted them; the answer is the same. All others are refused by the kernel, watched or not.
static const char *const refused_by_watch[] = {"socket", "connect", "getxattr", "lgetxattr", "listxattr", "llistxattr", "openat2"};

enum kind {
    PLAIN,   // the table
    WATCHED, // the table for a watched job: what kiln-run refuses goes through
    WATCH,   // what goes before that one: who asks for something waits for kiln-run
};

static bool is_refused_by_watch(const char *name) {
    for (size_t i = 0; i < sizeof refused_by_watch / sizeof *refused_by_watch; i++)
        if (!strcmp(name, refused_by_watch[i]))
            return true;
    return false;
}

static int resolve(const char *name, int *number, struct kiln_err *err) {
    *number = seccomp_syscall_resolve_name(name);
    return *number == __NR_SCMP_ERROR ? kiln_fail(err, KILN_E_INVAL, "%s is no system call that libseccomp knows", name) : 0;
}

static int add_call(scmp_filter_ctx filter, const char *name, const struct kiln_call_rule *rule, struct kiln_err *err) {
    int number;
    int rc = resolve(name, &number, err);
    if (rc)
        return rc;
    uint32_t action = rule->refusal ? SCMP_ACT_ERRNO((unsigned)rule->refusal) : SCMP_ACT_ALLOW;
    if (rule->tests_count == 0)
        rc = seccomp_rule_add(filter, action, number, 0);
    for (size_t i = 0; rc == 0 && i < rule->tests_count; i++) {
        const struct scmp_arg_cmp test = {.arg = rule->tests[i].argument, .op = SCMP_CMP_MASKED_EQ,
                                          .datum_a = rule->tests[i].mask, .datum_b = rule->tests[i].value};
        rc = seccomp_rule_add_array(filter, action, number, 1, &test);
    }
    return rc ? kiln_fail(err, KILN_E_INVAL, "the rule of %s: %s", name, strerror(-rc)) : 0;
}

static int add_one_watch(scmp_filter_ctx filter, int number, const struct scmp_arg_cmp *test) {
    return seccomp_rule_add_array(filter, SCMP_ACT_NOTIFY, number, test ? 1 : 0, test);
}

static int add_watch(scmp_filter_ctx filter, const char *name, struct kiln_err *err) {
    static const uint64_t wall_clocks[] = {CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI};
    int number;
    int rc = resolve(name, &number, err);
    if (rc)
        return rc;
    const struct kiln_asking *asking = kiln_asking_find(number);
    if (asking && asking->shape == KILN_ASKING_HARMLESS)
        return 0;
    if (asking && asking->shape == KILN_ASKING_CLOCK) {
        for (size_t i = 0; rc == 0 && i < sizeof wall_clocks / sizeof *wall_clocks; i++)
            rc = add_one_watch(filter, number, &SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffff, wall_clocks[i]));
    } else if (!strcmp(name, "newfstatat")) {
        // With this flag it is how standard libraries ask about what is open.
        rc = add_one_watch(filter, number, &SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0));
    } else if (!strcmp(name, "statx")) {
        rc = add_one_watch(filter, number, &SCMP_A2(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0));
    } else {
        rc = add_one_watch(filter, number, NULL);
    }
    return rc ? kiln_fail(err, KILN_E_INVAL, "watching %s: %s", name, strerror(-rc)) : 0;
}

static int add_rule(scmp_filter_ctx filter, const struct kiln_call_rule *rule, enum kind kind, struct kiln_err *err) {
    kiln_autofree char *names = strdup(rule->calls);
    if (!names)
        return kiln_fail(err, KILN_E_NOMEM, "filter");
    int rc = 0;
    char *rest = names;
    for (char *name; rc == 0 && (name = strsep(&rest, " "));) {
        if (kind != PLAIN && is_refused_by_watch(name))
            continue;
        if (kind != WATCH)
            rc = add_call(filter, name, rule, err);
        else if (!rule->refusal)
            rc = add_watch(filter, name, err);
    }
    return rc;
}

static int add_refused_by_watch(scmp_filter_ctx filter, enum kind kind, struct kiln_err *err) {
    static const struct kiln_call_rule through = {.calls = ""};
    int rc = 0;
    for (size_t i = 0; rc == 0 && kind != PLAIN && i < sizeof refused_by_watch / sizeof *refused_by_watch; i++)
        rc = kind == WATCH ? add_watch(filter, refused_by_watch[i], err) : add_call(filter, refused_by_watch[i], &through, err);
    return rc;
}

// The compiled filter, as an array of struct sock_filter.
static int compile(enum kind kind, struct kiln_buf *code, struct kiln_err *err) {
    scmp_filter_ctx filter = seccomp_init(kind == WATCH ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(DEFAULT_ANSWER));
    if (!filter)
        return kiln_fail(err, KILN_E_NOMEM, "filter");
    int rc = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS)
                 ? kiln_fail(err, KILN_E_INTERNAL, "libseccomp refuses to kill")
                 : 0;
    // What the kernel of the build can do does not matter.
    if (kind == WATCH && seccomp_api_set(NOTIFY_API))
        rc = kiln_fail(err, KILN_E_INTERNAL, "this libseccomp knows no notifications");
    if (rc == 0 && kind == WATCH && seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2))
        rc = kiln_fail(err, KILN_E_INTERNAL, "libseccomp makes no tree");
    for (size_t i = 0; rc == 0 && i < kiln_calls_count; i++)
        rc = add_rule(filter, &kiln_calls[i], kind, err);
    if (rc == 0)
        rc = add_refused_by_watch(filter, kind, err);
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

static int add_code(struct kiln_buf *out, const char *name, enum kind kind, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf code = KILN_BUF_INIT(TEXT_BYTES_MAX);
    int rc = compile(kind, &code, err);
    if (rc)
        return rc;
    const struct sock_filter *steps = (const struct sock_filter *)(const void *)code.data;
    kiln_buf_addf(out, "\nconst struct sock_filter %s[] = {\n", name);
    for (size_t i = 0; i < code.len / sizeof *steps; i++)
        kiln_buf_addf(out, "    {%#x, %u, %u, %#x},\n", steps[i].code, steps[i].jt, steps[i].jf, steps[i].k);
    kiln_buf_addf(out, "};\nconst size_t %s_count = sizeof %s / sizeof *%s;\n", name, name, name);
    return 0;
}

// The table's answer to a call that it refuses without a look at the arguments.
static int find_refusal(const char *name) {
    for (size_t i = 0; i < kiln_calls_count; i++) {
        const char *at = strstr(kiln_calls[i].calls, name);
        size_t len = strlen(name);
        if (at && (at == kiln_calls[i].calls || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
            return kiln_calls[i].refusal;
    }
    return DEFAULT_ANSWER;
}

static int add_refusals(struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_str(out, "\nconst struct kiln_filter_refusal kiln_filter_refusals[] = {\n");
    for (size_t i = 0; i < sizeof refused_by_watch / sizeof *refused_by_watch; i++) {
        int number, refusal = find_refusal(refused_by_watch[i]);
        int rc = resolve(refused_by_watch[i], &number, err);
        if (rc == 0 && !refusal)
            rc = kiln_fail(err, KILN_E_INVAL, "%s is allowed, kiln-run must not refuse it", refused_by_watch[i]);
        if (rc)
            return rc;
        kiln_buf_addf(out, "    {%d, %d}, // %s\n", number, refusal, refused_by_watch[i]);
    }
    kiln_buf_add_str(out, "};\nconst size_t kiln_filter_refusals_count = sizeof kiln_filter_refusals / sizeof *kiln_filter_refusals;\n");
    return 0;
}

static int make_source(struct kiln_buf *out, struct kiln_err *err) {
    char profile[64];
    int rc = profile_of_table(profile, err);
    if (rc == 0 && strcmp(profile, KILN_PROFILE))
        rc = kiln_fail(err, KILN_E_INVAL, "the table of system calls has changed: KILN_PROFILE in lib/core/profile.h must be \"%s\" "
                                          "now, so that no result of the old sandbox is taken for one of the new", profile);
    kiln_buf_add_str(out, "// Made by kiln-calls from consumer/policy/calls.c.\n#include \"consumer/run/filter.h\"\n");
    if (rc == 0)
        rc = add_code(out, "kiln_filter_code", PLAIN, err);
    if (rc == 0)
        rc = add_code(out, "kiln_filter_watched_code", WATCHED, err);
    if (rc == 0)
        rc = add_code(out, "kiln_filter_watch_code", WATCH, err);
    if (rc == 0)
        rc = add_refusals(out, err);
    return rc ? rc : kiln_buf_check(out, "filter", err);
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
    } products[] = {{"filter", make_source}, {"page", kiln_calls_page}, {"profile", make_profile}};
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
    fputs("usage: kiln-calls filter|page|profile\n", stderr);
    return 2;
}
