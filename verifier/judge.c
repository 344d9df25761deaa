#include "verifier/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/blob/bundle.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/depinfo.h"
#include "lib/rustc/environment.h"
#include "lib/rustc/paths.h"
#include "lib/wire/attested.h"

#define POLICY "agreement=1"

void kiln_judgement_release(struct kiln_judgement *judgement) {
    kiln_result_release(&judgement->result);
    kiln_harvest_release(&judgement->harvest);
    free(judgement->reason);
    *judgement = (struct kiln_judgement){0};
}

static char *key_of(const struct kiln_candidate *candidate, const char *name) {
    char job[33];
    for (size_t i = 0; i < sizeof candidate->job.bytes; i++)
        snprintf(job + 2 * i, 3, "%02x", candidate->job.bytes[i]);
    return kiln_key_quarantine_out(candidate->executor, job, candidate->attempt, name);
}

char *kiln_candidate_key(const struct kiln_candidate *candidate, const struct kiln_digest *digest) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    return key_of(candidate, hex);
}

char *kiln_candidate_bundle_key(const struct kiln_candidate *candidate) { return key_of(candidate, KILN_BUNDLE_NAME); }

// Sets a verdict that ends the judging. Returns 0, or KILN_E_NOMEM.
__attribute__((format(printf, 4, 5))) static int decide(struct kiln_judgement *judgement,
                                                        enum kiln_plan_verdict verdict, struct kiln_err *err,
                                                        const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int printed = vasprintf(&judgement->reason, fmt, args);
    va_end(args);
    if (printed < 0) {
        judgement->reason = NULL;
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a reason");
    }
    judgement->verdict = verdict;
    return 0;
}

// Outcomes of a run that never become results.
static int decide_by_status(const struct kiln_candidate *candidate, struct kiln_judgement *judgement,
                            struct kiln_err *err) {
    const char *reason = candidate->reasons_count && *candidate->reasons[0] ? candidate->reasons[0]
                                                                            : "executor_trouble: no reason given";
    // Where no sandbox can stand, or a job's calls cannot be watched, the next attempt ends the same way; everything else of this
    // kind may pass.
    bool hopeless = strncmp(reason, "sandbox_unavailable", strlen("sandbox_unavailable")) == 0 ||
                    strncmp(reason, "observer_unavailable", strlen("observer_unavailable")) == 0;
    switch (candidate->status) {
    case KILN_RUN_EXITED:
        if (candidate->exit_code == 0)
            return 0;
        return decide(judgement, KILN_PLAN_LOCALLY, err, "job_failed: exit code %d", candidate->exit_code);
    case KILN_RUN_SIGNALED: return decide(judgement, KILN_PLAN_LOCALLY, err, "job_failed: %s", reason);
    case KILN_RUN_LIMIT: return decide(judgement, KILN_PLAN_LOCALLY, err, "%s", reason);
    case KILN_RUN_INFRA:
        return decide(judgement, hopeless ? KILN_PLAN_LOCALLY : KILN_PLAN_AGAIN, err, "%s", reason);
    }
    return decide(judgement, KILN_PLAN_LOCALLY, err, "form: unknown status %d", (int)candidate->status);
}

struct expectation {
    struct kiln_expected_output *list;
    size_t count;
    bool dep_info; // the call writes one
};

static void release_expectation(struct expectation *expectation) {
    kiln_rustc_outputs_free(expectation->list, expectation->count);
}

static int expect(const struct kiln_action *action, struct expectation *expectation, struct kiln_err *err) {
    const struct kiln_argv_options options = {.canonical = true};
    kiln_autocall struct kiln_rustc_call call = {0};
    int rc = kiln_rustc_parse(action->argc, action->argv, &options, &call, err);
    if (!rc && call.kind != KILN_CALL_COMPILE)
        rc = kiln_fail(err, KILN_E_INTERNAL, "a job was run whose arguments are no compile");
    if (!rc)
        rc = kiln_rustc_outputs(&call, &expectation->list, &expectation->count, err);
    expectation->dep_info = (call.emits & KILN_EMIT_DEP_INFO) != 0;
    return rc;
}

