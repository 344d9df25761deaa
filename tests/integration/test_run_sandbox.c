// kiln-run from outside: what a job sees, what it may write, how its end is reported, what start-up refuses.
#include "tests/integration/sandbox_rig.h"

static void runs_a_job(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "hello", NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, "hello\n");
    assert_string_equal(kiln_buf_text(&rig.errout), "oops\n");
    assert_string_equal(rig.report.text, "");
}
static int tests(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(runs_a_job)};
    return cmocka_run_group_tests_name("sandbox", all, NULL, NULL);
}
int main(void) { return rig_both(tests); }
