// What an implementation of the store provides. Keys and roles are checked before it is called; digests of what a get
// returns are checked after it.
#pragma once

#include "lib/blob/store.h"

struct kiln_store_put {
    const char *key;
    uint64_t max_bytes;
    const struct kiln_digest *expected;
};

enum kiln_pointer_put { KILN_POINTER_CREATE, KILN_POINTER_REPLACE };

struct kiln_store_ops {
    void (*close)(struct kiln_store *store);
    int (*put_fd)(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, int fd,
                  struct kiln_err *err);
    int (*put_bytes)(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, const void *data,
                     size_t len, struct kiln_err *err);
    int (*put_pointer)(struct kiln_store *store, const char *key, const void *data, size_t len,
                       enum kiln_pointer_put mode, struct kiln_err *err);
    int (*open)(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, uint64_t *size,
                struct kiln_err *err);
    bool (*has)(struct kiln_store *store, enum kiln_space space, const char *key);
    int (*remove)(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err);
    int (*prune)(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms,
                 uint64_t *removed_bytes, struct kiln_err *err);
};

// The first member of each implementation's own struct.
struct kiln_store {
    const struct kiln_store_ops *ops;
    enum kiln_store_role role;
};
