// A slot runs one job after the other: nothing that one leaves is seen by the next. 200 pairs of jobs, with KILN_FULL 10,000; as root
// and as an ordinary user, since the walls are raised differently.
#include "tests/integration/sandbox_rig.h"

#define PAIRS 200
#define PAIRS_FULL 10000
#define LEFT_LEAST 6 // a file and a link in each of the out, tmp and observer directories

static void run_one(struct rig *rig, const char *deed, const char *word) {
    rig_init(rig);
    rig_bind(rig, rig_program("tests/attacker"), "/attacker");
    rig_command(rig, "/attacker", deed, word, NULL);
    rig_go(rig);
    rig_assert_end(rig, KILN_END_EXIT, 0);
}

// Who looks finds what is there: in the same job.
static void the_canary_can_be_found(void **state) {
    (void)state;
    rig_auto struct rig rig;
    run_one(&rig, "leave-and-find-canary", "sitting-canary");
    const char *text = kiln_buf_text(&rig.out);
    static const char *const places[] = {"/tmp/sitting-canary\n", "found a variable\n", "/cmdline\n"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strstr(text, places[i]))
            fail_msg("%s is not found: %s", places[i], text);
    kiln_autofree char *out = kiln_path_join(rig.spec.out_dir, "sitting-canary\n");
    kiln_autofree char *observer = kiln_path_join(rig.spec.observer_dir, "sitting-canary\n");
    assert_non_null(strstr(text, out));
    assert_non_null(strstr(text, observer));
}

static const char *backwards(const char *word) {
    static char text[40];
    size_t len = strlen(word);
    for (size_t i = 0; i <= len; i++)
        text[i] = i < len ? word[len - 1 - i] : 0;
    return text;
}

static void no_job_sees_what_another_left(void **state) {
    (void)state;
    unsigned pairs = getenv("KILN_FULL") ? RIG_ROUNDS(PAIRS_FULL) : RIG_ROUNDS(PAIRS);
    for (unsigned i = 0; i < pairs; i++) {
        rig_auto struct rig first, second;
        char word[40];
        unsigned left = 0;
        snprintf(word, sizeof word, "canary-%d-%u", (int)getpid(), i);
        run_one(&first, "leave-canary", word);
        if (sscanf(kiln_buf_text(&first.out), "left %u\n", &left) != 1 || left < LEFT_LEAST)
            fail_msg("only left %u: %s", left, kiln_buf_text(&first.out));
        run_one(&second, "find-canary", backwards(word));
        rig_assert_out(&second, "clean\n");
    }
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(the_canary_can_be_found),
        cmocka_unit_test(no_job_sees_what_another_left),
    };
    return cmocka_run_group_tests_name("residue", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
