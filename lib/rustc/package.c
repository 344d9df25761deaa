#include "lib/rustc/package.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/rustc/paths.h"

#define NAME_MAX_BYTES 200

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

// Cargo's package names and versions; nothing that could mean something in a path or a remap argument.
static bool is_plain(const char *text) {
    if (!text || !*text || strlen(text) > NAME_MAX_BYTES || text[0] == '.' || text[0] == '-')
        return false;
    for (const char *at = text; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("._+-", *at))
            return false;
    return true;
}

static bool is_usable_directory(const char *dir) {
    return dir && dir[0] == '/' && dir[1] && !strchr(dir, '=') && !strchr(dir, '\n');
}

static int set(char **slot, char *value, struct kiln_err *err) {
    *slot = value;
    return value ? 0 : kiln_fail(err, KILN_E_NOMEM, "package");
}

static int set_name(struct kiln_package *package, const struct kiln_package_query *query, const char *suffix,
                    struct kiln_err *err) {
    char *name = NULL, *shown = NULL;
    if (asprintf(&name, "%s-%s%s", query->name, query->version, suffix) < 0)
        name = NULL;
    int rc = set(&package->name_version, name, err);
    if (rc == 0 && asprintf(&shown, "/kiln/%s", name) < 0)
        shown = NULL;
    return rc ? rc : set(&package->shown, shown, err);
}

// Fills the remaining fields from the prefix that is remapped and what lies below it.
static int set_places(struct kiln_package *package, const char *dir, const char *remap_real, char *remap_sandbox,
                      const char *cwd, struct kiln_err *err) {
    int rc = set(&package->remap_sandbox, remap_sandbox, err);
    if (rc == 0)
        rc = set(&package->dir, strdup(dir), err);
    if (rc == 0)
        rc = set(&package->remap_real, strdup(remap_real), err);
    const char *below = kiln_path_beneath(dir, remap_real), *cwd_below = kiln_path_beneath(cwd, remap_real);
    if (rc == 0)
        rc = set(&package->mount, *below ? kiln_path_join(remap_sandbox, below) : strdup(remap_sandbox), err);
    if (rc == 0)
        rc = set(&package->cwd, cwd_below && *cwd_below ? kiln_path_join(remap_sandbox, cwd_below) : strdup(remap_sandbox), err);
    return rc;
}

// The first `count` components of a relative path; NULL when there are fewer.
static char *first_components(const char *path, int count) {
    const char *end = path;
    for (int i = 0; i < count; i++) {
        if (!*end)
            return NULL;
        if (i)
            end++;
        end += strcspn(end, "/");
    }
    return strndup(path, (size_t)(end - path));
}

static int classify_registry(const struct kiln_package_query *query, const char *dir, struct kiln_package *package,
                             struct kiln_err *err) {
    package->kind = KILN_PACKAGE_REGISTRY;
    int rc = set_name(package, query, "", err);
    return rc ? rc : set_places(package, dir, dir, kiln_place(KILN_PLACE_REGISTRY, package->name_version), dir, err);
}

static int classify_git(const struct kiln_package_query *query, const char *dir, const char *checkouts, const char *below,
                        struct kiln_package *package, struct kiln_err *err) {
    kiln_autofree char *checkout = first_components(below, 2);
    kiln_autofree char *root = checkout ? kiln_path_join(checkouts, checkout) : NULL;
    kiln_autofree char *suffix = NULL;
    if (!root || asprintf(&suffix, "-git-%s", kiln_path_base(checkout)) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "package");
    if (!is_plain(kiln_path_base(checkout)))
        return 0;
    package->kind = KILN_PACKAGE_GIT;
    int rc = set_name(package, query, suffix, err);
    return rc ? rc : set_places(package, dir, root, kiln_place(KILN_PLACE_GIT, checkout), query->cwd, err);
}

static int classify_member(const struct kiln_package_query *query, const char *dir, struct kiln_package *package,
                           struct kiln_err *err) {
    package->kind = KILN_PACKAGE_MEMBER;
    int rc = set_name(package, query, "-ws", err);
    return rc ? rc : set_places(package, dir, query->cwd, kiln_place(KILN_PLACE_WORKSPACE, NULL), query->cwd, err);
}

static int classify_path(const struct kiln_package_query *query, const char *dir, struct kiln_package *package,
                         struct kiln_err *err) {
    package->kind = KILN_PACKAGE_PATH;
    int rc = set_name(package, query, "-path", err);
    return rc ? rc : set_places(package, dir, dir, kiln_place(KILN_PLACE_PATH, package->name_version), dir, err);
}

int kiln_package_classify(const struct kiln_package_query *query, struct kiln_package *package, struct kiln_err *err) {
    *package = (struct kiln_package){0};
    if (!is_plain(query->name) || !is_plain(query->version) || !is_usable_directory(query->manifest_dir) ||
        !is_usable_directory(query->cwd))
        return 0;
    kiln_autofree char *dir = kiln_path_normalize(query->manifest_dir);
    kiln_autofree char *home = query->cargo_home && query->cargo_home[0] == '/' ? strdup(query->cargo_home)
                               : query->home ? kiln_path_join(query->home, ".cargo") : NULL;
    kiln_autofree char *sources = home ? kiln_path_join(home, "registry/src") : NULL;
    kiln_autofree char *checkouts = home ? kiln_path_join(home, "git/checkouts") : NULL;
    if (!dir)
        return 0;
    const char *below;
    int rc = 0;
    if (sources && (below = kiln_path_beneath(dir, sources)) && *below)
        rc = classify_registry(query, dir, package, err);
    else if (checkouts && (below = kiln_path_beneath(dir, checkouts)) && *below)
        rc = classify_git(query, dir, checkouts, below, package, err);
    else if (query->source[0] != '/' && kiln_path_beneath(dir, query->cwd))
        rc = classify_member(query, dir, package, err);
    else if (query->source[0] == '/' && !strcmp(query->cwd, dir))
        rc = classify_path(query, dir, package, err);
    if (rc)
        kiln_package_release(package);
    return rc;
}
