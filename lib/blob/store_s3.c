#include "lib/blob/store_s3.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/s3_keep.h"
#include "lib/blob/s3_libs3.h"
#include "lib/blob/s3_presence.h"
#include "lib/blob/store_ops.h"

#define CONTENT_BYTES_MAX (8ull << 30)
#define DAY_MS 86400000ull

struct store_s3 {
    struct kiln_store store;
    struct kiln_s3_client *client;
    struct kiln_s3_presence *presence;
    struct kiln_libs3 *libs3; // or NULL
    uint32_t lock_days;
};

static struct store_s3 *s3_of(struct kiln_store *store) { return (struct store_s3 *)store; }

static void store_close(struct kiln_store *store) {
    struct store_s3 *s3 = s3_of(store);
    kiln_s3_client_free(s3->client);
    kiln_s3_presence_free(s3->presence);
    kiln_libs3_free(s3->libs3);
    free(s3);
}

static bool remembered(const struct store_s3 *s3, enum kiln_space space, const char *key) {
    return space != KILN_SPACE_QUARANTINE && kiln_s3_presence_has(s3->presence, space, key, kiln_clock_ms());
}

static void remember(const struct store_s3 *s3, enum kiln_space space, const char *key) {
    if (space != KILN_SPACE_QUARANTINE)
        kiln_s3_presence_add(s3->presence, space, key, kiln_clock_ms());
}

static void store_distrust(struct kiln_store *store, enum kiln_space space, const char *key) {
    kiln_s3_presence_remove(s3_of(store)->presence, space, key);
}

// A pointer must be under a lock that reaches; content without a pin is its own proof.
static int check_read(const struct store_s3 *s3, const struct kiln_s3_exchange *exchange, const struct kiln_pin *pin, struct kiln_err *err) {
    uint64_t until_ms = kiln_clock_wall_ms() + s3->lock_days * DAY_MS;
    int rc = pin ? kiln_s3_check_version(exchange, pin, err) : 0;
    bool pointer = exchange->space == KILN_SPACE_VAULT && strncmp(exchange->key, "ac/", 3) == 0 && s3->lock_days;
    if (rc == 0 && (pin || pointer))
        rc = kiln_s3_check_lock(exchange, until_ms, err);
    return rc;
}

static void begin_get(struct kiln_s3_exchange *exchange, enum kiln_space space, const char *key, const struct kiln_pin *pin) {
    kiln_s3_exchange_init(exchange, "GET", space, key);
    exchange->sink = KILN_S3_SINK_FILE;
    exchange->max_bytes = CONTENT_BYTES_MAX;
    if (pin)
        kiln_s3_add_query(exchange, "versionId", pin->text);
}

static void end_get(const struct store_s3 *s3, struct kiln_s3_exchange *exchange, struct kiln_store_want *want) {
    int rc = exchange->rc;
    if (rc) {
        want->err = exchange->err;
        rc = kiln_s3_judge_refused(s3->client, exchange, want->pin, &want->err);
    } else {
        rc = check_read(s3, exchange, want->pin, &want->err);
    }
    if (rc) {
        kiln_s3_presence_remove(s3->presence, want->space, want->key);
        kiln_wrap(&want->err, rc, "object %s", want->key);
    } else {
        want->fd = kiln_steal_fd(&exchange->fd);
        want->size = exchange->size;
        remember(s3, want->space, want->key);
    }
    kiln_s3_exchange_release(exchange);
}

static void store_open_many(struct kiln_store *store, struct kiln_store_want *const *wants, size_t count) {
    struct store_s3 *s3 = s3_of(store);
    kiln_autofree struct kiln_s3_exchange *exchanges = calloc(count, sizeof *exchanges);
    kiln_autofree struct kiln_s3_exchange **queue = calloc(count, sizeof *queue);
    size_t queued = 0;
    for (size_t i = 0; i < count; i++) {
        struct kiln_store_want *want = wants[i];
        if (!exchanges || !queue) {
            kiln_fail(&want->err, KILN_E_NOMEM, "no memory to fetch objects");
        } else if (want->pin && !want->pin->text[0]) {
            kiln_fail(&want->err, KILN_E_CORRUPT, "version: no pin for %s", want->key);
        } else if (s3->libs3 && want->space == KILN_SPACE_QUARANTINE) {
            kiln_libs3_get(s3->libs3, want->key, CONTENT_BYTES_MAX, &want->fd, &want->size, &want->err);
        } else {
            begin_get(&exchanges[i], want->space, want->key, want->pin);
            queue[queued++] = &exchanges[i];
        }
    }
    if (queued)
        kiln_s3_run(s3->client, queue, queued);
    for (size_t i = 0; queued && i < count; i++)
        if (exchanges[i].method)
            end_get(s3, &exchanges[i], wants[i]);
}

