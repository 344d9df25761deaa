// Judging: what becomes of every way a run can end, and of every way an executor can be wrong about it.
#include "lib/rustc/paths.h"
#include "lib/wire/attested.h"
#include "tests/unit/verifier_rig.h"
#include "verifier/judge.h"

static const char rlib[] = "an rlib", rmeta[] = "an rmeta", warnings[] = "warning: x";
static const char plain_dep_info[] = "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n";

static void free_candidate(struct kiln_candidate *candidate) { kiln_candidate_release(candidate); }
#define auto_candidate __attribute__((cleanup(free_candidate))) struct kiln_candidate
#define auto_judgement kiln_auto(kiln_judgement_release) struct kiln_judgement

static void set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

static void add_text(char ***list, size_t *count, const char *text) {
    *list = reallocarray(*list, *count + 1, sizeof **list);
    (*list)[(*count)++] = strdup(text);
}

// Claims an output, and uploads it as the executor would.
static void add_output(const struct rig *rig, struct kiln_candidate *candidate, enum kiln_output_kind kind,
                       const char *name, const void *bytes, size_t len) {
    struct kiln_err err;
    candidate->outputs = reallocarray(candidate->outputs, candidate->outputs_count + 1, sizeof *candidate->outputs);
    struct kiln_candidate_output *output = &candidate->outputs[candidate->outputs_count++];
    *output = (struct kiln_candidate_output){.kind = kind, .name = strdup(name), .size = len};
    kiln_digest_of(bytes, len, &output->digest);
    kiln_autofree char *key = kiln_candidate_key(candidate, &output->digest);
    assert_ok(kiln_store_put_bytes(rig->executor, KILN_SPACE_QUARANTINE, key, bytes, len, NULL, &err));
}

static void make_candidate(const struct rig *rig, const char *dep_info, struct kiln_candidate *candidate) {
    *candidate = (struct kiln_candidate){.job = {{1}}, .incarnation = {{2}}, .attempt = 1, .executor = strdup("executor"),
                                         .pool = strdup("local"), .backend = strdup("bwrap"),
                                         .action_digest = rig->action_digest, .status = KILN_RUN_EXITED,
                                         .at_ms = 1600000000000, .signature = {.bytes = {[63] = 9}}};
    add_output(rig, candidate, KILN_OUTPUT_FILE, "libdemo-0123.rlib", rlib, sizeof rlib);
    add_output(rig, candidate, KILN_OUTPUT_FILE, "libdemo-0123.rmeta", rmeta, sizeof rmeta);
    add_output(rig, candidate, KILN_OUTPUT_FILE, "demo-0123.d", dep_info, strlen(dep_info));
    add_output(rig, candidate, KILN_OUTPUT_STDOUT, "", "", 0);
    add_output(rig, candidate, KILN_OUTPUT_STDERR, "", warnings, sizeof warnings);
}

static void judge(const struct rig *rig, const struct kiln_candidate *candidate, struct kiln_judgement *judgement) {
    struct kiln_err err;
    char *closure[] = {TEXT("libdep-01"), TEXT("libmac-02")};
    const struct kiln_judge bench = {.store = rig->verifier, .scope = "local", .generation = 1, .now_ms = 1700000000000,
                                     .closure = closure, .closure_count = 2};
    assert_ok(kiln_judge(&bench, candidate, &rig->action, judgement, &err));
}

static void assert_verdict(const struct rig *rig, const struct kiln_candidate *candidate, enum kiln_plan_verdict verdict,
                           const char *reason) {
    auto_judgement judgement = {0};
    judge(rig, candidate, &judgement);
    assert_int_equal(judgement.verdict, verdict);
    assert_non_null(judgement.reason);
    if (strncmp(judgement.reason, reason, strlen(reason)) != 0)
        fail_msg("%s instead of %s", judgement.reason, reason);
    assert_int_equal(judgement.result.outputs_count, 0);
}

static void success(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    auto_judgement judgement = {0};
    make_candidate(rig, plain_dep_info, &candidate);
    judge(rig, &candidate, &judgement);
    assert_int_equal(judgement.verdict, KILN_PLAN_STORED);
    assert_null(judgement.reason);
    const struct kiln_result *result = &judgement.result;
    assert_int_equal(result->outcome, KILN_OUTCOME_SUCCESS);
    assert_int_equal(result->outputs_count, 5);
    assert_string_equal(result->outputs[0].name, "demo-0123.d");
    for (size_t i = 0; i < 5; i++)
        assert_false(result->outputs[i].executable);
    assert_int_equal(result->closure_count, 2);
    assert_true(kiln_digest_equal(&result->action, &rig->action_digest));
    assert_int_equal(result->expires_ms, 0);
}

