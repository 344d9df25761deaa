#include "consumer/executor/content.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

#define PUBLIC "public"

static const struct {
    const char *name;
    enum kiln_space first, second; // of the embedded store
} kinds[] = {
    [KILN_CONTENT_BLOB] = {"blob", KILN_SPACE_VAULT, KILN_SPACE_INPUTS},
    [KILN_CONTENT_PACK] = {"pack", KILN_SPACE_INPUTS, KILN_SPACE_VAULT},
    [KILN_CONTENT_LIST] = {"list", KILN_SPACE_INPUTS, KILN_SPACE_VAULT},
};

static int open_local(struct kiln_store *store, enum kiln_content_kind kind, const char *key, int *fd, struct kiln_err *err) {
    if (kiln_store_open_unchecked(store, kinds[kind].first, key, fd, NULL) == 0)
        return 0;
    return kiln_store_open_unchecked(store, kinds[kind].second, key, fd, err);
}

int kiln_content_open(struct kiln_store *store, enum kiln_content_kind kind, const char *scope,
                      const struct kiln_digest *digest, int *fd, struct kiln_err *err) {
    if (kiln_store_wants_bundles(store)) {
        struct kiln_content_want want = {.kind = kind, .digest = *digest};
        int rc = kiln_content_fetch(store, scope, &want, 1, err);
        if (rc == 0 && want.fd < 0)
            rc = kiln_fail(err, want.err.code, "%s", want.err.text);
        if (rc == 0)
            *fd = want.fd;
        return rc;
    }
    kiln_autofree char *key = kiln_key_content(kinds[kind].name, scope, digest);
    return key ? open_local(store, kind, key, fd, err) : kiln_fail(err, KILN_E_NOMEM, "content key");
}

struct batch {
    struct kiln_store_want *wants;
    size_t *places; // in the caller's list
    char **keys;
    size_t count;
};

static void release_batch(struct batch *batch) {
    for (size_t i = 0; i < batch->count; i++)
        free(batch->keys[i]);
    free(batch->keys);
    free(batch->places);
    free(batch->wants);
}

// One round for all that is not there yet, in one scope.
static int fetch_in(struct kiln_store *store, const char *scope, struct kiln_content_want *wants, size_t count,
                    struct kiln_err *err) {
    kiln_auto(release_batch) struct batch batch = {.wants = calloc(count + 1, sizeof *batch.wants),
                                                   .places = calloc(count + 1, sizeof *batch.places),
                                                   .keys = calloc(count + 1, sizeof *batch.keys)};
    if (!batch.wants || !batch.places || !batch.keys)
        return kiln_fail(err, KILN_E_NOMEM, "fetch inputs");
    for (size_t i = 0; i < count; i++) {
        if (wants[i].fd >= 0 || (wants[i].err.code && wants[i].err.code != KILN_E_NOTFOUND && wants[i].err.code != KILN_E_DENIED))
            continue;
        char *key = kiln_key_content(kinds[wants[i].kind].name, scope, &wants[i].digest);
        if (!key)
            return kiln_fail(err, KILN_E_INVAL, "no key in scope %s", scope);
        batch.keys[batch.count] = key;
        batch.places[batch.count] = i;
        batch.wants[batch.count++] = (struct kiln_store_want){
            .space = KILN_SPACE_INPUTS, .key = key, .fd = -1,
            .expected = wants[i].kind == KILN_CONTENT_PACK ? NULL : &wants[i].digest};
    }
    if (batch.count)
        kiln_store_get_many(store, batch.wants, batch.count);
    for (size_t i = 0; i < batch.count; i++) {
        wants[batch.places[i]].fd = batch.wants[i].fd;
        wants[batch.places[i]].err = batch.wants[i].err;
    }
    return 0;
}

int kiln_content_fetch(struct kiln_store *store, const char *scope, struct kiln_content_want *wants, size_t count,
                       struct kiln_err *err) {
    for (size_t i = 0; i < count; i++) {
        wants[i].fd = -1;
        wants[i].err = (struct kiln_err){0};
    }
    int rc = fetch_in(store, scope, wants, count, err);
    bool missing = false;
    for (size_t i = 0; i < count; i++)
        missing |= wants[i].fd < 0;
    return rc == 0 && missing && strcmp(scope, PUBLIC) ? fetch_in(store, PUBLIC, wants, count, err) : rc;
}