static int store_open(struct kiln_store *store, enum kiln_space space, const char *key, int *fd, uint64_t *size, struct kiln_err *err) {
    struct kiln_store_want want = {.space = space, .key = key, .fd = -1}, *wants = &want;
    store_open_many(store, &wants, 1);
    if (want.err.code) {
        if (err)
            *err = want.err;
        return want.err.code;
    }
    *fd = want.fd;
    *size = want.size;
    return 0;
}

// *lost: the server has it, and not its bytes any more; the call fails with KILN_E_CORRUPT then.
static int run_get(struct kiln_s3_client *client, struct kiln_s3_exchange *exchange, const struct kiln_pin *pin, bool *lost,
                   struct kiln_err *err) {
    struct kiln_err why = {0};
    int asked = kiln_s3_run_one(client, exchange, &why);
    int rc = asked ? kiln_s3_judge_refused(client, exchange, pin, &why) : 0;
    *lost = asked != rc;
    if (rc && err)
        *err = why;
    return rc;
}

static int store_read(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_buf *out, struct kiln_err *err) {
    struct store_s3 *s3 = s3_of(store);
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "GET", space, key);
    exchange.sink = KILN_S3_SINK_BYTES;
    exchange.max_bytes = out->max - out->len;
    bool lost;
    int rc = run_get(s3->client, &exchange, NULL, &lost, err);
    if (rc == 0 && !exchange.has_size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "length: the server does not say how long the object is");
    if (rc == 0)
        rc = check_read(s3, &exchange, NULL, err);
    if (rc == 0 && kiln_buf_add(out, exchange.bytes.data, exchange.bytes.len))
        rc = kiln_fail(err, KILN_E_NOMEM, "no memory for an object");
    kiln_s3_exchange_release(&exchange);
    return rc;
}

static void store_has_many(struct kiln_store *store, enum kiln_space space, const char *const *keys, size_t count, bool *present) {
    struct store_s3 *s3 = s3_of(store);
    kiln_autofree struct kiln_s3_exchange *exchanges = calloc(count, sizeof *exchanges);
    kiln_autofree struct kiln_s3_exchange **queue = calloc(count, sizeof *queue);
    size_t queued = 0;
    for (size_t i = 0; i < count; i++) {
        present[i] = remembered(s3, space, keys[i]);
        if (present[i] || !exchanges || !queue)
            continue;
        kiln_s3_exchange_init(&exchanges[i], "HEAD", space, keys[i]);
        queue[queued++] = &exchanges[i];
    }
    if (queued)
        kiln_s3_run(s3->client, queue, queued);
    for (size_t i = 0; queued && i < count; i++) {
        if (!exchanges[i].method)
            continue;
        present[i] = exchanges[i].rc == 0;
        if (present[i])
            remember(s3, space, keys[i]);
        kiln_s3_exchange_release(&exchanges[i]);
    }
}

static bool store_has(struct kiln_store *store, enum kiln_space space, const char *key) {
    bool present = false;
    store_has_many(store, space, &key, 1, &present);
    return present;
}

static int check_expected(const struct kiln_s3_body *body, const struct kiln_digest *expected, const char *key, struct kiln_err *err) {
    if (expected && !kiln_digest_equal(&body->digest, expected))
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes for object %s have another digest", key);
    return 0;
}

static void begin_put(struct kiln_s3_exchange *exchange, enum kiln_space space, const char *key, const struct kiln_s3_body *body) {
    kiln_s3_exchange_init(exchange, "PUT", space, key);
    exchange->body = body;
    if (space != KILN_SPACE_QUARANTINE) // there the same job's second try replaces its first
        kiln_s3_add_header(exchange, "if-none-match", "*");
}

