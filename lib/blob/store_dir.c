#include <stdlib.h>

#include "lib/base/cleanup.h"
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

static int store_open(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, uint64_t *size,
                      struct kiln_err *err) {
    return kiln_objects_open(objects_of(store, space), key, fd, size, err);
}

static bool store_has(struct kiln_store *store, enum kiln_space space, const char *key) {
    return kiln_objects_has(objects_of(store, space), key);
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
    .has = store_has,
    .remove = store_remove,
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
