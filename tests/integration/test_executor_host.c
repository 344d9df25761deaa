// What an executor does about a host that cannot bound its jobs.
#include "tests/integration/sandbox_rig.h"

#include "consumer/executor/host.h"

#define REFUSES "executor.insecure_limits"

static char directory[] = "/tmp/kiln-host-XXXXXX";

// A kiln-run that answers so.
static const char *stand_in(const char *script) {
    static char path[64];
    snprintf(path, sizeof path, "%s/kiln-run", directory);
    unlink(path);
    kiln_autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    assert_int_equal(dprintf(fd, "#!/bin/sh\n%s\n", script) > 0, 1);
    return path;
}

static void asks_kiln_run(void **state) {
    (void)state;
    static const struct {
        const char *script;
        int strict, lenient;
        const char *text;
    } cases[] = {
        {"echo ok limit_memory fine; exit 0", 0, 0, ""},
        {"echo weak limit_memory lacks it; echo ok limit_swap fine; echo weak limit_cpu too; exit 1", KILN_E_DENIED, 0,
         "limit_memory lacks it; limit_cpu too"},
        {"echo weak limit_memory lacks it; exit 0", KILN_E_DENIED, 0, REFUSES}, // its words count
        {"exit 1", KILN_E_INTERNAL, 0, "cannot say"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        const char *program = stand_in(cases[i].script);
        assert_int_equal(kiln_executor_check_limits(program, NULL, false, &err), cases[i].strict);
        if (!strstr(err.text, cases[i].text))
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(kiln_executor_check_limits(program, NULL, true, &err), cases[i].lenient);
    }
    struct kiln_err err = {0};
    assert_int_not_equal(kiln_executor_check_limits("/absent/kiln-run", NULL, false, &err), 0);
    assert_int_equal(kiln_executor_check_limits("/absent/kiln-run", NULL, true, &err), 0);
}

// An ordinary user who was given no control group is refused a fleet's executor; kiln-run's own words.
static void asks_the_real_one(void **state) {
    (void)state;
    struct kiln_err err = {0};
    int rc = kiln_executor_check_limits(RIG_RUN, NULL, false, &err);
    bool group = access("/sys/fs/cgroup/memory", W_OK) == 0 && access("/sys/fs/cgroup/cpu", W_OK) == 0;
    if (group)
        assert_int_equal(rc, 0);
    else if (rc) // a user may have been given one
        assert_non_null(strstr(err.text, "limit_"));
    assert_int_equal(kiln_executor_check_limits(RIG_RUN, NULL, true, &err), 0);
}

static int tests(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(asks_kiln_run), cmocka_unit_test(asks_the_real_one)};
    strcpy(directory, "/tmp/kiln-host-XXXXXX");
    if (!mkdtemp(directory))
        return 1;
    int failed = cmocka_run_group_tests_name("executor host", all, NULL, NULL);
    kiln_fs_remove_tree(AT_FDCWD, directory, NULL);
    return failed;
}

int main(void) { return rig_both(tests); }
