#include "lib/rustc/package.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/rustc/paths.h"

void kiln_package_release(struct kiln_package *package) {
    free(package->name_version);
    free(package->dir);
    free(package->mount);
    free(package->cwd);
    free(package->remap_real);
    free(package->remap_sandbox);
    free(package->shown);
    *package = (struct kiln_package){0};
}

static int no_memory(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "package: out of memory"); }

static int other(struct kiln_package *package, const char *reason) {
    *package = (struct kiln_package){.kind = KILN_PACKAGE_OTHER, .reason = reason};
    return 0;
}

// Cargo's package names and versions, and the names of its checkouts: nothing that could mean something in a path or a
// remap argument.
static bool is_plain(const char *text, size_t len) {
    if (len == 0 || len > KILN_PACKAGE_NAME_MAX || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._+-", c)))
            return false;
    }
    return true;
}

// A path that can be remapped: rustc splits the argument at its last '='.
static bool is_usable(const char *path) {
    return path && path[0] == '/' && path[1] && kiln_path_check_absolute(path, NULL) == 0 && !strchr(path, '=');
}

// Length of the first `count` components of a relative path; 0 when there are fewer.
static size_t first_components(const char *path, int count) {
    const char *end = path;
    for (int i = 0; i < count; i++) {
        if (!*end)
            return 0;
        end += i > 0;
        end += strcspn(end, "/");
    }
    return (size_t)(end - path);
}

// prefix + what `path` has below `real`; NULL when it does not lie there (or on exhausted memory).
static char *move_beneath(const char *path, const char *real, const char *prefix) {
    const char *below = kiln_path_beneath(path, real);
    if (!below)
        return NULL;
    return *below ? kiln_path_join(prefix, below) : strdup(prefix);
}

static char *plain_name(const struct kiln_package_query *query) {
    char *name;
    return asprintf(&name, "%s-%s", query->name, query->version) < 0 ? NULL : name;
}

struct plan {
    enum kiln_package_kind kind;
    const char *place, *rest; // of what is remapped, below the sandbox root; rest may be NULL
    const char *real;         // what is remapped
    const char *suffix;       // of the name
};

// Fills the package; everything was checked before, so what is missing is memory.
static int fill(const struct kiln_package_query *query, const struct plan *plan, struct kiln_package *package,
                struct kiln_err *err) {
    struct kiln_package made = {.kind = plan->kind};
    if (asprintf(&made.name_version, "%s-%s%s", query->name, query->version, plan->suffix) < 0)
        made.name_version = NULL;
    if (!made.name_version || asprintf(&made.shown, "/kiln/%s", made.name_version) < 0)
        made.shown = NULL;
    made.remap_sandbox = kiln_place(plan->place, plan->rest);
    made.remap_real = strdup(plan->real);
    made.dir = strdup(query->manifest_dir);
    if (made.remap_sandbox) {
        made.mount = move_beneath(query->manifest_dir, plan->real, made.remap_sandbox);
        made.cwd = move_beneath(query->cwd, plan->real, made.remap_sandbox);
    }
    if (!made.shown || !made.remap_real || !made.dir || !made.mount || !made.cwd) {
        kiln_package_release(&made);
        return no_memory(err);
    }
    *package = made;
    return 0;
}

// True when the root file, from the cwd, lies in the package's directory. Sets *out_of_memory instead of answering.
static bool holds_source(const struct kiln_package_query *query, bool *out_of_memory) {
    kiln_autofree char *joined = kiln_path_join(query->cwd, query->source);
    *out_of_memory = !joined;
    kiln_autofree char *source = joined ? kiln_path_normalize(joined) : NULL;
    const char *below = source ? kiln_path_beneath(source, query->manifest_dir) : NULL;
    return below && *below;
}

static int classify_registry(const struct kiln_package_query *query, const char *below, struct kiln_package *package,
                             struct kiln_err *err) {
    kiln_autofree char *want = plain_name(query);
    if (!want)
        return no_memory(err);
    size_t index = first_components(below, 1);
    if (index == 0 || below[index] != '/' || strcmp(below + index + 1, want) != 0)
        return other(package, "the directory in the registry is not named after the package");
    if (strcmp(query->cwd, query->manifest_dir) != 0)
        return other(package, "the working directory is not the package's");
    struct plan plan = {.kind = KILN_PACKAGE_REGISTRY, .place = KILN_PLACE_REGISTRY, .rest = want,
                        .real = query->manifest_dir, .suffix = ""};
    return fill(query, &plan, package, err);
}

