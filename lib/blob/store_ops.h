// What an implementation of the store provides. Keys and roles are checked before it is called; digests of what a get
// returns are checked after it. Version and lock of a pinned object are the implementation's to check.
#pragma once

#include "lib/blob/store.h"

struct kiln_store_put {
    const char *key;
    uint64_t max_bytes;
    const struct kiln_digest *expected;
};

// What keeps an object for good (kiln_store_keep_fd, kiln_store_keep_pointer).
struct kiln_store_keep {
    const char *key;
    uint64_t max_bytes; // of a descriptor
    const struct kiln_digest *expected;
    uint64_t retain_until_ms;
    struct kiln_pin *pin; // never NULL
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
    int (*read)(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out, struct kiln_err *err);
    bool (*has)(struct kiln_store *store, enum kiln_space space, const char *key);
    void (*has_many)(struct kiln_store *store, enum kiln_space space, const char *const *keys, size_t count, bool *present);
    int (*remove)(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err);
    int (*remove_below)(struct kiln_store *store, enum kiln_space space, const char *prefix, struct kiln_err *err);
    int (*keep_fd)(struct kiln_store *store, const struct kiln_store_keep *keep, int fd, struct kiln_err *err);
    int (*keep_pointer)(struct kiln_store *store, const struct kiln_store_keep *keep, const void *data, size_t len,
                        enum kiln_pointer_put mode, struct kiln_err *err);
    int (*pointer_versions)(struct kiln_store *store, const char *key,
                            int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes), void *context,
                            struct kiln_err *err);
    // NULL: done as keep_fd and keep_pointer.
    int (*pair_content)(struct kiln_store *store, struct kiln_store_pair *pair, int fd, struct kiln_err *err);
    int (*pair_pointer)(struct kiln_store *store, const struct kiln_store_pair *pair, const void *data, size_t len,
                        uint64_t retain_until_ms, struct kiln_err *err);
    bool (*pointer_is_listed)(struct kiln_store *store, const char *key); // NULL: true
    // Wants whose err.code is not 0 are left out; fd, size and err of the others are set (size of what is stored).
    void (*open_many)(struct kiln_store *store, struct kiln_store_want *const *wants, size_t count);
    void (*put_many)(struct kiln_store *store, struct kiln_store_offer *const *offers, size_t count);
    // What was opened turned out to have other bytes than its name says; may be NULL.
    void (*distrust)(struct kiln_store *store, enum kiln_space space, const char *key);
    int (*prune)(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms,
                 uint64_t *removed_bytes, struct kiln_err *err);
};

// The first member of each implementation's own struct.
struct kiln_store {
    const struct kiln_store_ops *ops;
    enum kiln_store_role role;
    bool bundles;
};