// What is under the key already, when a create-only PUT was refused: right bytes, or a newer version over wrong ones.
static int mend(const struct store_s3 *s3, enum kiln_space space, const char *key, const struct kiln_s3_body *body, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    struct kiln_digest digest;
    begin_get(&exchange, space, key, NULL);
    exchange.max_bytes = body->size;
    int rc = kiln_s3_run_one(s3->client, &exchange, NULL);
    bool right = rc == 0 && kiln_digest_of_fd(exchange.fd, body->size, &digest, NULL, NULL) == 0 && kiln_digest_equal(&digest, &body->digest);
    kiln_s3_exchange_release(&exchange);
    if (right)
        return 0;
    kiln_s3_exchange_init(&exchange, "PUT", space, key);
    exchange.body = body;
    exchange.once = true;
    rc = kiln_s3_run_one(s3->client, &exchange, err);
    kiln_s3_exchange_release(&exchange);
    return rc;
}

static int end_put(const struct store_s3 *s3, struct kiln_s3_exchange *exchange, struct kiln_err *err) {
    int rc = exchange->rc;
    if (rc == KILN_E_EXISTS && exchange->space != KILN_SPACE_QUARANTINE)
        rc = mend(s3, exchange->space, exchange->key, exchange->body, err);
    else if (rc && err)
        *err = exchange->err;
    if (rc == 0)
        remember(s3, exchange->space, exchange->key);
    kiln_s3_exchange_release(exchange);
    return rc ? kiln_wrap(err, rc, "object %s", exchange->key) : 0;
}

static int put_body(struct store_s3 *s3, enum kiln_space space, const struct kiln_store_put *put, const struct kiln_s3_body *body,
                    struct kiln_err *err) {
    struct kiln_s3_exchange exchange, *queue = &exchange;
    int rc = check_expected(body, put->expected, put->key, err);
    if (rc || (put->expected && remembered(s3, space, put->key)))
        return rc;
    if (s3->libs3 && space == KILN_SPACE_QUARANTINE)
        return kiln_libs3_put(s3->libs3, put->key, body, err);
    begin_put(&exchange, space, put->key, body);
    kiln_s3_run(s3->client, &queue, 1);
    return end_put(s3, &exchange, err);
}

static int store_put_fd(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, int fd, struct kiln_err *err) {
    struct kiln_s3_body body;
    int rc = kiln_s3_body_of_fd(fd, put->max_bytes, &body, err);
    return rc ? rc : put_body(s3_of(store), space, put, &body, err);
}

static int store_put_bytes(struct kiln_store *store, enum kiln_space space, const struct kiln_store_put *put, const void *data,
                           size_t len, struct kiln_err *err) {
    struct kiln_s3_body body;
    int rc = kiln_s3_body_of(data, len, &body, err);
    return rc ? rc : put_body(s3_of(store), space, put, &body, err);
}

static void store_put_many(struct kiln_store *store, struct kiln_store_offer *const *offers, size_t count) {
    struct store_s3 *s3 = s3_of(store);
    kiln_autofree struct kiln_s3_exchange *exchanges = calloc(count, sizeof *exchanges);
    kiln_autofree struct kiln_s3_exchange **queue = calloc(count, sizeof *queue);
    kiln_autofree struct kiln_s3_body *bodies = calloc(count, sizeof *bodies);
    size_t queued = 0;
    for (size_t i = 0; i < count; i++) {
        struct kiln_store_offer *offer = offers[i];
        if (!exchanges || !queue || !bodies) {
            kiln_fail(&offer->err, KILN_E_NOMEM, "no memory to put objects");
            continue;
        }
        if (kiln_s3_body_of_fd(offer->fd, offer->max_bytes, &bodies[i], &offer->err) ||
            check_expected(&bodies[i], offer->expected, offer->key, &offer->err) ||
            (offer->expected && remembered(s3, offer->space, offer->key)))
            continue;
        if (s3->libs3 && offer->space == KILN_SPACE_QUARANTINE) {
            kiln_libs3_put(s3->libs3, offer->key, &bodies[i], &offer->err);
            continue;
        }
        begin_put(&exchanges[i], offer->space, offer->key, &bodies[i]);
        queue[queued++] = &exchanges[i];
    }
    if (queued)
        kiln_s3_run(s3->client, queue, queued);
    for (size_t i = 0; queued && i < count; i++)
        if (exchanges[i].method)
            end_put(s3, &exchanges[i], &offers[i]->err);
}

static enum kiln_s3_belief belief_of(const struct store_s3 *s3, const char *key) {
    return remembered(s3, KILN_SPACE_VAULT, key) ? KILN_S3_BELIEVED_PRESENT : KILN_S3_BELIEVED_ABSENT;
}

