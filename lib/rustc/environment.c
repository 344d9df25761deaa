#include "lib/rustc/environment.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rustc/paths.h"

struct fixed {
    const char *name;
    const char *value; // NULL: absent
    const char *place; // a sandbox place instead of a literal value
    const char *rest;
};

static const struct fixed fixed_table[] = {
    {"PATH", "/usr/bin", NULL, NULL},
    {"HOME", NULL, KILN_PLACE_HOME, NULL},
    {"TMPDIR", "/tmp", NULL, NULL},
    {"CARGO", NULL, KILN_PLACE_CARGO, "bin/cargo"},
    {"LC_ALL", "C", NULL, NULL},
    {"LD_LIBRARY_PATH", NULL, NULL, NULL},
    {"LD_PRELOAD", NULL, NULL, NULL},
    {"TERM", NULL, NULL, NULL},
    {"SHLVL", NULL, NULL, NULL},
    {"PWD", NULL, NULL, NULL},
    {"OLDPWD", NULL, NULL, NULL},
    {"_", NULL, NULL, NULL},
    {"CARGO_MAKEFLAGS", NULL, NULL, NULL},
    {"MAKEFLAGS", NULL, NULL, NULL},
    {"MFLAGS", NULL, NULL, NULL},
    {"NUM_JOBS", NULL, NULL, NULL},
    {"RUST_RECURSION_COUNT", NULL, NULL, NULL},
    {"RUSTUP_TOOLCHAIN", NULL, NULL, NULL},
    {"RUSTUP_TOOLCHAIN_SOURCE", NULL, NULL, NULL},
    {"RUSTUP_HOME", NULL, NULL, NULL},
    {"CARGO_HOME", NULL, KILN_PLACE_CARGO, NULL},
    {"RUSTC_WRAPPER", NULL, NULL, NULL},
    {"RUSTC_WORKSPACE_WRAPPER", NULL, NULL, NULL},
    {"KILN_BUILD_ID", NULL, NULL, NULL},
    {"KILN_DIR", NULL, NULL, NULL},
};

static const char *const unit_names[] = {
    "CARGO_BIN_NAME",       "CARGO_CRATE_NAME",      "CARGO_MANIFEST_DIR",    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",  "CARGO_PRIMARY_PACKAGE", "CARGO_RUSTC_CURRENT_DIR", "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
};

static const char *const carried_names[] = {
    "RUSTC_BOOTSTRAP", "RUSTC_FORCE_RUSTC_VERSION", "RUST_MIN_STACK", "SOURCE_DATE_EPOCH",
    "CLIPPY_ARGS",     "CLIPPY_DISABLE_DOCS_LINKS",
};

static const char *const forbidding_names[] = {
    "RUSTC_LOG", "RUST_LOG_STYLE", "RUST_TARGET_PATH", "CLIPPY_CONF_DIR", "RUSTC_ICE", "RUSTC_BLESSED_FLAGS", "SYSROOT",
};

static const char *const linker_names[] = {
    "COMPILER_PATH", "LIBRARY_PATH", "GCC_EXEC_PREFIX", "LD_RUN_PATH", "GCC_COMPARE_DEBUG", "COLLECT_GCC_OPTIONS",
    "LDEMULATION",   "LINK",
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool among(const char *name, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static const struct fixed *find_fixed(const char *name) {
    for (size_t i = 0; i < COUNT(fixed_table); i++)
        if (!strcmp(name, fixed_table[i].name))
            return &fixed_table[i];
    return NULL;
}

bool kiln_environment_is_fixed(const char *name) { return find_fixed(name) != NULL; }

bool kiln_environment_fixed(const char *name, char **value) {
    const struct fixed *row = find_fixed(name);
    if (!row)
        return false;
    if (row->place)
        *value = kiln_place(row->place, row->rest);
    else
        *value = row->value ? strdup(row->value) : NULL;
    return true;
}

const char *kiln_environment_fixed_name(unsigned index) {
    return index < COUNT(fixed_table) ? fixed_table[index].name : NULL;
}

bool kiln_environment_is_unit(const char *name) {
    return !strncmp(name, "CARGO_PKG_", 10) || !strncmp(name, "CARGO_BIN_EXE_", 14) ||
           among(name, unit_names, COUNT(unit_names));
}

bool kiln_environment_is_carried(const char *name) { return among(name, carried_names, COUNT(carried_names)); }

bool kiln_environment_forbids(const char *name, bool links) {
    return among(name, forbidding_names, COUNT(forbidding_names)) ||
           (links && among(name, linker_names, COUNT(linker_names)));
}
