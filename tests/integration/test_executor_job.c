// One job through the executor: from work and stored inputs to a candidate and uploaded outputs, in a real sandbox.
#include "tests/integration/executor_rig.h"

static void brings_back_what_was_made(void **state) {
    const struct world *world = *state;
    struct kiln_candidate candidate = {0};
    executor_run(world, "good", &candidate);
    if (candidate.status != KILN_RUN_EXITED || candidate.exit_code || candidate.observations_count || candidate.reasons_count)
        explain(&candidate);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.exit_code, 0);
    assert_int_equal(candidate.observations_count, 0);
    assert_int_equal(candidate.outputs_count, 5);
    kiln_autofree char *source = kiln_place(KILN_PLACE_WORKSPACE, "lib.rs");
    for (size_t i = 0; i < candidate.outputs_count; i++) {
        const struct kiln_candidate_output *output = &candidate.outputs[i];
        const char *expected = output->kind == KILN_OUTPUT_STDOUT        ? "said\n"
                               : output->kind == KILN_OUTPUT_STDERR      ? "warned\n"
                               : !strcmp(output->name, "libfoo-abc.rlib") ? SOURCE
                               : !strcmp(output->name, "foo-abc.d")       ? source
                                                                          : "metadata";
        assert_stored(world, output, expected);
    }
    assert_string_equal(candidate.executor, EXECUTOR);
    assert_string_equal(candidate.backend, "bwrap");
    kiln_candidate_release(&candidate);
}

static void reports_how_a_job_ended(void **state) {
    const struct world *world = *state;
    static const struct {
        const char *deed;
        enum kiln_run_status status;
        int exit_code;
        const char *reason;
    } cases[] = {
        {"fail", KILN_RUN_EXITED, 1, NULL},
        {"abort", KILN_RUN_SIGNALED, 6, "job_signal"},
        {"link-to-host", KILN_RUN_LIMIT, 0, "job_outputs: output libfoo-abc.rlib"},
        {"forget", KILN_RUN_LIMIT, 0, "job_outputs: output libfoo-abc.rmeta is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_candidate candidate = {0};
        executor_run(world, cases[i].deed, &candidate);
        if (candidate.status != cases[i].status)
            explain(&candidate);
        assert_int_equal(candidate.status, cases[i].status);
        assert_int_equal(candidate.exit_code, cases[i].exit_code);
        assert_int_equal(candidate.outputs_count, 0); // nothing of a failed job leaves the executor
        assert_true(!cases[i].reason || starts_with_any(candidate.reasons, candidate.reasons_count, cases[i].reason));
        kiln_candidate_release(&candidate);
    }
}

static void observes_what_makes_a_result_local(void **state) {
    const struct world *world = *state;
    static const char *const cases[][2] = {
        {"path-value", "path_value: "},
        {"ask-host", "undeclared_path: /etc/hostname"},
        {"log-link", "observer_missing: "},
        {"log-short", "observer_missing: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_candidate candidate = {0};
        executor_run(world, cases[i][0], &candidate);
        assert_int_equal(candidate.status, KILN_RUN_EXITED);
        if (!starts_with_any(candidate.observations, candidate.observations_count, cases[i][1])) {
            explain(&candidate);
            fail_msg("%s was not observed as \"%s\"", cases[i][0], cases[i][1]);
        }
        kiln_candidate_release(&candidate);
    }
}

// An object that the loader does not take is ignored by it, and nobody would watch.
static void notices_that_nobody_watches(void **state) {
    struct world *world = *state;
    struct kiln_candidate candidate = {0};
    world->context.observer = COMPILER;
    executor_run(world, "good", &candidate);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_true(starts_with_any(candidate.observations, candidate.observations_count, "observer_missing"));
    kiln_candidate_release(&candidate);
}

static void blames_itself_where_it_should(void **state) {
    struct world *world = *state;
    struct kiln_candidate candidate = {0};
    const char *observer = world->context.observer, *run_program = world->context.run_program;
    world->context.observer = "/absent/observe.so";
    executor_run(world, "good", &candidate);
    assert_int_equal(candidate.status, KILN_RUN_INFRA);
    kiln_candidate_release(&candidate);
    world->context.observer = observer;
    world->context.run_program = "/absent/kiln-run";
    executor_run(world, "good", &candidate);
    assert_int_equal(candidate.status, KILN_RUN_INFRA);
    assert_true(starts_with_any(candidate.reasons, candidate.reasons_count, "sandbox_unavailable: "));
    kiln_candidate_release(&candidate);
    world->context.run_program = run_program;
    world->pack.bytes[0] ^= 1;
    executor_run(world, "good", &candidate);
    assert_int_equal(candidate.status, KILN_RUN_INFRA);
    assert_true(starts_with_any(candidate.reasons, candidate.reasons_count, "staging: "));
    kiln_candidate_release(&candidate);
}

// Another table of system calls is another sandbox: what it gives is not this action's result.
static void refuses_work_for_another_sandbox(void **state) {
    struct world *world = *state;
    kiln_autoaction struct kiln_action action = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    make_action(world, "good", &action);
    free(action.profile);
    action.profile = strdup(KILN_PROFILE_VERSION "-0000000000000000");
    assert_int_equal(kiln_action_encode(&action, &encoding, NULL), 0);
    struct kiln_work work = {.attempt = 1, .lease_ms = 10000, .action = encoding.data, .action_len = encoding.len,
                             .scope = (char *)"local"};
    struct kiln_candidate candidate = {0};
    struct kiln_err err = {0};
    assert_int_equal(kiln_action_digest(&action, &work.action_digest, NULL), 0);
    assert_int_equal(kiln_job_run(&world->context, &work, &candidate, &err), 0);
    assert_int_equal(candidate.status, KILN_RUN_INFRA);
    assert_true(starts_with_any(candidate.reasons, candidate.reasons_count, "staging: the action is for sandbox"));
    assert_int_equal(candidate.outputs_count, 0);
    kiln_candidate_release(&candidate);
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup_teardown(brings_back_what_was_made, setup, teardown),
        cmocka_unit_test_setup_teardown(reports_how_a_job_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(observes_what_makes_a_result_local, setup, teardown),
        cmocka_unit_test_setup_teardown(notices_that_nobody_watches, setup, teardown),
        cmocka_unit_test_setup_teardown(blames_itself_where_it_should, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_work_for_another_sandbox, setup, teardown),
    };
    return cmocka_run_group_tests_name("executor job", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
