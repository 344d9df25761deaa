#include "ops/admin/root_keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

int kiln_key_file_open(const char *path, enum kiln_key_file file, struct kiln_sign_key **key, struct kiln_err *err) {
    kiln_autofree char *copy = strdup(path);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "%s: out of memory", path);
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy, *directory = slash == copy ? "/" : slash ? copy : ".";
    if (slash)
        *slash = '\0';
    kiln_autofd int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, errno == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO, "%s", directory);
    bool there = faccessat(fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (!there && file == KILN_KEY_MUST_EXIST)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s: no such key file", path);
    if (there && file == KILN_KEY_MUST_BE_NEW)
        return kiln_fail(err, KILN_E_EXISTS, "%s: is there already", path);
    int rc = kiln_sign_key_load_or_make(fd, name, key, err);
    return rc ? kiln_wrap(err, rc, "%s", path) : 0;
}

int kiln_root_keys_load(const char *files, struct kiln_root_keys *keys, struct kiln_err *err) {
    kiln_autofree char *copy = strdup(files);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "roots: out of memory");
    char *rest = copy, *one;
    while ((one = strsep(&rest, ","))) {
        if (keys->count == KILN_TRUST_ROOTS_MAX)
            return kiln_fail(err, KILN_E_LIMIT, "more than %u roots", KILN_TRUST_ROOTS_MAX);
        int rc = kiln_key_file_open(one, KILN_KEY_MUST_EXIST, &keys->keys[keys->count], err);
        if (rc)
            return rc;
        keys->count++;
    }
    return 0;
}

void kiln_root_keys_release(struct kiln_root_keys *keys) {
    for (size_t i = 0; i < keys->count; i++)
        kiln_sign_key_free(keys->keys[i]);
    keys->count = 0;
}
