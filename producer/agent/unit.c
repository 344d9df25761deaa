#include "producer/agent/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/core/profile.h"
#include "producer/agent/request_env.h"
#include "producer/agent/source_facts.h"
#include "producer/agent/unit_env.h"

#define RESPONSE_FILE_BYTES_MAX (1u << 20)
#define MANIFEST_BYTES_MAX (1u << 20)

static void release_dirs(struct kiln_unit_dir *dirs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(dirs[i].dir);
        free(dirs[i].mount);
    }
    free(dirs);
}

void kiln_unit_release(struct kiln_unit *unit) {
    kiln_rustc_call_release(&unit->call);
    kiln_toolchain_release(&unit->toolchain);
    kiln_package_release(&unit->package);
    kiln_path_map_release(&unit->map);
    kiln_scan_release(&unit->facts);
    kiln_closure_release(&unit->closure);
    release_dirs(unit->dirs, unit->dirs_count);
    release_dirs(unit->natives, unit->natives_count);
    free(unit->cwd);
    free(unit->out_dir);
    kiln_action_release(&unit->action);
    kiln_buf_release(&unit->action_bytes);
    *unit = (struct kiln_unit){0};
}

static int read_response_file(void *context, const char *path, struct kiln_buf *out, struct kiln_err *err) {
    const char *cwd = context;
    kiln_autofree char *full = kiln_path_join(cwd, path);
    if (!full)
        return kiln_fail(err, KILN_E_NOMEM, "@%s", path);
    return kiln_fs_read_file(AT_FDCWD, full, out, err);
}

static int parse_call(const struct kiln_unit_context *context, const struct kiln_compile_request *request,
                      struct kiln_unit *unit, struct kiln_err *err) {
    struct kiln_argv_options options = {.drop_incremental = context->drop_incremental, .read_file = read_response_file,
                                        .context = request->cwd};
    int rc = kiln_rustc_parse(request->argc, request->argv, &options, &unit->call, err);
    if (rc)
        return rc;
    if (unit->call.kind == KILN_CALL_PASS)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "pass_through: no compile");
    if (unit->call.kind == KILN_CALL_LOCAL)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", unit->call.reason);
    if (!unit->call.out_dir)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "no_out_dir: outputs go to the current directory");
    unit->cwd = strdup(request->cwd);
    unit->out_dir = strdup(unit->call.out_dir);
    return unit->cwd && unit->out_dir ? 0 : kiln_fail(err, KILN_E_NOMEM, "unit");
}

static int classify(const struct kiln_compile_request *request, struct kiln_unit *unit, struct kiln_err *err) {
    const struct kiln_package_query query = {
        .manifest_dir = kiln_request_env(request->env, request->env_count, "CARGO_MANIFEST_DIR"),
        .name = kiln_request_env(request->env, request->env_count, "CARGO_PKG_NAME"),
        .version = kiln_request_env(request->env, request->env_count, "CARGO_PKG_VERSION"),
        .crate_name = kiln_request_env(request->env, request->env_count, "CARGO_CRATE_NAME"),
        .cargo_home = kiln_request_env(request->env, request->env_count, "CARGO_HOME"),
        .home = kiln_request_env(request->env, request->env_count, "HOME"),
        .cwd = request->cwd,
        .source = unit->call.source,
    };
    int rc = kiln_package_classify(&query, &unit->package, err);
    if (rc)
        return rc;
    if (unit->package.kind == KILN_PACKAGE_OTHER)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "not_a_package: %s", unit->package.reason);
    if (unit->package.kind == KILN_PACKAGE_PATH && unit->call.test)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "test_outside_workspace: file!() must name the real file");
    kiln_autofree char *joined = kiln_path_join(request->cwd, unit->call.source);
    kiln_autofree char *source = joined ? kiln_path_normalize(joined) : NULL;
    if (!source || !kiln_path_beneath(source, unit->package.dir))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "source_outside_package: %s", unit->call.source);
    return 0;
}

