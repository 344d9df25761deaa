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

// in/TENANT/hints/...: what agents leave for each other.
static bool is_hint(const char *key) {
    const char *tenant_end = strncmp(key, "in/", 3) == 0 ? strchr(key + 3, '/') : NULL;
    return tenant_end && strncmp(tenant_end, "/hints/", 7) == 0;
}

static bool role_may(enum kiln_store_role role, enum right right, enum kiln_space space, const char *key) {
    switch (role) {
    case KILN_ROLE_VERIFIER:
        return true;
    case KILN_ROLE_AGENT:
        if (right == RIGHT_READ)
            return space == KILN_SPACE_VAULT || (space == KILN_SPACE_QUARANTINE && is_hint(key));
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

// The bytes that the caller is going to see, against their name.
static int check_digest(struct kiln_store *store, const struct kiln_store_want *want, struct kiln_err *err) {
    uint64_t hashed_size;
    struct kiln_digest digest;
    int rc = kiln_digest_of_fd(want->fd, want->size, &digest, &hashed_size, err);
    if (rc == KILN_E_LIMIT || (rc == 0 && (hashed_size != want->size || !kiln_digest_equal(&digest, want->expected)))) {
        if (store->ops->distrust)
            store->ops->distrust(store, want->space, want->key);
        return kiln_fail(err, KILN_E_CORRUPT, "object %s does not have the digest it is stored for", want->key);
    }
    return rc;
}

void kiln_store_get_many(struct kiln_store *store, struct kiln_store_want *wants, size_t count) {
    kiln_autofree struct kiln_store_want **allowed = calloc(count ? count : 1, sizeof *allowed);
    size_t allowed_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct kiln_store_want *want = &wants[i];
        want->fd = -1;
        want->size = 0;
        want->err = (struct kiln_err){0};
        if (!allowed)
            kiln_fail(&want->err, KILN_E_NOMEM, "no memory to fetch objects");
        else if (!check(store, RIGHT_READ, want->space, want->key, &want->err))
            allowed[allowed_count++] = want;
    }
    if (allowed_count)
        store->ops->open_many(store, allowed, allowed_count);
    for (size_t i = 0; i < allowed_count; i++) {
        struct kiln_store_want *want = allowed[i];
        if (want->err.code || !want->expected || check_digest(store, want, &want->err) == 0)
            continue;
        close(want->fd);
        want->fd = -1;
    }
}

// One want, its outputs given only on success.
static int get_one(struct kiln_store *store, struct kiln_store_want *want, int *fd, uint64_t *size, struct kiln_err *err) {
    kiln_store_get_many(store, want, 1);
    if (want->err.code) {
        if (err)
            *err = want->err;
        return want->err.code;
    }
    *fd = want->fd;
    *size = want->size;
    return 0;
}

int kiln_store_get_fd(struct kiln_store *store, enum kiln_space space, const char *key, const struct kiln_digest *expected,
                      int *fd, uint64_t *size, struct kiln_err *err) {
    struct kiln_store_want want = {.space = space, .key = key, .expected = expected};
    return get_one(store, &want, fd, size, err);
}

int kiln_store_get_pinned(struct kiln_store *store, const char *key, const struct kiln_pin *pin,
                          const struct kiln_digest *expected, int *fd, uint64_t *size, struct kiln_err *err) {
    struct kiln_store_want want = {.space = KILN_SPACE_VAULT, .key = key, .pin = pin, .expected = expected};
    return get_one(store, &want, fd, size, err);
}

int kiln_store_open_unchecked(struct kiln_store *store, enum kiln_space space, const char *key, int *fd,
                              struct kiln_err *err) {
    uint64_t size;
    int rc = check(store, RIGHT_READ, space, key, err);
    return rc ? rc : store->ops->open(store, space, key, fd, &size, err);
}

int kiln_store_get_bytes(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out,
                         struct kiln_err *err) {
    int rc = check(store, RIGHT_READ, space, key, err);
    if (rc)
        return rc;
    rc = store->ops->read(store, space, key, out, err);
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
    int rc = check(store, RIGHT_REMOVE, space, prefix, err);
    return rc ? rc : store->ops->remove_below(store, space, prefix, err);
}

void kiln_store_has_many(struct kiln_store *store, enum kiln_space space, const char *const *keys, size_t count, bool *present) {
    kiln_autofree const char **allowed = calloc(count ? count : 1, sizeof *allowed);
    kiln_autofree bool *found = calloc(count ? count : 1, sizeof *found);
    size_t allowed_count = 0;
    for (size_t i = 0; i < count; i++) {
        present[i] = allowed && found && check(store, RIGHT_READ, space, keys[i], NULL) == 0;
        if (present[i])
            allowed[allowed_count++] = keys[i];
    }
    if (allowed_count)
        store->ops->has_many(store, space, allowed, allowed_count, found);
    for (size_t i = 0, at = 0; i < count; i++)
        if (present[i])
            present[i] = found[at++];
}

static int check_keep(const struct kiln_store *store, const char *key, struct kiln_err *err) {
    if (store->role != KILN_ROLE_VERIFIER)
        return kiln_fail(err, KILN_E_DENIED, "role %s may not keep %s", role_names[store->role], key);
    return check(store, RIGHT_PUT, KILN_SPACE_VAULT, key, err);
}

int kiln_store_keep_fd(struct kiln_store *store, const char *key, int fd, uint64_t max_bytes,
                       const struct kiln_digest *expected, uint64_t retain_until_ms, struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_pin found = {0};
    struct kiln_store_keep keep = {
        .key = key, .max_bytes = max_bytes, .expected = expected, .retain_until_ms = retain_until_ms, .pin = &found};
    int rc = check_keep(store, key, err);
    if (rc == 0)
        rc = store->ops->keep_fd(store, &keep, fd, err);
    if (rc == 0)
        *pin = found;
    return rc;
}

int kiln_store_keep_pointer(struct kiln_store *store, const char *key, const void *data, size_t len, uint64_t retain_until_ms,
                            bool over_shadow, struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_pin found = {0};
    struct kiln_store_keep keep = {.key = key, .retain_until_ms = retain_until_ms, .pin = &found};
    int rc = check_keep(store, key, err);
    if (rc == 0)
        rc = store->ops->keep_pointer(store, &keep, data, len, over_shadow ? KILN_POINTER_REPLACE : KILN_POINTER_CREATE, err);
    if (rc == 0 && pin)
        *pin = found;
    return rc;
}

int kiln_store_pair_content(struct kiln_store *store, struct kiln_store_pair *pair, int fd, struct kiln_err *err) {
    int rc = check_keep(store, pair->content_key, err);
    if (rc == 0)
        rc = check_keep(store, pair->pointer_key, err);
    if (rc || store->ops->pair_content)
        return rc ? rc : store->ops->pair_content(store, pair, fd, err);
    return kiln_store_keep_fd(store, pair->content_key, fd, pair->content_size, pair->expected, pair->content_until_ms, &pair->pin, err);
}

int kiln_store_pair_pointer(struct kiln_store *store, const struct kiln_store_pair *pair, const void *data, size_t len,
                            uint64_t retain_until_ms, struct kiln_err *err) {
    if (store->ops->pair_pointer)
        return store->ops->pair_pointer(store, pair, data, len, retain_until_ms, err);
    return kiln_store_keep_pointer(store, pair->pointer_key, data, len, retain_until_ms, false, NULL, err);
}

bool kiln_store_pointer_is_listed(struct kiln_store *store, const char *key) {
    bool may_ask = store->ops->pointer_is_listed && check_keep(store, key, NULL) == 0;
    return !may_ask || store->ops->pointer_is_listed(store, key);
}

int kiln_store_pointer_versions(struct kiln_store *store, const char *key,
                                int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes),
                                void *context, struct kiln_err *err) {
    int rc = check_keep(store, key, err);
    return rc ? rc : store->ops->pointer_versions(store, key, visit, context, err);
}

int kiln_store_put_many(struct kiln_store *store, struct kiln_store_offer *offers, size_t count, struct kiln_err *err) {
    kiln_autofree struct kiln_store_offer **allowed = calloc(count ? count : 1, sizeof *allowed);
    size_t allowed_count = 0;
    if (!allowed)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to put objects");
    for (size_t i = 0; i < count; i++) {
        offers[i].err = (struct kiln_err){0};
        if (check(store, RIGHT_PUT, offers[i].space, offers[i].key, &offers[i].err) == 0)
            allowed[allowed_count++] = &offers[i];
    }
    if (allowed_count)
        store->ops->put_many(store, allowed, allowed_count);
    for (size_t i = 0; i < count; i++) {
        if (!offers[i].err.code)
            continue;
        if (err)
            *err = offers[i].err;
        return offers[i].err.code;
    }
    return 0;
}

bool kiln_store_wants_bundles(const struct kiln_store *store) { return store->bundles; }
void kiln_store_use_bundles(struct kiln_store *store) { store->bundles = true; }

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