static int classify_git(const struct kiln_package_query *query, const char *below, struct kiln_package *package,
                        struct kiln_err *err) {
    size_t checkout = first_components(below, 1), revision = first_components(below, 2);
    if (revision == 0 || !is_plain(below, checkout) || !is_plain(below + checkout + 1, revision - checkout - 1))
        return other(package, "the checkout's directory has an odd name");
    kiln_autofree char *rest = strndup(below, revision);
    kiln_autofree char *root = strndup(query->manifest_dir, (size_t)(below - query->manifest_dir) + revision);
    kiln_autofree char *suffix = NULL;
    if (!rest || !root || asprintf(&suffix, "-git-%s", rest + checkout + 1) < 0) {
        suffix = NULL;
        return no_memory(err);
    }
    if (!kiln_path_beneath(query->cwd, root))
        return other(package, "the working directory is outside the checkout");
    struct plan plan = {.kind = KILN_PACKAGE_GIT, .place = KILN_PLACE_GIT, .rest = rest, .real = root,
                        .suffix = suffix};
    return fill(query, &plan, package, err);
}

static int classify_local(const struct kiln_package_query *query, struct kiln_package *package, struct kiln_err *err) {
    struct plan member = {.kind = KILN_PACKAGE_MEMBER, .place = KILN_PLACE_WORKSPACE, .real = query->cwd,
                          .suffix = "-ws"};
    kiln_autofree char *name = plain_name(query);
    if (!name)
        return no_memory(err);
    struct plan path = {.kind = KILN_PACKAGE_PATH, .place = KILN_PLACE_PATH, .rest = name,
                        .real = query->manifest_dir, .suffix = "-path"};
    bool relative = query->source[0] != '/';
    if (relative && kiln_path_beneath(query->manifest_dir, query->cwd))
        return fill(query, &member, package, err);
    if (!relative && strcmp(query->cwd, query->manifest_dir) == 0)
        return fill(query, &path, package, err);
    return other(package, "the working directory is neither the workspace's nor the package's");
}

// What `manifest_dir` is below CARGO_HOME/`sub`; NULL when it is not there. Sets *out_of_memory.
static const char *below_home(const struct kiln_package_query *query, const char *sub, bool *out_of_memory) {
    kiln_autofree char *dir = NULL;
    int len = -1;
    if (query->cargo_home && query->cargo_home[0])
        len = asprintf(&dir, "%s/%s", query->cargo_home, sub);
    else if (query->home)
        len = asprintf(&dir, "%s/.cargo/%s", query->home, sub);
    else
        return NULL;
    if (len < 0) {
        dir = NULL;
        *out_of_memory = true;
        return NULL;
    }
    kiln_autofree char *home = kiln_path_normalize(dir);
    const char *below = home ? kiln_path_beneath(query->manifest_dir, home) : NULL;
    return below && *below ? below : NULL;
}

// Why this is no unit of a package; NULL when it may be one.
static const char *refusal(const struct kiln_package_query *query) {
    if (!query->manifest_dir || !query->name || !query->version || !query->crate_name)
        return "not called by cargo for a package";
    if (!is_plain(query->name, strlen(query->name)) || !is_plain(query->version, strlen(query->version)) ||
        strlen(query->name) + strlen(query->version) >= KILN_PACKAGE_NAME_MAX)
        return "an odd package name or version";
    if (!is_usable(query->manifest_dir) || !is_usable(query->cwd))
        return "a directory that cannot be remapped";
    return NULL;
}

int kiln_package_classify(const struct kiln_package_query *query, struct kiln_package *package, struct kiln_err *err) {
    const char *reason = refusal(query);
    if (reason)
        return other(package, reason);
    bool out_of_memory = false;
    bool holds = holds_source(query, &out_of_memory);
    const char *registry = below_home(query, "registry/src", &out_of_memory);
    const char *checkouts = below_home(query, "git/checkouts", &out_of_memory);
    if (out_of_memory)
        return no_memory(err);
    if (!holds)
        return other(package, "the source lies outside the package");
    if (registry)
        return classify_registry(query, registry, package, err);
    if (checkouts)
        return classify_git(query, checkouts, package, err);
    return classify_local(query, package, err);
}
