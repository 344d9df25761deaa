// A store in memory that keeps every version, as a bucket with object lock does: for tests of what stands over a pointer.
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/fs.h"
#include "lib/blob/store_ops.h"

enum { VERSIONS_MAX = 128 };

struct version {
    enum kiln_space space;
    char *key;
    unsigned char *bytes;
    size_t len;
    bool marker; // of a deletion
    uint64_t retain_until_ms;
};

struct versioned {
    struct kiln_store store; // first: what implementations of the store begin with
    struct version list[VERSIONS_MAX];
    size_t count;
};

static inline struct version *versioned_add(struct kiln_store *store, enum kiln_space space, const char *key,
                                            const void *data, size_t len) {
    struct versioned *all = (struct versioned *)store;
    if (all->count == VERSIONS_MAX)
        abort();
    struct version *made = &all->list[all->count++];
    *made = (struct version){.space = space, .key = strdup(key), .bytes = malloc(len + 1), .len = len};
    memcpy(made->bytes, data, len);
    return made;
}

static inline void versioned_hide(struct kiln_store *store, const char *key) {
    versioned_add(store, KILN_SPACE_VAULT, key, "", 0)->marker = true;
}

static inline struct version *versioned_next(struct kiln_store *store, enum kiln_space space, const char *key, size_t *at) {
    struct versioned *all = (struct versioned *)store;
    while (*at < all->count) {
        struct version *version = &all->list[(*at)++];
        if (version->space == space && strcmp(version->key, key) == 0)
            return version;
    }
    return NULL;
}

static inline struct version *versioned_newest(struct kiln_store *store, enum kiln_space space, const char *key) {
    struct version *newest = NULL, *version;
    for (size_t at = 0; (version = versioned_next(store, space, key, &at));)
        newest = version;
    return newest && !newest->marker ? newest : NULL;
}

static inline int versioned_give(const struct version *version, const char *key, int *fd, uint64_t *size, struct kiln_err *err) {
    if (!version)
        return kiln_fail(err, KILN_E_NOTFOUND, "object %s", key);
    *fd = memfd_create("object", MFD_CLOEXEC);
    *size = version->len;
    if (write(*fd, version->bytes, version->len) != (ssize_t)version->len || lseek(*fd, 0, SEEK_SET))
        abort();
    return 0;
}

static inline int versioned_open(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, uint64_t *size,
                                 struct kiln_err *err) {
    return versioned_give(versioned_newest(store, space, key), key, fd, size, err);
}

static inline int versioned_read(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out,
                                 struct kiln_err *err) {
    const struct version *newest = versioned_newest(store, space, key);
    if (!newest)
        return kiln_fail(err, KILN_E_NOTFOUND, "object %s", key);
    kiln_buf_add(out, newest->bytes, newest->len);
    return kiln_buf_check(out, key, err);
}

static inline int versioned_put_bytes(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put,
                                      const void *data, size_t len, struct kiln_err *err) {
    struct kiln_digest digest;
    kiln_digest_of(data, len, &digest);
    if (put->expected && !kiln_digest_equal(&digest, put->expected))
        return kiln_fail(err, KILN_E_CORRUPT, "object %s has other bytes", put->key);
    if (!versioned_newest(store, space, put->key))
        versioned_add(store, space, put->key, data, len);
    return 0;
}

static inline int versioned_read_fd(int fd, uint64_t max_bytes, struct kiln_buf *bytes, struct kiln_err *err) {
    *bytes = KILN_BUF_INIT(max_bytes);
    if (lseek(fd, 0, SEEK_SET))
        abort();
    return kiln_fs_read_fd(fd, bytes, err);
}

static inline int versioned_put_fd(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, int fd,
                                   struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = {0};
    int rc = versioned_read_fd(fd, put->max_bytes, &bytes, err);
    return rc ? rc : versioned_put_bytes(store, space, put, bytes.data ? bytes.data : (unsigned char *)"", bytes.len, err);
}

static inline void versioned_pin(const struct kiln_store *store, const struct version *version, struct kiln_pin *pin) {
    snprintf(pin->text, sizeof pin->text, "v%zu", (size_t)(version - ((const struct versioned *)store)->list));
}

