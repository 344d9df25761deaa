#include <stdlib.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/blob/objects.h"
#include "lib/blob/store_ops.h"

#define SPACES 3

struct store_dir {
    struct kiln_store store;
    struct kiln_objects *spaces[SPACES];
};

static const char *const space_dirs[SPACES] = {
    [KILN_SPACE_QUARANTINE] = "quarantine", [KILN_SPACE_INPUTS] = "inputs", [KILN_SPACE_VAULT] = "vault"};

static struct kiln_objects *objects_of(struct kiln_store *store, enum kiln_space space) {
    return ((struct store_dir *)store)->spaces[space];
}

static void store_close(struct kiln_store *store) {
    struct store_dir *dir = (struct store_dir *)store;
    for (size_t i = 0; i < SPACES; i++)
        kiln_objects_free(dir->spaces[i]);
    free(dir);
}

static struct kiln_object_put object_put(enum kiln_space space, const struct kiln_store_put *put) {
    return (struct kiln_object_put){.key = put->key,
                                    .conflict = KILN_OBJECT_MEND,
                                    .max_bytes = put->max_bytes,
                                    .expected = put->expected,
                                    .durable = space != KILN_SPACE_QUARANTINE,
                                    // Out of quarantine: its objects are read-only, and of the store's own user.
                                    .may_link = space != KILN_SPACE_QUARANTINE};
}

static int store_put_fd(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, int fd,
                        struct kiln_err *err) {
    struct kiln_object_put object = object_put(space, put);
    return kiln_objects_put_fd(objects_of(store, space), &object, fd, NULL, err);
}

static int store_put_bytes(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put,
                           const void *data, size_t len, struct kiln_err *err) {
    struct kiln_object_put object = object_put(space, put);
    return kiln_objects_put_bytes(objects_of(store, space), &object, data, len, NULL, err);
}

static int store_put_pointer(struct kiln_store *store, const char *key, const void *data, size_t len,
                             enum kiln_pointer_put mode, struct kiln_err *err) {
    struct kiln_object_put object = {
        .key = key,
        .conflict = mode == KILN_POINTER_REPLACE ? KILN_OBJECT_REPLACE : KILN_OBJECT_FAIL,
        .durable = true,
    };
    return kiln_objects_put_bytes(objects_of(store, KILN_SPACE_VAULT), &object, data, len, NULL, err);
}

static int check_pin(const struct kiln_pin *pin, const char *key, struct kiln_err *err) {
    if (pin && pin->text[0])
        return kiln_fail(err, KILN_E_CORRUPT, "version: a directory has no version \"%s\" of %s", pin->text, key);
    return 0;
}

static int store_open(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, uint64_t *size,
                      struct kiln_err *err) {
    return kiln_objects_open(objects_of(store, space), key, fd, size, err);
}

static int store_read(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = store_open(store, space, key, &fd, &size, err);
    return rc ? rc : kiln_fs_read_fd(fd, out, err);
}

static bool store_has(struct kiln_store *store, enum kiln_space space, const char *key) {
    return kiln_objects_has(objects_of(store, space), key);
}

static void store_has_many(struct kiln_store *store, enum kiln_space space, const char *const *keys, size_t count, bool *present) {
    for (size_t i = 0; i < count; i++)
        present[i] = store_has(store, space, keys[i]);
}

static void store_open_many(struct kiln_store *store, struct kiln_store_want *const *wants, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct kiln_err err;
        if (check_pin(wants[i]->pin, wants[i]->key, &err) ||
            store_open(store, wants[i]->space, wants[i]->key, &wants[i]->fd, &wants[i]->size, &err))
            wants[i]->err = err;
    }
}

static void store_put_many(struct kiln_store *store, struct kiln_store_offer *const *offers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct kiln_store_put put = {.key = offers[i]->key, .max_bytes = offers[i]->max_bytes, .expected = offers[i]->expected};
        struct kiln_err err; // on success it may say what was looked for and not there
        if (store_put_fd(store, offers[i]->space, &put, offers[i]->fd, &err))
            offers[i]->err = err;
    }
}

// A directory locks nothing and has one version of each object, whose pin is "".
static int store_keep_fd(struct kiln_store *store, const struct kiln_store_keep *keep, int fd, struct kiln_err *err) {
    struct kiln_store_put put = {.key = keep->key, .max_bytes = keep->max_bytes, .expected = keep->expected};
    return store_put_fd(store, KILN_SPACE_VAULT, &put, fd, err);
}

static int store_keep_pointer(struct kiln_store *store, const struct kiln_store_keep *keep, const void *data, size_t len,
                              enum kiln_pointer_put mode, struct kiln_err *err) {
    return store_put_pointer(store, keep->key, data, len, mode, err);
}

static int store_pointer_versions(struct kiln_store *store, const char *key,
                                  int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes),
                                  void *context, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_POINTER_BYTES_MAX);
    struct kiln_pin pin = {0};
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = store_open(store, KILN_SPACE_VAULT, key, &fd, &size, err);
    if (rc)
        return rc == KILN_E_NOTFOUND ? 0 : rc;
    if (size > KILN_POINTER_BYTES_MAX)
        return 0; // no pointer is so large
    rc = kiln_fs_read_fd(fd, &bytes, err);
    return rc ? rc : visit(context, &pin, &bytes);
}

static int store_remove(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err) {
    return kiln_objects_remove(objects_of(store, space), key, err);
}

static int store_prune(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms,
                       uint64_t *removed_bytes, struct kiln_err *err) {
    struct kiln_objects_usage usage;
    int rc = kiln_objects_prune(objects_of(store, space), max_bytes, keep_ms, &usage, err);
    if (rc == 0 && removed_bytes)
        *removed_bytes = usage.removed_bytes;
    return rc;
}

static const struct kiln_store_ops dir_ops = {
    .close = store_close,
    .put_fd = store_put_fd,
    .put_bytes = store_put_bytes,
    .put_pointer = store_put_pointer,
    .open = store_open,
    .read = store_read,
    .has = store_has,
    .has_many = store_has_many,
    .remove = store_remove,
    .remove_below = store_remove,
    .keep_fd = store_keep_fd,
    .keep_pointer = store_keep_pointer,
    .pointer_versions = store_pointer_versions,
    .open_many = store_open_many,
    .put_many = store_put_many,
    .prune = store_prune,
};

int kiln_store_open_dir(const char *path, enum kiln_store_role role, struct kiln_store **store, struct kiln_err *err) {
    struct store_dir *dir = calloc(1, sizeof *dir);
    if (!dir)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a store");
    dir->store = (struct kiln_store){.ops = &dir_ops, .role = role};
    for (size_t i = 0; i < SPACES; i++) {
        kiln_autofree char *space = kiln_path_join(path, space_dirs[i]);
        int rc = space ? kiln_objects_new(space, &dir->spaces[i], err) : kiln_fail(err, KILN_E_NOMEM, "no memory");
        if (rc) {
            store_close(&dir->store);
            return rc;
        }
    }
    *store = &dir->store;
    return 0;
}
