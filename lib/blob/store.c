#include "lib/blob/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/blob/store_ops.h"

enum right { RIGHT_READ, RIGHT_PUT, RIGHT_REMOVE };

static const char *const space_names[] = {"quarantine", "inputs", "vault"};
static const char *const role_names[] = {"agent", "executor", "verifier", "reader"};
static const char *const right_names[] = {"read", "put", "remove"};

static bool role_may(enum kiln_store_role role, enum right right, enum kiln_space space, const char *key) {
    switch (role) {
    case KILN_ROLE_VERIFIER:
        return true;
    case KILN_ROLE_AGENT:
        if (right == RIGHT_READ)
            return space == KILN_SPACE_VAULT;
        return space == KILN_SPACE_QUARANTINE && strncmp(key, "in/", 3) == 0;
    case KILN_ROLE_EXECUTOR:
        if (right == RIGHT_PUT)
            return space == KILN_SPACE_QUARANTINE && strncmp(key, "out/", 4) == 0;
        return right == RIGHT_READ && space != KILN_SPACE_QUARANTINE;
    case KILN_ROLE_READER:
        return right == RIGHT_READ && space != KILN_SPACE_QUARANTINE;
    }
    return false;
}

static int check(const struct kiln_store *store, enum right right, enum kiln_space space, const char *key,
                 struct kiln_err *err) {
    int rc = kiln_path_check_relative(key, err);
    if (rc)
        return kiln_wrap(err, rc, "store key");
    if (!role_may(store->role, right, space, key))
        return kiln_fail(err, KILN_E_DENIED, "role %s may not %s %s in %s", role_names[store->role], right_names[right],
                         key, space_names[space]);
    return 0;
}

void kiln_store_close(struct kiln_store *store) {
    if (store)
        store->ops->close(store);
}

int kiln_store_put_fd(struct kiln_store *store, enum kiln_space space, const char *key, int fd, uint64_t max_bytes,
                      const struct kiln_digest *expected, struct kiln_err *err) {
    struct kiln_store_put put = {.key = key, .max_bytes = max_bytes, .expected = expected};
    int rc = check(store, RIGHT_PUT, space, key, err);
    return rc ? rc : store->ops->put_fd(store, space, &put, fd, err);
}

int kiln_store_put_bytes(struct kiln_store *store, enum kiln_space space, const char *key, const void *data, size_t len,
                         const struct kiln_digest *expected, struct kiln_err *err) {
    struct kiln_store_put put = {.key = key, .max_bytes = len, .expected = expected};
    int rc = check(store, RIGHT_PUT, space, key, err);
    return rc ? rc : store->ops->put_bytes(store, space, &put, data, len, err);
}

int kiln_store_put_pointer(struct kiln_store *store, const char *key, const void *data, size_t len, bool replace,
                           struct kiln_err *err) {
    int rc = check(store, RIGHT_PUT, KILN_SPACE_VAULT, key, err);
    if (rc)
        return rc;
    return store->ops->put_pointer(store, key, data, len, replace ? KILN_POINTER_REPLACE : KILN_POINTER_CREATE, err);
}

int kiln_store_get_fd(struct kiln_store *store, enum kiln_space space, const char *key, const struct kiln_digest *expected,
                      int *fd, uint64_t *size, struct kiln_err *err) {
    kiln_autofd int opened = -1;
    uint64_t stored_size, hashed_size;
    struct kiln_digest digest;
    int rc = check(store, RIGHT_READ, space, key, err);
    if (rc == 0)
        rc = store->ops->open(store, space, key, &opened, &stored_size, err);
    if (rc == 0)
        rc = kiln_digest_of_fd(opened, stored_size, &digest, &hashed_size, err);
    if (rc == KILN_E_LIMIT || (rc == 0 && (hashed_size != stored_size || !kiln_digest_equal(&digest, expected))))
        return kiln_fail(err, KILN_E_CORRUPT, "object %s does not have the digest it is stored for", key);
    if (rc)
        return rc;
    *size = hashed_size;
    *fd = kiln_steal_fd(&opened);
    return 0;
}

int kiln_store_open_unchecked(struct kiln_store *store, enum kiln_space space, const char *key, int *fd,
                              struct kiln_err *err) {
    uint64_t size;
    int rc = check(store, RIGHT_READ, space, key, err);
    return rc ? rc : store->ops->open(store, space, key, fd, &size, err);
}

int kiln_store_get_bytes(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out,
                         struct kiln_err *err) {
    kiln_autofd int fd = -1;
    int rc = kiln_store_open_unchecked(store, space, key, &fd, err);
    if (rc)
        return rc;
    rc = kiln_fs_read_fd(fd, out, err);
    return rc ? kiln_wrap(err, rc, "object %s", key) : 0;
}

bool kiln_store_has(struct kiln_store *store, enum kiln_space space, const char *key) {
    return check(store, RIGHT_READ, space, key, NULL) == 0 && store->ops->has(store, space, key);
}

int kiln_store_remove(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err) {
    int rc = check(store, RIGHT_REMOVE, space, key, err);
    return rc ? rc : store->ops->remove(store, space, key, err);
}

int kiln_store_remove_below(struct kiln_store *store, enum kiln_space space, const char *prefix, struct kiln_err *err) {
    return kiln_store_remove(store, space, prefix, err);
}

int kiln_store_prune(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms,
                     uint64_t *removed_bytes, struct kiln_err *err) {
    if (store->role != KILN_ROLE_VERIFIER)
        return kiln_fail(err, KILN_E_DENIED, "role %s may not prune the store", role_names[store->role]);
    return store->ops->prune(store, space, max_bytes, keep_ms, removed_bytes, err);
}

// "PARTS..." joined by slashes when each is one component and the whole is a canonical path. Ends at NULL.
static char *join_key(const char *const *parts) {
    kiln_autobuf struct kiln_buf key = KILN_BUF_INIT(KILN_PATH_MAX);
    for (; *parts; parts++) {
        if (!**parts || strchr(*parts, '/'))
            return NULL;
        kiln_buf_addf(&key, "%s%s", key.len ? "/" : "", *parts);
    }
    const char *text = kiln_buf_text(&key);
    return key.failed || kiln_path_check_relative(text, NULL) ? NULL : strdup(text);
}

static char *join_digest_key(const char *top, const char *scope, const char *third, const struct kiln_digest *digest) {
    char hex[KILN_DIGEST_HEX_LEN + 1], fan[3];
    kiln_digest_format(digest, hex);
    memcpy(fan, hex, 2);
    fan[2] = 0;
    return join_key((const char *const[]){top, scope, third, fan, hex, NULL});
}

char *kiln_key_content(const char *kind, const char *scope, const struct kiln_digest *digest) {
    return join_digest_key("cas", scope, kind, digest);
}

char *kiln_key_result(const char *scope, uint64_t generation, const struct kiln_digest *action) {
    char number[24];
    snprintf(number, sizeof number, "%llu", (unsigned long long)generation);
    return join_digest_key("ac", scope, number, action);
}

char *kiln_key_quarantine_in(const char *tenant, const char *agent, const char *job, const char *name) {
    return join_key((const char *const[]){"in", tenant, agent, job, name, NULL});
}

char *kiln_key_quarantine_out(const char *executor, const char *job, unsigned attempt, const char *name) {
    char number[16];
    snprintf(number, sizeof number, "%u", attempt);
    return join_key((const char *const[]){"out", executor, job, number, name, NULL});
}
