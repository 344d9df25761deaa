#include "lib/base/path.h"

#include <stdlib.h>
#include <string.h>

#define COMPONENT_MAX 255

static int check_component(const char *path, const char *component, size_t len, struct kiln_err *err) {
    if (len == 0)
        return kiln_fail(err, KILN_E_INVAL, "path \"%.200s\" has an empty component", path);
    if (len > COMPONENT_MAX)
        return kiln_fail(err, KILN_E_INVAL, "path \"%.200s\" has a component of over %d bytes", path, COMPONENT_MAX);
    if (component[0] == '.' && (len == 1 || (len == 2 && component[1] == '.')))
        return kiln_fail(err, KILN_E_INVAL, "path \"%.200s\" has a \"%.*s\" component", path, (int)len, component);
    return 0;
}

int kiln_path_check_relative(const char *path, struct kiln_err *err) {
    size_t len = strnlen(path, KILN_PATH_MAX + 1);
    if (len > KILN_PATH_MAX)
        return kiln_fail(err, KILN_E_INVAL, "path is longer than %d bytes", KILN_PATH_MAX);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)path[i] < 0x20)
            return kiln_fail(err, KILN_E_INVAL, "path has a control character at byte %zu", i);
    int depth = 0;
    for (const char *component = path;;) {
        const char *end = strchrnul(component, '/');
        int rc = check_component(path, component, (size_t)(end - component), err);
        if (rc)
            return rc;
        if (++depth > KILN_PATH_DEPTH_MAX)
            return kiln_fail(err, KILN_E_INVAL, "path has over %d components", KILN_PATH_DEPTH_MAX);
        if (!*end)
            return 0;
        component = end + 1;
    }
}

int kiln_path_check_absolute(const char *path, struct kiln_err *err) {
    if (path[0] != '/')
        return kiln_fail(err, KILN_E_INVAL, "path \"%.200s\" is not absolute", path);
    return path[1] ? kiln_path_check_relative(path + 1, err) : 0;
}

char *kiln_path_join(const char *dir, const char *name) {
    size_t dir_len = name[0] == '/' ? 0 : strlen(dir);
    size_t name_len = strlen(name);
    char *joined = malloc(dir_len + name_len + 2);
    if (!joined)
        return NULL;
    memcpy(joined, dir, dir_len);
    size_t at = dir_len;
    if (at && joined[at - 1] != '/')
        joined[at++] = '/';
    memcpy(joined + at, name, name_len + 1);
    return joined;
}

char *kiln_path_normalize(const char *absolute) {
    if (absolute[0] != '/')
        return NULL;
    char *out = malloc(strlen(absolute) + 2);
    if (!out)
        return NULL;
    size_t len = 0; // `out` holds "/a/b" without a trailing slash
    for (const char *component = absolute; *component;) {
        while (*component == '/')
            component++;
        size_t size = (size_t)(strchrnul(component, '/') - component);
        if (size == 2 && component[0] == '.' && component[1] == '.') {
            if (len == 0) {
                free(out);
                return NULL;
            }
            while (out[--len] != '/')
                ;
        } else if (size && !(size == 1 && component[0] == '.')) {
            out[len++] = '/';
            memcpy(out + len, component, size);
            len += size;
        }
        component += size;
    }
    if (len == 0)
        out[len++] = '/';
    out[len] = 0;
    return out;
}

const char *kiln_path_beneath(const char *path, const char *prefix) {
    size_t len = strlen(prefix);
    if (len == 0)
        return NULL;
    while (len && prefix[len - 1] == '/')
        len--;
    if (strncmp(path, prefix, len) != 0 || (path[len] != '/' && path[len] != 0))
        return NULL;
    const char *rest = path + len;
    while (*rest == '/')
        rest++;
    return rest;
}

const char *kiln_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *kiln_path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    while (slash > path && slash[-1] == '/')
        slash--;
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}