static bool matches(const struct kiln_expected_output *expected, const char *name) {
    return expected->prefix ? strncmp(name, expected->name, strlen(expected->name)) == 0
                            : strcmp(name, expected->name) == 0;
}

// The exact name goes before a prefix that it has too.
static const struct kiln_expected_output *find_expected(const struct expectation *expectation, const char *name) {
    const struct kiln_expected_output *found = NULL;
    for (size_t i = 0; i < expectation->count; i++) {
        const struct kiln_expected_output *expected = &expectation->list[i];
        if (matches(expected, name) && (!found || !expected->prefix))
            found = expected;
    }
    return found;
}

static int check_complete(const struct kiln_candidate *candidate, const struct expectation *expectation,
                          struct kiln_judgement *judgement, struct kiln_err *err) {
    for (size_t i = 0; i < expectation->count; i++) {
        const struct kiln_expected_output *expected = &expectation->list[i];
        bool found = !expected->required;
        for (size_t k = 0; !found && k < candidate->outputs_count; k++)
            found = candidate->outputs[k].kind == KILN_OUTPUT_FILE && matches(expected, candidate->outputs[k].name);
        if (!found)
            return decide(judgement, KILN_PLAN_LOCALLY, err, "form: output %s is missing", expected->name);
    }
    return 0;
}

// Into the result, under names and modes that the arguments call for; an executor that claims others attests another result.
static int add_outputs(const struct kiln_candidate *candidate, const struct expectation *expectation,
                       struct kiln_judgement *judgement, struct kiln_err *err) {
    for (size_t i = 0; i < candidate->outputs_count; i++) {
        const struct kiln_candidate_output *output = &candidate->outputs[i];
        bool executable = false;
        if (output->kind == KILN_OUTPUT_FILE) {
            const struct kiln_expected_output *expected = find_expected(expectation, output->name);
            if (!expected)
                return decide(judgement, KILN_PLAN_LOCALLY, err, "form: unexpected output %.255s", output->name);
            executable = expected->executable;
        }
        if (output->executable != executable)
            return decide(judgement, KILN_PLAN_LOCALLY, err, "form: output %.255s has another mode", output->name);
        int rc = kiln_result_add_output(&judgement->result, (enum kiln_output_kind)output->kind, output->name, executable,
                                        output->size, &output->digest, err);
        if (rc)
            return rc;
    }
    return check_complete(candidate, expectation, judgement, err);
}

static const struct kiln_action_env *find_env(const struct kiln_action *action, const char *name) {
    for (size_t i = 0; i < action->env_count; i++) {
        if (strcmp(action->env[i].name, name) == 0)
            return &action->env[i];
    }
    return NULL;
}

// OUT_DIR is a path by nature: `include!(concat!(env!("OUT_DIR"), ...))` reads below it and keeps nothing of it.
static bool is_path_value(const struct kiln_action_env *env) {
    return env->present && strcmp(env->name, "OUT_DIR") != 0 && strstr(env->value, kiln_sandbox_root());
}

static int add_reason(struct kiln_result *result, const char *word, const char *name, struct kiln_err *err) {
    kiln_autofree char *reason = NULL;
    if (asprintf(&reason, "%s: %.255s", word, name) < 0) {
        reason = NULL;
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a reason");
    }
    return kiln_result_add_reason(result, reason, err);
}

static int read_variables(const struct kiln_depinfo *info, const struct kiln_action *action, struct kiln_result *result,
                          struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < info->env_count && result->reasons_count < KILN_RESULT_REASONS_MAX; i++) {
        const struct kiln_action_env *env = find_env(action, info->env[i].name);
        if (!env || kiln_environment_is_fixed(info->env[i].name))
            rc = add_reason(result, "undeclared_env", info->env[i].name, err);
        else if (is_path_value(env))
            rc = add_reason(result, "path_value", env->name, err);
    }
    return rc;
}

