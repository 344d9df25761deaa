// Who set a variable: processes called "cargo" and others are made from copies of this program.
//
// Run as NAME ask VARIABLE VALUE, it exits 0 when the variable counts as the user's. Run as NAME run ARGUMENT..., it sets
// what comes as NAME=VALUE, runs the rest and passes on its exit status.
#include "scratch.h"

#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "lib/ipc/origin.h"

static int run_rest(char **argv) {
    while (*argv && strchr(*argv, '='))
        putenv(*argv++);
    pid_t child = fork();
    if (child == 0) {
        execv(argv[0], argv);
        _exit(99);
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return 98;
    return WEXITSTATUS(status);
}

static void copy_self(const struct scratch *scratch, const char *name) {
    kiln_autofd int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    kiln_autofd int out = openat(scratch->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_true(in >= 0 && out >= 0);
    assert_int_equal(kiln_fs_copy_fd(in, out, UINT64_MAX, NULL, NULL), 0);
}

static const struct origin_case {
    const char *name, *outer; // outer: the environment of the first process
    const char *chain[8];     // arguments: programs by name, "run", and variables they set
    bool is_user;
} cases[] = {
    {"no cargo at all", NULL, {"other", "run", "KILN_DIR=/x", NULL}, true},
    {"cargo given the variable", "KILN_DIR=/x", {"cargo", "run", NULL}, true},
    {"cargo given another value", "KILN_DIR=/y", {"cargo", "run", "KILN_DIR=/x", NULL}, false},
    {"cargo given a longer value", "KILN_DIR=/xx", {"cargo", "run", "KILN_DIR=/x", NULL}, false},
    {"cargo sets it", NULL, {"cargo", "run", "KILN_DIR=/x", NULL}, false},
    {"a build script sets it", NULL, {"cargo", "run", "other", "run", "KILN_DIR=/x", NULL}, false},
    {"cargo given it, through a script", "KILN_DIR=/x", {"cargo", "run", "other", "run", NULL}, true},
    {"inner cargo given it by outer cargo", NULL, {"cargo", "run", "KILN_DIR=/x", "cargo", "run", NULL}, true},
    {"a name that ends alike", "MY_KILN_DIR=/x", {"cargo", "run", "KILN_DIR=/x", NULL}, false},
    {"a name that begins alike", "KILN_DIR2=/x", {"cargo", "run", "KILN_DIR=/x", NULL}, false},
};

static int run_case(const struct scratch *scratch, const struct origin_case *one) {
    pid_t child = fork();
    if (child == 0) {
        char *argv[16];
        size_t argc = 0;
        for (size_t i = 0; one->chain[i]; i++) {
            bool is_word = strchr(one->chain[i], '=') || !strcmp(one->chain[i], "run");
            argv[argc++] = strdup(is_word ? one->chain[i] : scratch_path(scratch, one->chain[i]));
        }
        argv[argc++] = strdup(scratch_path(scratch, "asker"));
        char *ask[] = {TEXT("ask"), TEXT("KILN_DIR"), TEXT("/x"), NULL};
        memcpy(argv + argc, ask, sizeof ask);
        char *env[] = {TEXT("PADDING=1"), TEXT(one->outer), NULL};
        execve(argv[0], argv, env);
        _exit(97);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_table(void **state) {
    const struct scratch *scratch = *state;
    copy_self(scratch, "cargo");
    copy_self(scratch, "other");
    copy_self(scratch, "asker");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = run_case(scratch, &cases[i]);
        if (code != !cases[i].is_user)
            fail_msg("%s: %d", cases[i].name, code);
    }
}

static void test_process_that_is_not_there(void **state) {
    (void)state;
    assert_false(kiln_origin_is_user(0x7ffffff0, "KILN_DIR", "/x"));
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "ask"))
        return !kiln_origin_is_user(getpid(), argv[2], argv[3]);
    if (argc > 2 && !strcmp(argv[1], "run"))
        return run_rest(argv + 2);
    const struct CMUnitTest tests[] = {
        scratch_test(test_table),
        cmocka_unit_test(test_process_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