static void ends_that_give_nothing(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    make_candidate(rig, plain_dep_info, &candidate);
    candidate.exit_code = 101;
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "job_failed: exit code 101");
    add_text(&candidate.observations, &candidate.observations_count, "clock: macro"); // does not make it better
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "job_failed: ");
    candidate.exit_code = 0;
    candidate.status = KILN_RUN_SIGNALED;
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "job_failed: ");
    candidate.status = KILN_RUN_INFRA;
    assert_verdict(rig, &candidate, KILN_PLAN_AGAIN, "executor_trouble: ");
    add_text(&candidate.reasons, &candidate.reasons_count, "job_limit: memory");
    assert_verdict(rig, &candidate, KILN_PLAN_AGAIN, "job_limit: memory");
    candidate.status = KILN_RUN_LIMIT;
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "job_limit: memory");
    candidate.status = KILN_RUN_INFRA;
    set(&candidate.reasons[0], "sandbox_unavailable: no user namespaces");
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "sandbox_unavailable: ");
    set(&candidate.reasons[0], "observer_unavailable: somebody else watches");
    assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "observer_unavailable: ");
}

// What the arguments call for decides; an executor that says otherwise attests another result.
static void modes_as_the_arguments_call_for(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    make_candidate(rig, plain_dep_info, &candidate);
    for (size_t i = 0; i < candidate.outputs_count; i++) {
        candidate.outputs[i].executable = true;
        assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "form: output ");
        candidate.outputs[i].executable = false;
    }
}

static void says_what_the_action_named(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    auto_judgement judgement = {0};
    make_candidate(rig, plain_dep_info, &candidate);
    judge(rig, &candidate, &judgement);
    const struct kiln_result *result = &judgement.result;
    struct kiln_digest inputs, outputs;
    assert_int_equal(kiln_action_inputs_digest(&rig->action, &inputs, NULL), 0);
    assert_int_equal(kiln_result_outputs_digest(result->outputs, result->outputs_count, &outputs, NULL), 0);
    assert_true(kiln_digest_equal(&result->inputs, &inputs));
    assert_string_equal(result->profile, rig->action.profile);
    assert_true(kiln_digest_equal(&result->toolchain_runtime, &rig->action.toolchain_runtime));
    assert_true(kiln_digest_equal(&result->toolchain_rustc, &rig->action.toolchain_rustc));
    assert_true(kiln_digest_equal(&result->toolchain_link, &rig->action.toolchain_link));
    assert_string_equal(result->policy, "agreement=1");
    assert_int_equal(result->attestations_count, 1);
    const struct kiln_attestation *attestation = &result->attestations[0];
    assert_string_equal(attestation->executor, "executor");
    assert_string_equal(attestation->pool, "local");
    assert_string_equal(attestation->backend, "bwrap");
    assert_int_equal(attestation->at_ms, 1600000000000);
    assert_int_equal(attestation->signature[63], 9);
    assert_true(kiln_digest_equal(&attestation->outputs, &outputs));
}

static void observed(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    make_candidate(rig, plain_dep_info, &candidate);
    static const char *const what[] = {"undeclared_path: /etc/hosts", "clock: gettimeofday", "undeclared_path: /etc/hosts", ""};
    for (size_t i = 0; i < 4; i++)
        add_text(&candidate.observations, &candidate.observations_count, what[i]);
    auto_judgement judgement = {0};
    judge(rig, &candidate, &judgement);
    assert_int_equal(judgement.verdict, KILN_PLAN_STORED);
    assert_int_equal(judgement.result.outcome, KILN_OUTCOME_LOCAL);
    assert_int_equal(judgement.result.outputs_count, 0);
    assert_int_equal(judgement.result.closure_count, 0);
    // Attested are the outputs as they were: that is what the executor signed.
    struct kiln_attestation attestation;
    assert_int_equal(kiln_candidate_attestation(&candidate, &attestation, NULL), 0);
    assert_true(kiln_digest_equal(&judgement.result.attestations[0].outputs, &attestation.outputs));
    assert_int_equal(judgement.result.reasons_count, 3);
    assert_string_equal(judgement.result.reasons[0], "clock: gettimeofday");
    assert_string_equal(judgement.result.reasons[2], "undeclared_path: /etc/hosts");
}

static void many_observations(void **state) {
    struct rig *rig = *state;
    auto_candidate candidate;
    make_candidate(rig, plain_dep_info, &candidate);
    char text[32];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "undeclared_path: /%u", i);
        add_text(&candidate.observations, &candidate.observations_count, text);
    }
    auto_judgement judgement = {0};
    judge(rig, &candidate, &judgement);
    assert_int_equal(judgement.verdict, KILN_PLAN_STORED);
    assert_int_equal(judgement.result.reasons_count, KILN_RESULT_REASONS_MAX);
}