static int find_toolchain(const struct kiln_unit_context *context, const struct kiln_compile_request *request,
                          struct kiln_unit *unit, struct kiln_err *err) {
    const struct kiln_toolchain_query query = {
        .compiler = request->argv[0],
        .rustc = unit->call.clippy && request->argc > 1 && request->argv[1][0] != '-' ? request->argv[1] : NULL,
        .clippy = unit->call.clippy,
        .links = kiln_rustc_needs_linker(&unit->call),
        .target = unit->call.target,
        .cwd = request->cwd,
        .env = request->env,
        .env_count = request->env_count,
    };
    int rc = kiln_toolchain_resolve(context->toolchains, &query, &unit->toolchain, err);
    if (rc == KILN_E_UNSUPPORTED || rc == KILN_E_DENIED || rc == KILN_E_NOTFOUND)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "toolchain");
    if (rc == 0 && query.links && query.target && strcmp(query.target, unit->toolchain.host))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "cross_link: linking for %s", query.target);
    return rc;
}

static int add_dir(struct kiln_unit_dir **dirs, size_t *count, const char *dir, const char *mount, enum kiln_dir_rule rule,
                   const struct kiln_digest *tree, struct kiln_err *err) {
    struct kiln_unit_dir *grown = realloc(*dirs, (*count + 1) * sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "input directories");
    *dirs = grown;
    struct kiln_unit_dir item = {.dir = strdup(dir), .mount = strdup(mount), .rule = rule, .tree = *tree};
    grown[(*count)++] = item;
    return item.dir && item.mount ? 0 : kiln_fail(err, KILN_E_NOMEM, "input directories");
}

// A directory that cannot be an input (too large, odd names) makes the unit local, with that as its reason.
static int dir_failure(struct kiln_err *err, int rc) {
    if (rc == KILN_E_LIMIT || rc == KILN_E_INVAL)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "input_directory");
    return rc;
}

static int add_package_dir(const struct kiln_unit_context *context, struct kiln_unit *unit, struct kiln_err *err) {
    struct kiln_digest tree;
    int rc = kiln_dir_digest(context->l0, context->memo, unit->package.dir, KILN_DIR_PACKAGE, &tree, err);
    if (rc)
        return dir_failure(err, rc);
    rc = kiln_source_facts(context->l0, context->memo, unit->package.dir, &tree, &unit->facts, err);
    return rc ? rc : add_dir(&unit->dirs, &unit->dirs_count, unit->package.dir, unit->package.mount, KILN_DIR_PACKAGE, &tree, err);
}

static int add_generated_dir(const struct kiln_unit_context *context, const struct kiln_compile_request *request,
                             struct kiln_unit *unit, struct kiln_err *err) {
    const char *out = kiln_request_env(request->env, request->env_count, "OUT_DIR");
    if (!out || !unit->facts.out_dir_used)
        return 0;
    if (out[0] != '/')
        return kiln_fail(err, KILN_E_UNSUPPORTED, "relative_out_dir: %s", out);
    kiln_autofree char *mount = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    kiln_autofree char *shown = NULL;
    if (!mount || asprintf(&shown, "%s.out", unit->package.shown) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "OUT_DIR");
    struct kiln_digest tree;
    int rc = kiln_dir_digest(context->l0, context->memo, out, KILN_DIR_GENERATED, &tree, err);
    if (rc)
        return dir_failure(err, rc);
    rc = kiln_path_map_add(&unit->map, out, mount, shown, err);
    return rc ? rc : add_dir(&unit->dirs, &unit->dirs_count, out, mount, KILN_DIR_GENERATED, &tree, err);
}

static int map_places(const struct kiln_compile_request *request, struct kiln_unit *unit, struct kiln_err *err) {
    const char *cargo_home = kiln_request_env(request->env, request->env_count, "CARGO_HOME");
    const char *home = kiln_request_env(request->env, request->env_count, "HOME");
    kiln_autofree char *default_home = home ? kiln_path_join(home, ".cargo") : NULL;
    kiln_autofree char *out_dir = kiln_path_join(request->cwd, unit->out_dir);
    kiln_autofree char *out_real = out_dir ? kiln_path_normalize(out_dir) : NULL;
    kiln_autofree char *target = kiln_place(KILN_PLACE_TARGET, NULL), *cargo = kiln_place(KILN_PLACE_CARGO, NULL);
    kiln_autofree char *sysroot = kiln_place(KILN_PLACE_SYSROOT, NULL);
    if (!out_real || !target || !cargo || !sysroot)
        return kiln_fail(err, KILN_E_NOMEM, "places");
    int rc = kiln_path_map_add(&unit->map, unit->package.remap_real, unit->package.remap_sandbox, unit->package.shown, err);
    if (rc == 0 && strcmp(unit->package.dir, unit->package.remap_real))
        rc = kiln_path_map_add(&unit->map, unit->package.dir, unit->package.mount, NULL, err);
    if (rc == 0)
        rc = kiln_path_map_add(&unit->map, out_real, target, NULL, err);
    if (rc == 0)
        rc = kiln_path_map_add(&unit->map, unit->toolchain.sysroot, sysroot, NULL, err);
    const char *real_home = cargo_home && cargo_home[0] == '/' ? cargo_home : default_home;
    if (rc == 0 && real_home)
        rc = kiln_path_map_add(&unit->map, real_home, cargo, NULL, err);
    return rc;
}

