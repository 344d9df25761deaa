// A directory of the test's own, as cmocka state: made by scratch_setup, removed with all in it by scratch_teardown.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/fs.h"

struct scratch {
    char path[64];
    int fd;
};

static inline int scratch_setup(void **state) {
    struct scratch *scratch = calloc(1, sizeof *scratch);
    assert_non_null(scratch);
    strcpy(scratch->path, "/tmp/kiln-test-XXXXXX");
    assert_non_null(mkdtemp(scratch->path));
    scratch->fd = open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(scratch->fd >= 0);
    *state = scratch;
    return 0;
}

static inline int scratch_teardown(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    if (kiln_fs_remove_tree(AT_FDCWD, scratch->path, &err))
        fail_msg("%s", err.text);
    close(scratch->fd);
    free(scratch);
    return 0;
}

// "SCRATCH/name", valid until the next call but seven.
static inline const char *scratch_path(const struct scratch *scratch, const char *name) {
    static char paths[8][512];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    assert_true(snprintf(path, sizeof paths[0], "%s/%s", scratch->path, name) < (int)sizeof paths[0]);
    return path;
}

static inline void scratch_write(const struct scratch *scratch, const char *name, const void *data, size_t len) {
    int fd = openat(scratch->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(kiln_fs_write_all(fd, data, len, NULL), 0);
    close(fd);
}

static inline void scratch_write_text(const struct scratch *scratch, const char *name, const char *text) {
    scratch_write(scratch, name, text, strlen(text));
}

// A literal where an argv or envp wants char *: nothing writes to it.
#define TEXT(literal) ((char *)(literal))

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        int assert_ok_rc_ = (call);                                                                                    \
        if (assert_ok_rc_)                                                                                             \
            fail_msg("%s: %d %s", #call, assert_ok_rc_, err.text);                                                     \
    } while (0)

#define scratch_test(function) cmocka_unit_test_setup_teardown(function, scratch_setup, scratch_teardown)
