#include "producer/agent/request_env.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

const char *kiln_request_env(char *const *env, size_t count, const char *name) {
    size_t len = strlen(name);
    for (size_t i = 0; i < count; i++)
        if (!strncmp(env[i], name, len) && env[i][len] == '=')
            return env[i] + len + 1;
    return NULL;
}

static char *executable_at(const char *cwd, const char *path) {
    kiln_autofree char *joined = kiln_path_join(cwd, path);
    if (!joined || access(joined, X_OK))
        return NULL;
    return KILN_STEAL(joined);
}

char *kiln_request_which(char *const *env, size_t count, const char *cwd, const char *program) {
    if (strchr(program, '/'))
        return executable_at(cwd, program);
    const char *path = kiln_request_env(env, count, "PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        kiln_autofree char *dir = len ? strndup(path, len) : strdup(".");
        kiln_autofree char *candidate = dir ? kiln_path_join(dir, program) : NULL;
        char *found = candidate ? executable_at(cwd, candidate) : NULL;
        if (found)
            return found;
        path += len + (path[len] == ':');
    }
    return NULL;
}