static bool is_system_directory(const char *path) {
    return kiln_path_beneath(path, "/usr") || kiln_path_beneath(path, "/lib") || kiln_path_beneath(path, "/lib64") ||
           !strcmp(path, "/");
}

// Native directories matter to a call that links or bundles; others get them empty, so that their key stays clean.
static int add_native_dirs(const struct kiln_unit_context *context, struct kiln_unit *unit, struct kiln_err *err) {
    bool reads = (unit->call.emits & KILN_EMIT_LINK) || unit->call.native_libs_count;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < unit->call.lib_dirs_count; i++) {
        const struct kiln_lib_dir *item = &unit->call.lib_dirs[i];
        if (item->kind == KILN_DIR_DEPENDENCY || item->kind == KILN_DIR_CRATE)
            continue;
        if (item->kind == KILN_DIR_FRAMEWORK)
            return kiln_fail(err, KILN_E_UNSUPPORTED, "framework_directory: %s", item->path);
        kiln_autofree char *joined = kiln_path_join(unit->cwd, item->path);
        kiln_autofree char *dir = joined ? kiln_path_normalize(joined) : NULL;
        char number[32];
        snprintf(number, sizeof number, "%zu", unit->natives_count);
        kiln_autofree char *mount = kiln_place(KILN_PLACE_NATIVE, number);
        if (!dir || !mount)
            return kiln_fail(err, KILN_E_NOMEM, "native directory");
        bool known = false;
        for (size_t k = 0; k < unit->natives_count; k++)
            known |= !strcmp(unit->natives[k].dir, dir);
        if (known)
            continue;
        if (reads && is_system_directory(dir))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "native_system_directory: %s", dir);
        kiln_autotree struct kiln_tree empty = {0};
        struct kiln_digest tree;
        rc = reads ? kiln_dir_digest(context->l0, context->memo, dir, KILN_DIR_LIBRARIES, &tree, err) : KILN_E_NOTFOUND;
        if (rc == KILN_E_NOTFOUND) {
            rc = kiln_tree_finish(&empty, err);
            if (rc == 0)
                rc = kiln_tree_digest(&empty, &tree, err);
        }
        if (rc == 0)
            rc = add_dir(&unit->natives, &unit->natives_count, dir, mount, KILN_DIR_LIBRARIES, &tree, err);
    }
    return rc ? dir_failure(err, rc) : 0;
}

int kiln_unit_libraries_tree(const struct kiln_closure *closure, struct kiln_tree *tree, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < closure->count; i++)
        rc = kiln_tree_add_file(tree, closure->libraries[i].name, false, closure->libraries[i].size,
                                &closure->libraries[i].digest, err);
    return rc ? rc : kiln_tree_finish(tree, err);
}

static int add_inputs(struct kiln_unit *unit, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < unit->dirs_count; i++)
        rc = kiln_action_add_input(&unit->action, unit->dirs[i].mount, KILN_INPUT_PACK, &unit->dirs[i].tree, err);
    for (size_t i = 0; rc == 0 && i < unit->natives_count; i++)
        rc = kiln_action_add_input(&unit->action, unit->natives[i].mount, KILN_INPUT_PACK, &unit->natives[i].tree, err);
    kiln_autotree struct kiln_tree tree = {0};
    struct kiln_digest digest;
    kiln_autofree char *deps = kiln_place(KILN_PLACE_DEPS, NULL);
    if (rc == 0)
        rc = kiln_unit_libraries_tree(&unit->closure, &tree, err);
    if (rc == 0)
        rc = kiln_tree_digest(&tree, &digest, err);
    return rc ? rc : kiln_action_add_input(&unit->action, deps, KILN_INPUT_LIST, &digest, err);
}