static void assert_reasons(const struct rig *rig, const char *env_lines, const char *const *reasons) {
    kiln_autofree char *text = NULL;
    assert_true(asprintf(&text, "%s\n%s", plain_dep_info, env_lines) >= 0);
    auto_candidate candidate;
    auto_judgement judgement = {0};
    make_candidate(rig, text, &candidate);
    judge(rig, &candidate, &judgement);
    assert_int_equal(judgement.verdict, KILN_PLAN_STORED);
    size_t count = 0;
    while (reasons[count])
        count++;
    assert_int_equal(judgement.result.outcome, count ? KILN_OUTCOME_LOCAL : KILN_OUTCOME_SUCCESS);
    assert_int_equal(judgement.result.reasons_count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(judgement.result.reasons[i], reasons[i]);
}

static void variables(void **state) {
    struct rig *rig = *state;
    assert_reasons(rig, "# env-dep:CARGO_PKG_NAME=demo\n# env-dep:DEBUG\n# env-dep:OUT_DIR=/x\n", (const char *const[]){NULL});
    assert_reasons(rig, "# env-dep:HOSTNAME\n", (const char *const[]){"undeclared_env: HOSTNAME", NULL});
    assert_reasons(rig, "# env-dep:CARGO_MANIFEST_DIR=/x\n", (const char *const[]){"path_value: CARGO_MANIFEST_DIR", NULL});
    assert_reasons(rig, "# env-dep:USER=me\n# env-dep:CARGO_MANIFEST_DIR=/x\n# env-dep:CARGO_PKG_NAME=demo\n",
                   (const char *const[]){"path_value: CARGO_MANIFEST_DIR", "undeclared_env: USER", NULL});
}

static void bad_dep_info(void **state) {
    struct rig *rig = *state;
    static const char *const texts[] = {"", "no dep-info at all", "a: b", "/t/x: src/lib.rs\n\nsrc/other.rs:\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        auto_candidate candidate;
        make_candidate(rig, texts[i], &candidate);
        assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "form: demo-0123.d is no dep-info");
    }
}

// An executor that says one thing and uploads another, or nothing.
static void lost_dep_info(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    auto_candidate candidate;
    make_candidate(rig, plain_dep_info, &candidate);
    kiln_autofree char *key = kiln_candidate_key(&candidate, &candidate.outputs[2].digest);
    rig_damage(rig, "quarantine", key);
    assert_verdict(rig, &candidate, KILN_PLAN_AGAIN, "outputs: demo-0123.d has other bytes");
    assert_ok(kiln_store_remove(rig->verifier, KILN_SPACE_QUARANTINE, key, &err));
    assert_verdict(rig, &candidate, KILN_PLAN_AGAIN, "outputs: demo-0123.d was not uploaded");
}

static void rename_first(struct kiln_candidate *c, const char *name) { set(&c->outputs[0].name, name); }

static void wrong_names(void **state) {
    struct rig *rig = *state;
    static const struct {
        const char *name, *reason;
    } cases[] = {
        {"libother-0123.rlib", "form: unexpected output"}, {"../libdemo-0123.rlib", "form: unexpected output"},
        {"libdemo-0123.rlib/x", "form: unexpected output"}, {"", "form: unexpected output"},
        {"libdemo-0123.so", "form: unexpected output"},     {"libdemo-0123.rmeta", "form: output libdemo-0123.rlib is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_candidate candidate;
        make_candidate(rig, plain_dep_info, &candidate);
        rename_first(&candidate, cases[i].name);
        assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, cases[i].reason);
    }
    auto_candidate doubled;
    make_candidate(rig, plain_dep_info, &doubled);
    add_output(rig, &doubled, KILN_OUTPUT_FILE, "libdemo-0123.rlib", "other", 5);
    assert_verdict(rig, &doubled, KILN_PLAN_LOCALLY, "form: the outputs are no result");
    auto_candidate two_texts;
    make_candidate(rig, plain_dep_info, &two_texts);
    add_output(rig, &two_texts, KILN_OUTPUT_STDERR, "", "other", 5);
    assert_verdict(rig, &two_texts, KILN_PLAN_LOCALLY, "form: the outputs are no result");
}

static void incomplete(void **state) {
    struct rig *rig = *state;
    for (size_t missing = 0; missing < 2; missing++) {
        auto_candidate candidate;
        make_candidate(rig, plain_dep_info, &candidate);
        free(candidate.outputs[missing].name);
        candidate.outputs[missing] = candidate.outputs[--candidate.outputs_count];
        assert_verdict(rig, &candidate, KILN_PLAN_LOCALLY, "form: output libdemo-0123.r");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        rig_test(success),
        rig_test(ends_that_give_nothing),
        rig_test(modes_as_the_arguments_call_for),
        rig_test(says_what_the_action_named),
        rig_test(observed),
        rig_test(many_observations),
        rig_test(variables),
        rig_test(bad_dep_info),
        rig_test(lost_dep_info),
        rig_test(wrong_names),
        rig_test(incomplete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