// All outputs at once.
static int harvest(const struct kiln_judge *judge, const struct kiln_candidate *candidate, struct kiln_judgement *judgement,
                   struct kiln_err *err) {
    kiln_autofree char *key = kiln_candidate_bundle_key(candidate);
    struct kiln_err why = {0};
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    int rc = kiln_harvest_fetch(judge->store, judge->scratch_dir, key, &judgement->result, &judgement->harvest, &why);
    if (rc == KILN_E_CORRUPT)
        return decide(judgement, KILN_PLAN_AGAIN, err, "outputs: %s", why.text);
    if (rc == KILN_E_LIMIT)
        return decide(judgement, KILN_PLAN_LOCALLY, err, "form: %s", why.text);
    if (rc && err)
        *err = why;
    return rc;
}

// One output by itself.
static int read_output(const struct kiln_judge *judge, const struct kiln_candidate *candidate,
                       const struct kiln_candidate_output *output, struct kiln_judgement *judgement, struct kiln_buf *bytes,
                       struct kiln_err *err) {
    kiln_autofree char *key = kiln_candidate_key(candidate, &output->digest);
    int rc = key ? kiln_store_get_bytes(judge->store, KILN_SPACE_QUARANTINE, key, bytes, err)
                 : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    if (rc == KILN_E_NOTFOUND)
        return decide(judgement, KILN_PLAN_AGAIN, err, "outputs: %.255s was not uploaded", output->name);
    if (rc)
        return rc;
    struct kiln_digest found;
    kiln_digest_of(bytes->data, bytes->len, &found);
    return kiln_digest_equal(&found, &output->digest)
               ? 0
               : decide(judgement, KILN_PLAN_AGAIN, err, "outputs: %.255s has other bytes", output->name);
}

static int read_dep_info(const struct kiln_judge *judge, const struct kiln_candidate *candidate,
                         const struct kiln_candidate_output *output, const struct kiln_action *action,
                         struct kiln_judgement *judgement, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX);
    int fd = kiln_harvest_find(&judgement->harvest, &output->digest);
    if (fd >= 0 && lseek(fd, 0, SEEK_SET))
        return kiln_fail_errno(err, KILN_E_IO, "cannot rewind %.255s", output->name);
    int rc = fd < 0 ? read_output(judge, candidate, output, judgement, &bytes, err) : kiln_fs_read_fd(fd, &bytes, err);
    if (rc == KILN_E_LIMIT)
        return decide(judgement, KILN_PLAN_LOCALLY, err, "form: %.255s is too large", output->name);
    if (rc || judgement->reason)
        return rc;
    kiln_autodepinfo struct kiln_depinfo info = {0};
    rc = kiln_depinfo_parse(bytes.data, bytes.len, &info, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT || rc == KILN_E_INVAL)
        return decide(judgement, KILN_PLAN_LOCALLY, err, "form: %.255s is no dep-info", output->name);
    return rc ? rc : read_variables(&info, action, &judgement->result, err);
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// A result that sends everybody home: only the reasons are left of it, each once.
static void make_local(struct kiln_result *result) {
    while (result->outputs_count)
        free(result->outputs[--result->outputs_count].name);
    qsort(result->reasons, result->reasons_count, sizeof *result->reasons, by_text);
    size_t kept = 1;
    for (size_t i = 1; i < result->reasons_count; i++) {
        if (strcmp(result->reasons[i], result->reasons[kept - 1]) == 0)
            free(result->reasons[i]);
        else
            result->reasons[kept++] = result->reasons[i];
    }
    result->reasons_count = kept;
    result->outcome = KILN_OUTCOME_LOCAL;
}