static int store_keep_fd(struct kiln_store *store, const struct kiln_store_keep *keep, int fd, struct kiln_err *err) {
    struct store_s3 *s3 = s3_of(store);
    struct kiln_s3_body body;
    int rc = kiln_s3_body_of_fd(fd, keep->max_bytes, &body, err);
    if (rc == 0)
        rc = check_expected(&body, keep->expected, keep->key, err);
    if (rc)
        return rc;
    rc = kiln_s3_keep_content(s3->client, keep->key, &body, keep->retain_until_ms, belief_of(s3, keep->key), keep->pin, err);
    if (rc == 0)
        remember(s3, KILN_SPACE_VAULT, keep->key);
    return rc ? kiln_wrap(err, rc, "keeping %s", keep->key) : 0;
}

static int store_keep_pointer(struct kiln_store *store, const struct kiln_store_keep *keep, const void *data, size_t len,
                              enum kiln_pointer_put mode, struct kiln_err *err) {
    struct kiln_s3_client *client = s3_of(store)->client;
    struct kiln_s3_body body;
    if (len > KILN_POINTER_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a pointer has at most %u bytes", KILN_POINTER_BYTES_MAX);
    int rc = kiln_s3_body_of(data, len, &body, err);
    if (rc)
        return rc;
    if (mode == KILN_POINTER_REPLACE)
        return kiln_s3_keep_over(client, keep->key, &body, keep->retain_until_ms, keep->pin, err);
    return kiln_s3_keep_new(client, keep->key, &body, keep->retain_until_ms, keep->pin, err);
}

static struct kiln_s3_pair pair_of(const struct kiln_store_pair *pair) {
    return (struct kiln_s3_pair){.content_key = pair->content_key, .pointer_key = pair->pointer_key, .content_size = pair->content_size,
                                 .content_until_ms = pair->content_until_ms, .pin = pair->pin, .confirmed = pair->confirmed,
                                 .pointer_is_new = pair->pointer_is_new};
}

static int store_pair_content(struct kiln_store *store, struct kiln_store_pair *pair, int fd, struct kiln_err *err) {
    struct store_s3 *s3 = s3_of(store);
    struct kiln_s3_pair made = pair_of(pair);
    struct kiln_s3_body body;
    int rc = kiln_s3_body_of_fd(fd, pair->content_size, &body, err);
    if (rc == 0)
        rc = check_expected(&body, pair->expected, pair->content_key, err);
    if (rc == 0)
        rc = kiln_s3_pair_content(s3->client, &made, &body, belief_of(s3, pair->content_key), err);
    if (rc)
        return kiln_wrap(err, rc, "keeping %s", pair->content_key);
    remember(s3, KILN_SPACE_VAULT, pair->content_key);
    pair->pin = made.pin;
    pair->confirmed = made.confirmed;
    pair->pointer_is_new = made.pointer_is_new;
    return 0;
}

static int store_pair_pointer(struct kiln_store *store, const struct kiln_store_pair *pair, const void *data, size_t len,
                              uint64_t retain_until_ms, struct kiln_err *err) {
    const struct kiln_s3_pair made = pair_of(pair);
    struct kiln_s3_body body;
    if (len > KILN_POINTER_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a pointer has at most %u bytes", KILN_POINTER_BYTES_MAX);
    int rc = kiln_s3_body_of(data, len, &body, err);
    return rc ? rc : kiln_s3_pair_pointer(s3_of(store)->client, &made, &body, retain_until_ms, err);
}

static bool store_pointer_is_listed(struct kiln_store *store, const char *key) {
    struct kiln_s3_exchange exchange;
    bool never = false;
    kiln_s3_ask_versions(&exchange, KILN_SPACE_VAULT, key);
    kiln_s3_run_one(s3_of(store)->client, &exchange, NULL);
    bool listed = kiln_s3_never_was(&exchange, key, &never, NULL) || !never;
    kiln_s3_exchange_release(&exchange);
    return listed;
}

static int store_put_pointer(struct kiln_store *store, const char *key, const void *data, size_t len, enum kiln_pointer_put mode,
                             struct kiln_err *err) {
    struct kiln_pin pin;
    struct kiln_store_keep keep = {.key = key, .pin = &pin};
    return store_keep_pointer(store, &keep, data, len, mode, err);
}

// *bytes stays empty for a version that is none of a pointer's: unlocked, unreadable, or gone meanwhile.
static int read_version(struct kiln_s3_client *client, const char *key, const struct kiln_pin *pin, struct kiln_buf *bytes, bool *counts,
                        struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "GET", KILN_SPACE_VAULT, key);
    kiln_s3_add_query(&exchange, "versionId", pin->text);
    exchange.sink = KILN_S3_SINK_BYTES;
    exchange.max_bytes = KILN_POINTER_BYTES_MAX;
    bool lost;
    int rc = run_get(client, &exchange, pin, &lost, err);
    if (lost)
        rc = KILN_E_NOTFOUND;
    if (rc == 0)
        rc = kiln_s3_check_version(&exchange, pin, err);
    *counts = rc == 0 && kiln_s3_check_lock(&exchange, 0, NULL) == 0;
    if (*counts && kiln_buf_add(bytes, exchange.bytes.data, exchange.bytes.len))
        rc = kiln_fail(err, KILN_E_NOMEM, "no memory for a pointer");
    kiln_s3_exchange_release(&exchange);
    return rc == KILN_E_NOTFOUND ? 0 : rc;
}

static int store_pointer_versions(struct kiln_store *store, const char *key,
                                  int (*visit)(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes), void *context,
                                  struct kiln_err *err) {
    struct kiln_s3_client *client = s3_of(store)->client;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_POINTER_BYTES_MAX);
    struct kiln_s3_versions versions;
    int rc = kiln_s3_versions_of(client, KILN_SPACE_VAULT, key, &versions, err);
    for (size_t i = 0; !rc && i < versions.count; i++) {
        bool counts = false;
        kiln_buf_reset(&bytes);
        if (versions.items[i].size > KILN_POINTER_BYTES_MAX)
            continue;
        rc = read_version(client, key, &versions.items[i].pin, &bytes, &counts, err);
        if (!rc && counts)
            rc = visit(context, &versions.items[i].pin, &bytes);
    }
    return rc;
}