static inline int versioned_keep_fd(struct kiln_store *store, const struct kiln_store_keep *keep, int fd, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = {0};
    struct version *version;
    int rc = versioned_read_fd(fd, keep->max_bytes, &bytes, err);
    if (rc)
        return rc;
    for (size_t at = 0; (version = versioned_next(store, KILN_SPACE_VAULT, keep->key, &at));) {
        if (version->len == bytes.len && !memcmp(version->bytes, bytes.data, bytes.len) &&
            version->retain_until_ms >= keep->retain_until_ms)
            break;
    }
    if (!version) {
        version = versioned_add(store, KILN_SPACE_VAULT, keep->key, bytes.data, bytes.len);
        version->retain_until_ms = keep->retain_until_ms;
    }
    versioned_pin(store, version, keep->pin);
    return 0;
}

static inline int versioned_keep_pointer(struct kiln_store *store, const struct kiln_store_keep *keep, const void *data,
                                         size_t len, enum kiln_pointer_put mode, struct kiln_err *err) {
    size_t at = 0;
    if (mode == KILN_POINTER_CREATE && versioned_next(store, KILN_SPACE_VAULT, keep->key, &at))
        return kiln_fail(err, KILN_E_EXISTS, "object %s", keep->key);
    struct version *made = versioned_add(store, KILN_SPACE_VAULT, keep->key, data, len);
    made->retain_until_ms = keep->retain_until_ms;
    versioned_pin(store, made, keep->pin);
    return 0;
}

static inline int versioned_each(struct kiln_store *store, const char *key,
                                 int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes),
                                 void *context, struct kiln_err *err) {
    (void)err;
    int rc = 0;
    struct version *version;
    for (size_t at = 0; !rc && (version = versioned_next(store, KILN_SPACE_VAULT, key, &at));) {
        kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
        struct kiln_pin pin;
        kiln_buf_add(&bytes, version->bytes, version->len);
        versioned_pin(store, version, &pin);
        if (!version->marker)
            rc = visit(context, &pin, &bytes);
    }
    return rc;
}

static inline void versioned_open_many(struct kiln_store *store, struct kiln_store_want *const *wants, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct version *version = versioned_newest(store, wants[i]->space, wants[i]->key), *other;
        if (wants[i]->pin) {
            struct kiln_pin pin;
            version = NULL;
            for (size_t at = 0; !version && (other = versioned_next(store, wants[i]->space, wants[i]->key, &at));) {
                versioned_pin(store, other, &pin);
                version = strcmp(pin.text, wants[i]->pin->text) == 0 ? other : NULL;
            }
        }
        versioned_give(version, wants[i]->key, &wants[i]->fd, &wants[i]->size, &wants[i]->err);
    }
}

static inline void versioned_put_many(struct kiln_store *store, struct kiln_store_offer *const *offers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct kiln_store_put put = {.key = offers[i]->key, .max_bytes = offers[i]->max_bytes, .expected = offers[i]->expected};
        versioned_put_fd(store, offers[i]->space, &put, offers[i]->fd, &offers[i]->err);
    }
}

static inline bool versioned_has(struct kiln_store *store, enum kiln_space space, const char *key) {
    return versioned_newest(store, space, key) != NULL;
}

static inline void versioned_close(struct kiln_store *store) {
    struct versioned *all = (struct versioned *)store;
    for (size_t i = 0; i < all->count; i++) {
        free(all->list[i].key);
        free(all->list[i].bytes);
    }
    free(all);
}

static inline struct kiln_store *versioned_new(void) {
    static const struct kiln_store_ops ops = {
        .close = versioned_close, .put_fd = versioned_put_fd, .put_bytes = versioned_put_bytes, .open = versioned_open,
        .read = versioned_read, .has = versioned_has, .keep_fd = versioned_keep_fd, .keep_pointer = versioned_keep_pointer,
        .pointer_versions = versioned_each, .open_many = versioned_open_many, .put_many = versioned_put_many};
    struct versioned *all = calloc(1, sizeof *all);
    all->store = (struct kiln_store){.ops = &ops, .role = KILN_ROLE_VERIFIER};
    kiln_store_use_bundles(&all->store);
    return &all->store;
}
