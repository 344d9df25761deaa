#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/core/profile.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/paths.h"
#include "verifier/admit.h"

// Sandbox and observer profiles whose results this verifier signs.
static const char *const profiles[] = {KILN_PROFILE};

// Where content may be mounted. Toolchain, observer, home and outputs have places of their own, which no client fills.
static const char *const input_places[] = {KILN_PLACE_WORKSPACE, KILN_PLACE_OUT_DIR,  KILN_PLACE_DEPS, KILN_PLACE_NATIVE,
                                           KILN_PLACE_REGISTRY,  KILN_PLACE_GIT,      KILN_PLACE_PATH};

// Variables of the dynamic linker that load code: the observer must be the only guest in the compiler.
static const char *const loader_variables[] = {"LD_PRELOAD", "LD_AUDIT"};

static int check_profile(const struct kiln_action *action, struct kiln_err *err) {
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        if (strcmp(action->profile, profiles[i]) == 0)
            return 0;
    }
    return kiln_fail(err, KILN_E_DENIED, "profile: %.100s is not known here", action->profile);
}

static bool is_input_place(const char *mount) {
    const char *rest = kiln_path_beneath(mount, kiln_sandbox_root());
    if (!rest || !*rest)
        return false;
    for (size_t i = 0; i < sizeof input_places / sizeof *input_places; i++) {
        if (kiln_path_beneath(rest, input_places[i]))
            return true;
    }
    return false;
}

static int check_places(const struct kiln_action *action, struct kiln_err *err) {
    kiln_autofree char *target = kiln_place(KILN_PLACE_TARGET, NULL);
    if (!target)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a place");
    if (strcmp(action->out_dir, target) != 0)
        return kiln_fail(err, KILN_E_DENIED, "out_dir: outputs go to %.200s", action->out_dir);
    if (!kiln_path_beneath(action->cwd, kiln_sandbox_root()))
        return kiln_fail(err, KILN_E_DENIED, "cwd: %.200s lies outside the sandbox's places", action->cwd);
    for (size_t i = 0; i < action->inputs_count; i++) {
        if (!is_input_place(action->inputs[i].mount))
            return kiln_fail(err, KILN_E_DENIED, "mount: no input may lie at %.200s", action->inputs[i].mount);
    }
    return 0;
}

static int check_arguments(const struct kiln_action *action, struct kiln_err *err) {
    const struct kiln_argv_options options = {.canonical = true};
    kiln_autocall struct kiln_rustc_call call = {0};
    int rc = kiln_rustc_parse(action->argc, action->argv, &options, &call, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_DENIED, "arguments");
    if (call.kind != KILN_CALL_COMPILE)
        return kiln_fail(err, KILN_E_DENIED, "arguments: no compile that is taken here (%.200s)",
                         call.reason ? call.reason : "no compile");
    if (!call.out_dir || strcmp(call.out_dir, action->out_dir) != 0)
        return kiln_fail(err, KILN_E_DENIED, "out_dir: the arguments name another one");
    return 0;
}

static int check_environment(const struct kiln_action *action, struct kiln_err *err) {
    for (size_t i = 0; i < action->env_count; i++) {
        for (size_t k = 0; k < sizeof loader_variables / sizeof *loader_variables; k++) {
            if (action->env[i].present && strcmp(action->env[i].name, loader_variables[k]) == 0)
                return kiln_fail(err, KILN_E_DENIED, "environment: %s loads code into the compiler", loader_variables[k]);
        }
    }
    return 0;
}

static int check_closure(const struct kiln_job_submitted *record, struct kiln_err *err) {
    for (size_t i = 0; i < record->closure_count; i++) {
        const char *stem = record->closure[i];
        if (strchr(stem, '/') || kiln_path_check_relative(stem, NULL))
            return kiln_fail(err, KILN_E_DENIED, "closure: \"%.200s\" is no library's name", stem);
        if (i > 0 && strcmp(record->closure[i - 1], stem) >= 0)
            return kiln_fail(err, KILN_E_DENIED, "closure: %.200s is there twice or out of order", stem);
    }
    return 0;
}

static int check_record(const struct kiln_job_submitted *record, struct kiln_err *err) {
    struct kiln_digest digest;
    kiln_digest_of(record->action, record->action_len, &digest);
    if (!kiln_digest_equal(&digest, &record->action_digest))
        return kiln_fail(err, KILN_E_DENIED, "action_digest: the action's bytes have another one");
    return check_closure(record, err);
}

int kiln_admit_form(const struct kiln_job_submitted *record, struct kiln_action *action, struct kiln_err *err) {
    int rc = check_record(record, err);
    if (rc)
        return rc;
    kiln_autoaction struct kiln_action decoded = {0};
    rc = kiln_action_decode(record->action, record->action_len, &decoded, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_DENIED, "action");
    rc = check_profile(&decoded, err);
    if (!rc)
        rc = check_places(&decoded, err);
    if (!rc)
        rc = check_environment(&decoded, err);
    if (!rc)
        rc = check_arguments(&decoded, err);
    if (rc)
        return rc;
    *action = decoded;
    decoded = (struct kiln_action){0};
    return 0;
}
