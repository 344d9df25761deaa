#include "producer/wrapper/local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

_Noreturn void kiln_local_run(char *const *argv) {
    execvp(argv[0], argv);
    _exit(errno == ENOENT ? 127 : 126);
}

bool kiln_local_is_program(const char *name) {
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        kiln_autofree char *dir = len ? strndup(path, len) : strdup(".");
        kiln_autofree char *candidate = dir ? kiln_path_join(dir, name) : NULL;
        if (candidate && access(candidate, X_OK) == 0)
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}
