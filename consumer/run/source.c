#include "consumer/run/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

static int check_kind(const struct kiln_run_bind *bind, struct stat *wanted, struct kiln_err *err) {
    if (fstat((int)bind->fd, wanted) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "descriptor %u", bind->fd);
    if (!(bind->file ? S_ISREG(wanted->st_mode) : S_ISDIR(wanted->st_mode)))
        return kiln_fail(err, KILN_E_INVAL, "descriptor %u is not a %s", bind->fd, bind->file ? "regular file" : "directory");
    return 0;
}

int kiln_source_find(const struct kiln_run_bind *bind, int *found, char **path, struct kiln_err *err) {
    char link[40], name[KILN_PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%u", bind->fd);
    ssize_t len = readlink(link, name, sizeof name - 1);
    if (len < 0)
        return kiln_fail_errno(err, KILN_E_INVAL, "descriptor %u", bind->fd);
    name[len] = 0;
    struct stat wanted, got;
    int rc = check_kind(bind, &wanted, err);
    if (rc)
        return rc;
    kiln_autofd int again = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (again < 0 || fstat(again, &got) < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "opening %s", name);
    if (got.st_dev != wanted.st_dev || got.st_ino != wanted.st_ino)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s is not what it was when it was opened", name);
    if (path && !(*path = strdup(name)))
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    *found = kiln_steal_fd(&again);
    return 0;
}
