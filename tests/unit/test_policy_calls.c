// The table of system calls and what is made of it: the compiled filter's answers, the page for people, Docker's profile.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "consumer/policy/calls.h"
#include "consumer/policy/describe.h"
#include "consumer/run/filter.h"
#include "lib/base/fs.h"

#define PAGE KILN_SOURCE_DIR "/consumer/policy/README.md"
#define X32_BIT 0x40000000

// What the kernel would answer: the classic BPF that such filters are made of.
static uint32_t answer_of(const struct sock_filter *code, size_t count, const struct seccomp_data *call) {
    uint32_t a = 0;
    for (size_t at = 0; at < count; at++) {
        const struct sock_filter *step = &code[at];
        switch (step->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_in_range(step->k, 0, sizeof *call - sizeof a);
            memcpy(&a, (const char *)call + step->k, sizeof a);
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= step->k;
            break;
        case BPF_JMP | BPF_JA:
            at += step->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            at += a == step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            at += a > step->k ? step->jt : step->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            at += a >= step->k ? step->jt : step->jf;
            break;
        case BPF_RET | BPF_K:
            return step->k;
        default:
            fail_msg("step %zu is %#x", at, step->code);
        }
    }
    fail_msg("the filter has no end");
    return 0;
}

static uint32_t answer(const struct seccomp_data *call) {
    return answer_of(kiln_filter_code, kiln_filter_code_count, call);
}

static uint32_t refusal(int error) { return SECCOMP_RET_ERRNO | (uint32_t)error; }

static void answers_as_the_table_says(void **state) {
    (void)state;
#ifndef __x86_64__
    skip();
#else
    static const struct {
        int number;
        uint64_t args[6];
        int error; // 0: allowed
    } cases[] = {
        {SYS_read, {0}, 0},
        {SYS_execve, {0}, 0},
        {SYS_clone, {CLONE_VM | CLONE_THREAD | SIGCHLD}, 0},
        {SYS_clone, {CLONE_NEWUSER | SIGCHLD}, ENOSYS},
        {SYS_clone, {CLONE_VM | CLONE_NEWNET}, ENOSYS},
        {SYS_clone3, {0}, ENOSYS},
        {SYS_unshare, {CLONE_NEWUSER}, EPERM},
        {SYS_socket, {AF_INET}, EACCES},
        {SYS_socket, {AF_UNIX}, EACCES},
        {SYS_socketpair, {AF_UNIX}, 0},
        {SYS_socketpair, {AF_INET}, ENOSYS},
        {SYS_sendto, {3, 0, 0, 0, 0, 0}, 0},
        {SYS_sendto, {3, 0, 0, 0, 0x100000000u, 16}, ENOSYS},
        {SYS_ioctl, {0, TCGETS}, 0},
        {SYS_ioctl, {0, 0xffffffff00000000u | TCGETS}, 0}, // the kernel looks at the lower half, so does the rule
        {SYS_ioctl, {0, TIOCSTI}, ENOSYS},
        {SYS_prctl, {PR_SET_NAME}, 0},
        {SYS_prctl, {PR_SET_SECCOMP}, ENOSYS},
        {SYS_chmod, {0, 0755}, 0},
        {SYS_chmod, {0, 0xffffffff00000000u | S_ISUID | 0755}, ENOSYS},
        {SYS_fchmodat, {0, 0, S_ISGID}, ENOSYS},
        {SYS_openat, {0, 0, O_CREAT, 0644}, 0},
        {SYS_openat, {0, 0, O_CREAT, S_ISUID | 0755}, ENOSYS},
        {SYS_creat, {0, S_ISUID}, ENOSYS},
        {SYS_renameat2, {0, 0, 0, 0, 1}, 0},
        {SYS_renameat2, {0, 0, 0, 0, 4}, ENOSYS},
        {SYS_mknodat, {0}, EPERM},
        {SYS_mount, {0}, EPERM},
        {SYS_ptrace, {0}, EPERM},
        {SYS_bpf, {0}, EPERM},
        {SYS_keyctl, {0}, EPERM},
        {SYS_getrandom, {0}, ENOSYS},
        {SYS_io_uring_setup, {0}, ENOSYS},
        {SYS_memfd_create, {0}, ENOSYS},
        {452, {0}, ENOSYS}, // fchmodat2
        {4095, {0}, ENOSYS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seccomp_data call = {.nr = cases[i].number, .arch = AUDIT_ARCH_X86_64};
        memcpy(call.args, cases[i].args, sizeof cases[i].args);
        uint32_t expected = cases[i].error ? refusal(cases[i].error) : SECCOMP_RET_ALLOW;
        if (answer(&call) != expected)
            fail_msg("case %zu (call %d): %#x, not %#x", i, cases[i].number, answer(&call), expected);
    }
    struct seccomp_data other = {.nr = SYS_read, .arch = AUDIT_ARCH_I386};
    assert_int_equal(answer(&other), SECCOMP_RET_KILL_PROCESS);
    other = (struct seccomp_data){.nr = SYS_read | X32_BIT, .arch = AUDIT_ARCH_X86_64};
    assert_int_equal(answer(&other), SECCOMP_RET_KILL_PROCESS);
#endif
}

static int refused_by_kiln_run(int number) {
    for (size_t i = 0; i < kiln_filter_refusals_count; i++)
        if (kiln_filter_refusals[i].number == number)
            return kiln_filter_refusals[i].answer;
    return 0;
}

// A watched job gets the table's answers: what its filter lets through beyond them, kiln-run refuses with the same answer.
static void a_watched_job_gets_the_same(void **state) {
    (void)state;
    static const uint64_t arguments[] = {0, 1, 0x10000000, S_ISUID, 0xffffffffffffffffu};
    for (int number = 0; number < 1024; number++)
        for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
            uint64_t value = arguments[i];
            const struct seccomp_data call = {.nr = number, .arch = AUDIT_ARCH_X86_64, .args = {value, value, value, value, value, value}};
            uint32_t plain = answer(&call);
            uint32_t own = answer_of(kiln_filter_watched_code, kiln_filter_watched_code_count, &call);
            uint32_t watch = answer_of(kiln_filter_watch_code, kiln_filter_watch_code_count, &call);
            int refused = refused_by_kiln_run(number);
            if (refused ? plain != refusal(refused) || own != SECCOMP_RET_ALLOW || watch != SECCOMP_RET_USER_NOTIF : own != plain)
                fail_msg("call %d: %#x, watched %#x behind %#x", number, plain, own, watch);
            assert_true(watch == SECCOMP_RET_ALLOW || watch == SECCOMP_RET_USER_NOTIF);
        }
}