static int describe(const struct kiln_judge *judge, const struct kiln_candidate *candidate,
                    const struct kiln_action *action, struct kiln_result *result, struct kiln_err *err) {
    struct kiln_attestation attestation;
    result->action = candidate->action_digest;
    result->scope = strdup(judge->scope);
    result->profile = strdup(action->profile);
    result->policy = strdup(POLICY);
    result->bundle_pin = strdup("");
    result->toolchain_runtime = action->toolchain_runtime;
    result->toolchain_rustc = action->toolchain_rustc;
    result->toolchain_link = action->toolchain_link;
    result->generation = judge->generation;
    result->issued_ms = judge->now_ms;
    if (!result->scope || !result->profile || !result->policy || !result->bundle_pin)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a result");
    int rc = kiln_action_inputs_digest(action, &result->inputs, err);
    if (!rc)
        rc = kiln_candidate_attestation(candidate, &attestation, err);
    return rc ? rc : kiln_result_add_attestation(result, &attestation, err);
}

static int finish(const struct kiln_judge *judge, const struct kiln_candidate *candidate, const struct kiln_action *action,
                  struct kiln_judgement *judgement, struct kiln_err *err) {
    struct kiln_result *result = &judgement->result;
    int rc = describe(judge, candidate, action, result, err);
    result->outcome = KILN_OUTCOME_SUCCESS;
    if (result->reasons_count)
        make_local(result);
    for (size_t i = 0; !rc && result->outcome == KILN_OUTCOME_SUCCESS && i < judge->closure_count; i++)
        rc = kiln_result_add_closure(result, judge->closure[i], err);
    if (!rc)
        rc = kiln_result_finish(result, err);
    if (rc == KILN_E_INVAL)
        return decide(judgement, KILN_PLAN_LOCALLY, err, "form: the outputs are no result");
    judgement->verdict = KILN_PLAN_STORED;
    return rc;
}

static int judge_success(const struct kiln_judge *judge, const struct kiln_candidate *candidate,
                         const struct kiln_action *action, struct kiln_judgement *judgement, struct kiln_err *err) {
    kiln_auto(release_expectation) struct expectation expectation = {0};
    int rc = expect(action, &expectation, err);
    if (!rc)
        rc = add_outputs(candidate, &expectation, judgement, err);
    if (!rc && !judgement->reason && kiln_store_wants_bundles(judge->store))
        rc = harvest(judge, candidate, judgement, err);
    for (size_t i = 0; !rc && !judgement->reason && i < candidate->outputs_count; i++) {
        const struct kiln_candidate_output *output = &candidate->outputs[i];
        if (expectation.dep_info && output->kind == KILN_OUTPUT_FILE && ends_with(output->name, ".d"))
            rc = read_dep_info(judge, candidate, output, action, judgement, err);
    }
    return rc || judgement->reason ? rc : finish(judge, candidate, action, judgement, err);
}

// The outputs are thrown away, so it does not matter what they are.
static int judge_observed(const struct kiln_judge *judge, const struct kiln_candidate *candidate,
                          const struct kiln_action *action, struct kiln_judgement *judgement, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; !rc && i < candidate->observations_count && i < KILN_RESULT_REASONS_MAX; i++) {
        const char *what = candidate->observations[i];
        rc = kiln_result_add_reason(&judgement->result, *what ? what : "undeclared: not named", err);
    }
    return rc ? rc : finish(judge, candidate, action, judgement, err);
}

int kiln_judge(const struct kiln_judge *judge, const struct kiln_candidate *candidate, const struct kiln_action *action,
               struct kiln_judgement *judgement, struct kiln_err *err) {
    kiln_auto(kiln_judgement_release) struct kiln_judgement made = {0};
    int rc = decide_by_status(candidate, &made, err);
    if (!rc && !made.reason && candidate->observations_count)
        rc = judge_observed(judge, candidate, action, &made, err);
    else if (!rc && !made.reason)
        rc = judge_success(judge, candidate, action, &made, err);
    if (rc)
        return rc;
    if (made.reason)
        kiln_result_release(&made.result);
    if (!made.result.outputs_count)
        kiln_harvest_release(&made.harvest);
    *judgement = made;
    made = (struct kiln_judgement){0};
    return 0;
}
