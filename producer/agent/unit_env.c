#include "producer/agent/unit_env.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/rustc/environment.h"
#include "producer/agent/request_env.h"

#define VALUE_BYTES_MAX (1u << 20)

static bool is_plain_name(const char *name, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_')
            return false;
    return len > 0 && len < 256;
}

static bool has(const struct kiln_action *action, const char *name) {
    for (size_t i = 0; i < action->env_count; i++)
        if (!strcmp(action->env[i].name, name))
            return true;
    return false;
}

// Clippy takes further arguments from CLIPPY_ARGS: lints and levels are plain, anything else could name a file.
static bool is_plain_clippy(const char *value) {
    static const char separator[] = "__CLIPPY_HACKERY__";
    static const char *const levels[] = {"-W", "-A", "-D", "-F", "--warn", "--allow", "--deny", "--forbid", "--force-warn",
                                         "--no-deps", "--cap-lints"};
    while (*value) {
        const char *end = strstr(value, separator);
        size_t len = end ? (size_t)(end - value) : strlen(value);
        bool plain = value[0] != '-';
        for (size_t i = 0; !plain && i < sizeof levels / sizeof *levels; i++)
            plain = !strncmp(value, levels[i], strlen(levels[i]));
        for (size_t i = 0; i < len; i++)
            plain &= isalnum((unsigned char)value[i]) || strchr("_-:,=", value[i]);
        if (!plain)
            return false;
        value += len + (end ? sizeof separator - 1 : 0);
    }
    return true;
}

// Values that name the caller's places in a way no prefix rule covers.
static char *special_value(const char *name) {
    if (!strncmp(name, "CARGO_BIN_EXE_", 14)) {
        kiln_autofree char *rest = NULL;
        if (asprintf(&rest, "bin/%s", name + 14) < 0)
            return NULL;
        return kiln_place(KILN_PLACE_TARGET, rest);
    }
    if (!strcmp(name, "CARGO_TARGET_TMPDIR"))
        return kiln_place(KILN_PLACE_TARGET, "tmp");
    return NULL;
}

static int add_value(struct kiln_unit *unit, const char *name, const char *value, struct kiln_err *err) {
    if (has(&unit->action, name))
        return 0;
    kiln_autofree char *special = special_value(name);
    if (special)
        return kiln_action_add_env(&unit->action, name, special, err);
    kiln_autobuf struct kiln_buf mapped = KILN_BUF_INIT(VALUE_BYTES_MAX);
    bool changed;
    int rc = kiln_path_map_text_to_sandbox(&unit->map, value, &mapped, &changed, err);
    return rc ? rc : kiln_action_add_env(&unit->action, name, kiln_buf_text(&mapped), err);
}

static int add_fixed(struct kiln_unit *unit, struct kiln_err *err) {
    int rc = 0;
    const char *name;
    for (unsigned i = 0; rc == 0 && (name = kiln_environment_fixed_name(i)); i++) {
        kiln_autofree char *value = NULL;
        if (kiln_environment_fixed(name, &value) && value)
            rc = kiln_action_add_env(&unit->action, name, value, err);
    }
    return rc;
}

static bool set_by_cargo(const struct kiln_ancestor *ancestor, const char *name, const char *value) {
    if (!ancestor->found)
        return false;
    const char *before = kiln_request_env(ancestor->env, ancestor->env_count, name);
    return !before || strcmp(before, value);
}

static int add_callers(const struct kiln_compile_request *request, const struct kiln_ancestor *ancestor,
                       struct kiln_unit *unit, struct kiln_err *err) {
    bool links = kiln_rustc_needs_linker(&unit->call);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < request->env_count; i++) {
        const char *equals = strchr(request->env[i], '=');
        if (!equals || !is_plain_name(request->env[i], (size_t)(equals - request->env[i])))
            continue;
        kiln_autofree char *name = strndup(request->env[i], (size_t)(equals - request->env[i]));
        if (!name)
            return kiln_fail(err, KILN_E_NOMEM, "environment");
        if (kiln_environment_forbids(name, links))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "environment: %s is set", name);
        if (unit->call.clippy && !strcmp(name, "CLIPPY_ARGS") && !is_plain_clippy(equals + 1))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "clippy_arguments: %s", equals + 1);
        if (kiln_environment_is_fixed(name) || (!strcmp(name, "OUT_DIR") && !unit->facts.out_dir_used))
            continue;
        if (kiln_environment_is_unit(name) || kiln_environment_is_carried(name) || set_by_cargo(ancestor, name, equals + 1))
            rc = add_value(unit, name, equals + 1, err);
    }
    return rc;
}

// Names that the sources ask for: with the caller's value, or as looked for and absent.
static int add_scanned(const struct kiln_compile_request *request, struct kiln_unit *unit, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < unit->facts.env_count; i++) {
        const char *name = unit->facts.env_names[i];
        if (!is_plain_name(name, strlen(name)) || kiln_environment_is_fixed(name) || has(&unit->action, name))
            continue;
        const char *value = kiln_request_env(request->env, request->env_count, name);
        rc = value ? add_value(unit, name, value, err) : kiln_action_add_env(&unit->action, name, NULL, err);
    }
    return rc;
}

// Clippy asks for these in every crate and notes it in the dep-info.
static int add_clippy(struct kiln_unit *unit, struct kiln_err *err) {
    static const char *const names[] = {"CLIPPY_ARGS", "CLIPPY_CONF_DIR"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && unit->call.clippy && i < sizeof names / sizeof *names; i++)
        if (!has(&unit->action, names[i]))
            rc = kiln_action_add_env(&unit->action, names[i], NULL, err);
    return rc;
}

int kiln_unit_environment(const struct kiln_compile_request *request, const struct kiln_ancestor *ancestor,
                          struct kiln_unit *unit, struct kiln_err *err) {
    int rc = add_fixed(unit, err);
    if (rc == 0)
        rc = add_callers(request, ancestor, unit, err);
    if (rc == 0)
        rc = add_clippy(unit, err);
    return rc ? rc : add_scanned(request, unit, err);
}