static void watches_who_asks(void **state) {
    (void)state;
    static const struct {
        int number;
        uint64_t args[6];
        bool watched;
    } cases[] = {
        {SYS_openat, {0}, true},
        {SYS_execve, {0}, true},
        {SYS_newfstatat, {0}, true},
        {SYS_newfstatat, {3, 0, 0, AT_EMPTY_PATH}, false},
        {SYS_statx, {3, 0, AT_EMPTY_PATH}, false},
        {SYS_clock_gettime, {CLOCK_REALTIME}, true},
        {SYS_clock_gettime, {CLOCK_MONOTONIC}, false},
        {SYS_read, {0}, false},
        {SYS_futex, {0}, false},
        {SYS_personality, {0xffffffff}, true}, // allowed, and nobody has said that it is harmless
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seccomp_data call = {.nr = cases[i].number, .arch = AUDIT_ARCH_X86_64};
        memcpy(call.args, cases[i].args, sizeof cases[i].args);
        bool watched = answer_of(kiln_filter_watch_code, kiln_filter_watch_code_count, &call) == SECCOMP_RET_USER_NOTIF;
        if (watched != cases[i].watched)
            fail_msg("case %zu (call %d)", i, cases[i].number);
    }
}

static void is_sealed(void **state) {
    (void)state;
    int fd = -1;
    assert_int_equal(kiln_filter_open(false, &fd, NULL), 0);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, kiln_filter_code_count * sizeof *kiln_filter_code);
    close(fd);
}

static size_t times_named(const char *name) {
    size_t times = 0, len = strlen(name);
    for (size_t i = 0; i < kiln_calls_count; i++)
        for (const char *at = kiln_calls[i].calls; (at = strstr(at, name)); at += len)
            times += (at == kiln_calls[i].calls || at[-1] == ' ') && (at[len] == 0 || at[len] == ' ');
    return times;
}

static void each_rule_is_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < kiln_calls_count; i++) {
        const struct kiln_call_rule *rule = &kiln_calls[i];
        char *names = strdup(rule->calls), *rest = names;
        for (char *name; (name = strsep(&rest, " "));)
            if (!*name || times_named(name) != 1)
                fail_msg("\"%s\" is named %zu times", name, times_named(name));
        free(names);
        assert_true(*rule->why);
        assert_true(rule->refusal || *rule->needed_by); // an allowed call has somebody who needs it
        assert_int_equal(rule->tests_count > 0, *rule->condition != 0);
        assert_false(rule->refusal && rule->tests_count);
    }
}

static void page_is_the_tables(void **state) {
    (void)state;
    struct kiln_buf page = KILN_BUF_INIT(1u << 20), file = KILN_BUF_INIT(1u << 20);
    assert_int_equal(kiln_calls_page(&page, NULL), 0);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, PAGE, &file, NULL), 0);
    if (strcmp(kiln_buf_text(&page), kiln_buf_text(&file)))
        fail_msg("consumer/policy/README.md is not what `kiln-calls page` prints");
    kiln_buf_release(&page);
    kiln_buf_release(&file);
}

int main(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(answers_as_the_table_says), cmocka_unit_test(a_watched_job_gets_the_same), cmocka_unit_test(watches_who_asks),
        cmocka_unit_test(is_sealed), cmocka_unit_test(each_rule_is_whole), cmocka_unit_test(page_is_the_tables),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