static char *place_source(const struct kiln_unit *unit, const char *path) {
    if (path[0] != '/')
        return strdup(path);
    return kiln_path_map_to_sandbox(&unit->map, path);
}

static char *place_lib_dir(const struct kiln_unit *unit, const struct kiln_arg *arg) {
    if (strstr(arg->flag, "dependency=") || strstr(arg->flag, "crate="))
        return kiln_place(KILN_PLACE_DEPS, NULL);
    kiln_autofree char *joined = kiln_path_join(unit->cwd, arg->path);
    kiln_autofree char *dir = joined ? kiln_path_normalize(joined) : NULL;
    for (size_t i = 0; dir && i < unit->natives_count; i++)
        if (!strcmp(unit->natives[i].dir, dir))
            return strdup(unit->natives[i].mount);
    return NULL;
}

static char *place_argument(void *context, const struct kiln_arg *arg) {
    const struct kiln_unit *unit = context;
    switch (arg->role) {
    case KILN_ARG_SOURCE:
        return place_source(unit, arg->path);
    case KILN_ARG_OUT_DIR:
        return kiln_place(KILN_PLACE_TARGET, NULL);
    case KILN_ARG_EXTERN:
        return kiln_place(KILN_PLACE_DEPS, kiln_path_base(arg->path));
    case KILN_ARG_LIB_DIR:
        return place_lib_dir(unit, arg);
    default:
        return NULL;
    }
}

static int emit_argument(void *context, const char *arg, struct kiln_err *err) {
    struct kiln_unit *unit = context;
    return kiln_action_add_arg(&unit->action, arg, err);
}

static int add_remap(struct kiln_unit *unit, const char *from, const char *to, struct kiln_err *err) {
    kiln_autofree char *arg = NULL;
    if (asprintf(&arg, "--remap-path-prefix=%s=%s", from, to) < 0) {
        arg = NULL;
        return kiln_fail(err, KILN_E_NOMEM, "remap");
    }
    return kiln_action_add_arg(&unit->action, arg, err);
}

static int add_arguments(struct kiln_unit *unit, struct kiln_err *err) {
    kiln_autofree char *rustc = kiln_place(KILN_PLACE_SYSROOT, "bin/rustc");
    kiln_autofree char *clippy = kiln_place(KILN_PLACE_SYSROOT, "bin/clippy-driver");
    if (!rustc || !clippy)
        return kiln_fail(err, KILN_E_NOMEM, "arguments");
    int rc = 0;
    if (unit->call.clippy)
        rc = kiln_action_add_arg(&unit->action, clippy, err);
    if (rc == 0)
        rc = kiln_action_add_arg(&unit->action, rustc, err);
    if (rc == 0)
        rc = kiln_rustc_rewrite(&unit->call, place_argument, unit, emit_argument, err);
    if (rc == KILN_E_UNSUPPORTED)
        return kiln_wrap(err, rc, "path_argument");
    for (size_t i = 0; rc == 0 && i < unit->map.count; i++)
        if (unit->map.rules[i].shown)
            rc = add_remap(unit, unit->map.rules[i].sandbox, unit->map.rules[i].shown, err);
    if (rc == 0 && unit->call.split_debuginfo && !strcmp(unit->call.split_debuginfo, "packed")) {
        kiln_autofree char *target = kiln_place(KILN_PLACE_TARGET, NULL);
        rc = add_remap(unit, target, "/kiln/target", err);
    }
    return rc;
}

// The manifest in the working directory is read for its tables of lints, which clippy judges too. When it is not the
// package's own it is no input, so it may have no such table.
static int check_clippy_manifest(const struct kiln_unit *unit, struct kiln_err *err) {
    if (!strcmp(unit->cwd, unit->package.dir))
        return 0;
    kiln_autofree char *path = kiln_path_join(unit->cwd, "Cargo.toml");
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(MANIFEST_BYTES_MAX);
    int rc = path ? kiln_fs_read_file(AT_FDCWD, path, &text, NULL) : KILN_E_NOMEM;
    if (rc == KILN_E_NOTFOUND || (rc == 0 && !strstr(kiln_buf_text(&text), "lints")))
        return 0;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "clippy_manifest: %s may set lints and lies outside the inputs", path);
}