// Nothing is removed from a locked bucket, only forgotten.
static int store_remove(struct kiln_store *store, enum kiln_space space, const char *key, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    if (space != KILN_SPACE_QUARANTINE) {
        store_distrust(store, space, key);
        return 0;
    }
    kiln_s3_exchange_init(&exchange, "DELETE", space, key);
    int rc = kiln_s3_run_one(s3_of(store)->client, &exchange, err);
    kiln_s3_exchange_release(&exchange);
    return rc == KILN_E_NOTFOUND ? 0 : rc;
}

static int store_remove_below(struct kiln_store *store, enum kiln_space space, const char *prefix, struct kiln_err *err) {
    if (space != KILN_SPACE_QUARANTINE)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "nothing is removed from a locked bucket");
    return kiln_s3_delete_below(s3_of(store)->client, space, prefix, err);
}

static int store_prune(struct kiln_store *store, enum kiln_space space, uint64_t max_bytes, uint64_t keep_ms, uint64_t *removed_bytes,
                       struct kiln_err *err) {
    (void)store, (void)space, (void)max_bytes, (void)keep_ms, (void)removed_bytes;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "buckets are pruned by their own lifecycle rules");
}

static const struct kiln_store_ops s3_ops = {
    .close = store_close,
    .put_fd = store_put_fd,
    .put_bytes = store_put_bytes,
    .put_pointer = store_put_pointer,
    .open = store_open,
    .read = store_read,
    .has = store_has,
    .has_many = store_has_many,
    .remove = store_remove,
    .remove_below = store_remove_below,
    .prune = store_prune,
    .keep_fd = store_keep_fd,
    .keep_pointer = store_keep_pointer,
    .pair_content = store_pair_content,
    .pair_pointer = store_pair_pointer,
    .pointer_is_listed = store_pointer_is_listed,
    .pointer_versions = store_pointer_versions,
    .open_many = store_open_many,
    .put_many = store_put_many,
    .distrust = store_distrust,
};

int kiln_store_open_s3(const struct kiln_s3_options *options, enum kiln_store_role role, struct kiln_store **store, struct kiln_err *err) {
    struct store_s3 *s3 = calloc(1, sizeof *s3);
    if (!s3)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a store");
    s3->store = (struct kiln_store){.ops = &s3_ops, .role = role, .bundles = true};
    s3->lock_days = options->lock_days;
    int rc = kiln_s3_client_new(options, &s3->client, err);
    if (rc == 0)
        rc = kiln_s3_presence_new(&s3->presence, err);
    if (rc == 0 && options->libs3)
        rc = kiln_libs3_new(options, &s3->libs3, err);
    if (rc) {
        store_close(&s3->store);
        return rc;
    }
    *store = &s3->store;
    return 0;
}