// Clippy looks for its configuration upwards from the package; only a plain clippy.toml in the package is an input.
static int check_clippy(const struct kiln_unit *unit, struct kiln_err *err) {
    static const char *const names[] = {".clippy.toml", "clippy.toml"};
    kiln_autofree char *dir = strdup(unit->package.dir);
    for (bool own = true; dir && *dir; own = false) {
        for (int i = 0; i < 2; i++) {
            kiln_autofree char *path = kiln_path_join(dir, names[i]);
            if (path && !(own && i == 1) && access(path, F_OK) == 0)
                return kiln_fail(err, KILN_E_UNSUPPORTED, "clippy_config: %s lies outside the inputs", path);
        }
        *strrchr(dir, '/') = 0;
    }
    return check_clippy_manifest(unit, err);
}

static int check_surroundings(const struct kiln_unit *unit, struct kiln_err *err) {
    if (unit->call.clippy)
        return check_clippy(unit, err);
    // The linker looks here first; the package's own listing covers it only when the package is the current directory.
    kiln_autofree char *planted = kiln_path_join(unit->cwd, "libgcc_s.so.1");
    if (planted && kiln_rustc_needs_linker(&unit->call) && access(planted, F_OK) == 0)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "linker_input: %s would be linked", planted);
    return 0;
}

static int build_action(struct kiln_unit *unit, struct kiln_err *err) {
    struct kiln_action *action = &unit->action;
    action->profile = strdup(KILN_PROFILE);
    action->toolchain_runtime = unit->toolchain.runtime;
    action->toolchain_rustc = unit->toolchain.rustc;
    action->toolchain_link = unit->toolchain.link;
    action->package = strdup(unit->package.name_version);
    action->crate_name = strdup(unit->call.crate_name ? unit->call.crate_name : "");
    action->cwd = strdup(unit->package.cwd);
    action->out_dir = kiln_place(KILN_PLACE_TARGET, NULL);
    if (!action->profile || !action->package || !action->crate_name || !action->cwd || !action->out_dir)
        return kiln_fail(err, KILN_E_NOMEM, "action");
    int rc = add_arguments(unit, err);
    if (rc == 0)
        rc = add_inputs(unit, err);
    if (rc == 0)
        rc = kiln_action_finish(action, err);
    unit->action_bytes = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    if (rc == 0)
        rc = kiln_action_encode(action, &unit->action_bytes, err);
    if (rc == KILN_E_LIMIT || rc == KILN_E_INVAL)
        return kiln_wrap(err, KILN_E_UNSUPPORTED, "action");
    if (rc == 0)
        kiln_digest_of(unit->action_bytes.data, unit->action_bytes.len, &unit->action_digest);
    return rc;
}

static int collect_closure(const struct kiln_unit_context *context, struct kiln_unit *unit, struct kiln_err *err) {
    const struct kiln_closure_context closure = {.l0 = context->l0, .memo = context->memo, .toolchain = &unit->toolchain,
                                                 .cwd = unit->cwd, .system_mode = context->system_mode};
    return kiln_closure_collect(&closure, &unit->call, &unit->closure, err);
}

int kiln_unit_prepare(const struct kiln_unit_context *context, const struct kiln_compile_request *request, pid_t wrapper,
                      struct kiln_unit *unit, struct kiln_err *err) {
    struct kiln_ancestor ancestor __attribute__((cleanup(kiln_ancestor_release)));
    kiln_ancestor_find(context->ancestors, wrapper, &ancestor);
    int rc = parse_call(context, request, unit, err);
    if (rc == 0 && ancestor.found && !ancestor.direct)
        rc = kiln_fail(err, KILN_E_UNSUPPORTED, "pass_through: a build script's own probe");
    if (rc == 0)
        rc = classify(request, unit, err);
    if (rc == 0)
        rc = find_toolchain(context, request, unit, err);
    if (rc == 0)
        rc = check_surroundings(unit, err);
    if (rc == 0)
        rc = map_places(request, unit, err);
    if (rc == 0)
        rc = add_package_dir(context, unit, err);
    if (rc == 0)
        rc = add_generated_dir(context, request, unit, err);
    if (rc == 0)
        rc = add_native_dirs(context, unit, err);
    if (rc == 0)
        rc = collect_closure(context, unit, err);
    if (rc == 0)
        rc = kiln_unit_environment(request, &ancestor, unit, err);
    return rc ? rc : build_action(unit, err);
}
