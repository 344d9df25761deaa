#include "lib/fleet/keeper.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/core/public_list.h"
#include "lib/fleet/verdict.h"

#define REFRESH_MS 60000u
#define RETRY_MS 5000u   // while nothing is in force
#define OPEN_WAIT_MS 2000u
#define AHEAD_MS 300000u // how far a clock may be behind the operator's
#define ENVELOPE_BYTES (64u << 10) // more than all signatures take

struct stamp { // what of a document decides whether it is taken
    uint64_t version, issued_ms, expires_ms;
    struct kiln_digest core; // of the canonical form, without signatures
};

// One of the two signed documents, as far as both are treated alike. Only the refreshing thread touches it.
struct document {
    const char *word, *key, *file;
    size_t bytes_max;
    uint64_t least_version;   // that is asked for
    struct stamp seen;        // the newest one, in force or not
    struct kiln_digest whole; // of the envelope that is in force and kept; zero: none
};

struct kiln_keeper {
    struct kiln_store *store;
    int dirfd;
    struct kiln_roots roots;
    uint8_t root_keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    uint64_t refresh_ms;
    uint64_t (*wall_ms)(void);

    pthread_mutex_t refreshing; // held through one refresh
    struct document trust, public;

    pthread_rwlock_t lock; // of what follows
    struct kiln_trust_record record;
    struct kiln_trust *keys;
    struct kiln_public_list list;
    char trust_refusal[sizeof((struct kiln_err *)0)->text], public_refusal[sizeof((struct kiln_err *)0)->text];

    pthread_mutex_t clock; // of what follows
    pthread_cond_t tick;
    bool stop, refreshed;
    pthread_t thread;
};

static int judge(const struct document *document, const struct stamp *stamp, uint64_t now, struct kiln_err *err) {
    const char *word = document->word;
    if (stamp->version < document->least_version)
        return kiln_fail(err, KILN_E_DENIED, "%s_rolled_back: version %" PRIu64 ", but version %" PRIu64 " is the least", word,
                         stamp->version, document->least_version);
    if (stamp->version < document->seen.version)
        return kiln_fail(err, KILN_E_DENIED, "%s_rolled_back: version %" PRIu64 ", but version %" PRIu64 " was seen", word,
                         stamp->version, document->seen.version);
    if (stamp->version == document->seen.version && !kiln_digest_equal(&stamp->core, &document->seen.core))
        return kiln_fail(err, KILN_E_DENIED, "%s_forked: version %" PRIu64 " was seen with another content", word,
                         stamp->version);
    if (stamp->issued_ms > now + AHEAD_MS)
        return kiln_fail(err, KILN_E_DENIED, "%s_from_future: version %" PRIu64 " is issued %" PRIu64 " ms from now", word,
                         stamp->version, stamp->issued_ms - now);
    if (stamp->expires_ms <= now)
        return kiln_fail(err, KILN_E_DENIED, "%s_expired: version %" PRIu64 " expired %" PRIu64 " ms ago", word,
                         stamp->version, now - stamp->expires_ms);
    return 0;
}

// What each document is: how it is opened, and put in force.
struct opened {
    struct kiln_trust_record record;
    struct kiln_public_list list;
    struct stamp stamp;
};

static void opened_release(struct opened *opened) {
    kiln_trust_record_release(&opened->record);
    kiln_public_list_release(&opened->list);
}

static int open_trust(const struct kiln_keeper *keeper, const struct kiln_buf *envelope, struct opened *opened,
                      struct kiln_err *err) {
    kiln_autobuf struct kiln_buf core = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX);
    struct kiln_trust_record *record = &opened->record;
    int rc = kiln_trust_record_open(envelope->data, envelope->len, keeper->roots.keys, keeper->roots.count,
                                    keeper->roots.threshold, record, err);
    if (!rc)
        rc = kiln_trust_record_encode(record, &core, err);
    if (rc)
        return rc;
    opened->stamp = (struct stamp){record->version, record->issued_ms, record->expires_ms, {{0}}};
    kiln_digest_of(core.data, core.len, &opened->stamp.core);
    return 0;
}

static int open_public(const struct kiln_keeper *keeper, const struct kiln_buf *envelope, struct opened *opened,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf core = KILN_BUF_INIT(KILN_PUBLIC_BYTES_MAX);
    struct kiln_public_list *list = &opened->list;
    int rc = kiln_public_list_open(envelope->data, envelope->len, &keeper->roots, list, err);
    if (!rc)
        rc = kiln_public_list_encode(list, &core, err);
    if (rc)
        return rc;
    opened->stamp = (struct stamp){list->version, list->issued_ms, list->expires_ms, {{0}}};
    kiln_digest_of(core.data, core.len, &opened->stamp.core);
    return 0;
}

static int open_document(const struct kiln_keeper *keeper, const struct document *document,
                         const struct kiln_buf *envelope, struct opened *opened, struct kiln_err *err) {
    int rc = document == &keeper->trust ? open_trust(keeper, envelope, opened, err)
                                        : open_public(keeper, envelope, opened, err);
    if (rc && rc != KILN_E_NOMEM) {
        kiln_wrap(err, rc, "%s_forged", document->word);
        return KILN_E_DENIED;
    }
    return rc;
}

static int make_keys(const struct kiln_trust_record *record, struct kiln_trust **keys, struct kiln_err *err) {
    struct kiln_trust *made = NULL;
    int rc = kiln_trust_new(&made, err);
    for (size_t i = 0; !rc && i < record->keys_count; i++)
        rc = kiln_trust_add_public(made, record->keys[i].public_key, err);
    if (rc)
        kiln_trust_free(made);
    else
        *keys = made;
    return rc;
}

// Moves the opened document in force; the old one goes out with `opened`.
static int adopt(struct kiln_keeper *keeper, const struct document *document, struct opened *opened,
                 struct kiln_err *err) {
    struct kiln_trust *keys = NULL;
    int rc = document == &keeper->trust ? make_keys(&opened->record, &keys, err) : 0;
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&keeper->lock);
    if (document == &keeper->trust) {
        struct kiln_trust_record old = keeper->record;
        struct kiln_trust *old_keys = keeper->keys;
        keeper->record = opened->record;
        keeper->keys = keys;
        opened->record = old;
        keys = old_keys;
    } else {
        struct kiln_public_list old = keeper->list;
        keeper->list = opened->list;
        opened->list = old;
    }
    pthread_rwlock_unlock(&keeper->lock);
    kiln_trust_free(keys);
    return 0;
}

static int keep(const struct kiln_keeper *keeper, const struct document *document, const struct kiln_buf *envelope,
                struct kiln_err *err) {
    int rc = kiln_fs_write_file(keeper->dirfd, document->file, envelope->data, envelope->len, 0600, err);
    if (!rc && fsync(keeper->dirfd))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot make %s durable", document->file);
    return rc;
}

static void tell(const struct document *document) {
    char version[24], expires[24];
    snprintf(version, sizeof version, "%" PRIu64, document->seen.version);
    snprintf(expires, sizeof expires, "%" PRIu64, document->seen.expires_ms);
    kiln_log(KILN_LOG_INFO, strcmp(document->word, "trust") == 0 ? "trust_record" : "public_list", "version", version,
             "expires_ms", expires, NULL);
}

static int take(struct kiln_keeper *keeper, struct document *document, const struct kiln_buf *envelope,
                struct kiln_err *err) {
    struct kiln_digest whole;
    kiln_digest_of(envelope->data, envelope->len, &whole);
    if (kiln_digest_equal(&whole, &document->whole))
        return judge(document, &document->seen, keeper->wall_ms(), err);
    kiln_auto(opened_release) struct opened opened = {0};
    int rc = open_document(keeper, document, envelope, &opened, err);
    if (!rc)
        rc = judge(document, &opened.stamp, keeper->wall_ms(), err);
    if (!rc)
        rc = adopt(keeper, document, &opened, err);
    if (rc)
        return rc;
    document->seen = opened.stamp;
    tell(document);
    rc = keep(keeper, document, envelope, err);
    if (!rc) // else it is tried again at the next refresh
        document->whole = whole;
    return rc;
}

static int fetch(struct kiln_keeper *keeper, const struct document *document, struct kiln_buf *envelope,
                 struct kiln_err *err) {
    int rc = kiln_store_get_bytes(keeper->store, KILN_SPACE_VAULT, document->key, envelope, err);
    if (rc)
        kiln_wrap(err, rc, "%s_%s", document->word, rc == KILN_E_NOTFOUND ? "missing" : "unreachable");
    return rc;
}

static int refresh_document(struct kiln_keeper *keeper, struct document *document, char *refusal,
                            struct kiln_err *err) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(document->bytes_max + ENVELOPE_BYTES);
    struct kiln_err why = {0};
    int rc = fetch(keeper, document, &envelope, &why);
    if (!rc)
        rc = take(keeper, document, &envelope, &why);
    if (rc == KILN_E_NOTFOUND && document == &keeper->public)
        rc = 0;
    pthread_rwlock_wrlock(&keeper->lock);
    memcpy(refusal, rc ? why.text : "", rc ? sizeof why.text : 1);
    pthread_rwlock_unlock(&keeper->lock);
    if (rc && err)
        *err = why;
    return rc;
}

int kiln_keeper_refresh(struct kiln_keeper *keeper, struct kiln_err *err) {
    pthread_mutex_lock(&keeper->refreshing);
    int rc = refresh_document(keeper, &keeper->trust, keeper->trust_refusal, err);
    int listed = refresh_document(keeper, &keeper->public, keeper->public_refusal, rc ? NULL : err);
    pthread_mutex_unlock(&keeper->refreshing);
    return rc ? rc : listed;
}

// What was kept is verified like what is fetched: it proves at least which version was seen.
static int load_kept(struct kiln_keeper *keeper, struct document *document, char *refusal, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(document->bytes_max + ENVELOPE_BYTES);
    kiln_auto(opened_release) struct opened opened = {0};
    struct kiln_err why = {0};
    int rc = kiln_fs_read_file(keeper->dirfd, document->file, &envelope, &why);
    if (rc == KILN_E_NOTFOUND)
        return 0;
    if (!rc)
        rc = open_document(keeper, document, &envelope, &opened, &why);
    if (rc == KILN_E_DENIED || rc == KILN_E_LIMIT) { // other roots now, or damaged: the store has the right one
        memcpy(refusal, why.text, sizeof why.text);
        return 0;
    }
    if (rc)
        return kiln_fail(err, rc, "%s", why.text);
    document->seen = opened.stamp;
    rc = judge(document, &opened.stamp, keeper->wall_ms(), &why);
    if (rc) {
        memcpy(refusal, why.text, sizeof why.text);
        return 0;
    }
    kiln_digest_of(envelope.data, envelope.len, &document->whole);
    return adopt(keeper, document, &opened, err);
}

static bool in_force(const struct kiln_keeper *keeper) { return keeper->wall_ms() < keeper->record.expires_ms; }

static bool is_valid(struct kiln_keeper *keeper) {
    pthread_rwlock_rdlock(&keeper->lock);
    bool valid = in_force(keeper);
    pthread_rwlock_unlock(&keeper->lock);
    return valid;
}

static void add_ms(struct timespec *at, uint64_t ms) {
    at->tv_sec += (time_t)(ms / 1000);
    at->tv_nsec += (long)(ms % 1000) * 1000000;
    if (at->tv_nsec >= 1000000000) {
        at->tv_sec++;
        at->tv_nsec -= 1000000000;
    }
}

// Waits until `ms` have passed or *flag is set. The clock mutex is held.
static void wait_for(struct kiln_keeper *keeper, const bool *flag, uint64_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    add_ms(&until, ms);
    while (!*flag && pthread_cond_timedwait(&keeper->tick, &keeper->clock, &until) == 0)
        ;
}

static void *refresh_always(void *context) {
    struct kiln_keeper *keeper = context;
    pthread_mutex_lock(&keeper->clock);
    while (!keeper->stop) {
        pthread_mutex_unlock(&keeper->clock);
        kiln_keeper_refresh(keeper, NULL); // refusals are kept for who asks
        uint64_t next = is_valid(keeper) || keeper->refresh_ms < RETRY_MS ? keeper->refresh_ms : RETRY_MS;
        pthread_mutex_lock(&keeper->clock);
        keeper->refreshed = true;
        pthread_cond_broadcast(&keeper->tick);
        wait_for(keeper, &keeper->stop, next);
    }
    pthread_mutex_unlock(&keeper->clock);
    return NULL;
}

static int start(struct kiln_keeper *keeper, struct kiln_err *err) {
    int error = pthread_create(&keeper->thread, NULL, refresh_always, keeper);
    if (error)
        return kiln_fail(err, KILN_E_NOMEM, "no thread for the trust record: %s", strerror(error));
    pthread_mutex_lock(&keeper->clock);
    wait_for(keeper, &keeper->refreshed, OPEN_WAIT_MS);
    pthread_mutex_unlock(&keeper->clock);
    return 0;
}

static void init_locks(struct kiln_keeper *keeper) {
    pthread_rwlockattr_t prefer;
    pthread_rwlockattr_init(&prefer);
    // Else a stream of questions could hold a revocation off.
    pthread_rwlockattr_setkind_np(&prefer, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&keeper->lock, &prefer);
    pthread_rwlockattr_destroy(&prefer);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper->tick, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&keeper->clock, NULL);
    pthread_mutex_init(&keeper->refreshing, NULL);
}

static void keeper_free(struct kiln_keeper *keeper) {
    pthread_mutex_destroy(&keeper->refreshing);
    pthread_mutex_destroy(&keeper->clock);
    pthread_cond_destroy(&keeper->tick);
    pthread_rwlock_destroy(&keeper->lock);
    kiln_trust_record_release(&keeper->record);
    kiln_public_list_release(&keeper->list);
    kiln_trust_free(keeper->keys);
    if (keeper->dirfd >= 0)
        close(keeper->dirfd);
    free(keeper);
}

int kiln_keeper_open(const struct kiln_keeper_options *options, struct kiln_keeper **keeper, struct kiln_err *err) {
    if (!options->roots_count || options->roots_count > KILN_TRUST_ROOTS_MAX || !options->threshold ||
        options->threshold > options->roots_count)
        return kiln_fail(err, KILN_E_INVAL, "a threshold of %zu does not fit %zu trust roots (at most %u)",
                         options->threshold, options->roots_count, KILN_TRUST_ROOTS_MAX);
    struct kiln_keeper *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the trust record");
    made->store = options->store;
    made->dirfd = -1;
    memcpy(made->root_keys, options->roots, options->roots_count * sizeof *made->root_keys);
    made->roots = (struct kiln_roots){(const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])made->root_keys, options->roots_count,
                                      options->threshold};
    made->refresh_ms = options->refresh_ms ? options->refresh_ms : REFRESH_MS;
    made->wall_ms = options->wall_ms ? options->wall_ms : kiln_clock_wall_ms;
    made->trust = (struct document){.word = "trust", .key = "trust/record", .file = "trust-record",
                                    .bytes_max = KILN_TRUST_BYTES_MAX, .least_version = options->least_version};
    made->public = (struct document){.word = "public", .key = "trust/public", .file = "trust-public",
                                     .bytes_max = KILN_PUBLIC_BYTES_MAX};
    init_locks(made);
    int rc = kiln_fs_open_dir(options->dir, &made->dirfd, err);
    if (!rc)
        rc = load_kept(made, &made->trust, made->trust_refusal, err);
    if (!rc)
        rc = load_kept(made, &made->public, made->public_refusal, err);
    if (!rc)
        rc = start(made, err);
    if (rc)
        keeper_free(made);
    else
        *keeper = made;
    return rc;
}

void kiln_keeper_close(struct kiln_keeper *keeper) {
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->clock);
    keeper->stop = true;
    pthread_cond_broadcast(&keeper->tick);
    pthread_mutex_unlock(&keeper->clock);
    pthread_join(keeper->thread, NULL);
    keeper_free(keeper);
}

// Of the lock's holder.
static int check_force(const struct kiln_keeper *keeper, struct kiln_err *err) {
    if (in_force(keeper))
        return 0;
    if (*keeper->trust_refusal)
        return kiln_fail(err, KILN_E_DENIED, "%s", keeper->trust_refusal);
    return kiln_fail(err, KILN_E_DENIED, "%s: version %" PRIu64, keeper->record.version ? "trust_expired" : "trust_missing",
                     keeper->record.version);
}

int kiln_keeper_valid(struct kiln_keeper *keeper, struct kiln_err *err) {
    pthread_rwlock_rdlock(&keeper->lock);
    int rc = check_force(keeper, err);
    pthread_rwlock_unlock(&keeper->lock);
    return rc;
}

uint64_t kiln_keeper_generation(struct kiln_keeper *keeper) {
    pthread_rwlock_rdlock(&keeper->lock);
    uint64_t generation = keeper->record.generation;
    pthread_rwlock_unlock(&keeper->lock);
    return generation;
}

void kiln_keeper_status(struct kiln_keeper *keeper, struct kiln_keeper_status *status) {
    pthread_rwlock_rdlock(&keeper->lock);
    const struct kiln_trust_record *record = &keeper->record;
    *status = (struct kiln_keeper_status){.version = record->version,
                                          .issued_ms = record->issued_ms,
                                          .expires_ms = record->expires_ms,
                                          .generation = record->generation,
                                          .public_version = keeper->list.version,
                                          .public_expires_ms = keeper->list.expires_ms,
                                          .keys_count = record->keys_count,
                                          .principals_count = record->principals_count,
                                          .revocations_count = record->revocations_count,
                                          .public_count = keeper->list.count};
    memcpy(status->trust_refusal, keeper->trust_refusal, sizeof status->trust_refusal);
    memcpy(status->public_refusal, keeper->public_refusal, sizeof status->public_refusal);
    pthread_rwlock_unlock(&keeper->lock);
}

bool kiln_keeper_find(void *context, const char *principal, struct kiln_principal *found) {
    struct kiln_keeper *keeper = context;
    pthread_rwlock_rdlock(&keeper->lock);
    const struct kiln_principal *known = in_force(keeper) ? kiln_trust_record_find(&keeper->record, principal) : NULL;
    if (known)
        *found = *known;
    pthread_rwlock_unlock(&keeper->lock);
    return known;
}

static bool may_sign(const struct kiln_trust_record *record, const char *principal, const struct kiln_digest *id,
                     uint64_t now) {
    const struct kiln_verifier_key *known = kiln_trust_record_key(record, id);
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(id, hex);
    return known && strcmp(known->principal, principal) == 0 && now <= known->not_after_ms &&
           !kiln_trust_record_revokes(record, KILN_REVOKED_KEY, hex, now) &&
           !kiln_trust_record_revokes(record, KILN_REVOKED_PRINCIPAL, principal, now);
}

bool kiln_keeper_signs(struct kiln_keeper *keeper, const char *principal, const struct kiln_sign_key *key) {
    struct kiln_digest id;
    kiln_sign_key_id(key, &id);
    pthread_rwlock_rdlock(&keeper->lock);
    bool signs = in_force(keeper) && may_sign(&keeper->record, principal, &id, keeper->wall_ms());
    pthread_rwlock_unlock(&keeper->lock);
    return signs;
}

int kiln_keeper_may_make(struct kiln_keeper *keeper, const struct kiln_digest *digest, const struct kiln_action *action,
                         struct kiln_err *err) {
    pthread_rwlock_rdlock(&keeper->lock);
    int rc = check_force(keeper, err);
    if (!rc)
        rc = kiln_verdict_may_make(&keeper->record, digest, action, keeper->wall_ms(), err);
    pthread_rwlock_unlock(&keeper->lock);
    return rc;
}

int kiln_keeper_open_result(struct kiln_keeper *keeper, const void *envelope, size_t len, const struct kiln_digest *action,
                            const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err) {
    struct kiln_verdict_question question = {envelope, len, action, scope, generation, keeper->wall_ms()};
    pthread_rwlock_rdlock(&keeper->lock);
    int rc = check_force(keeper, err);
    if (!rc)
        rc = kiln_verdict_open(&keeper->record, keeper->keys, &question, result, err);
    pthread_rwlock_unlock(&keeper->lock);
    return rc;
}

bool kiln_keeper_is_public(struct kiln_keeper *keeper, const char *package, const struct kiln_digest *tree) {
    pthread_rwlock_rdlock(&keeper->lock);
    bool is = in_force(keeper) && keeper->wall_ms() < keeper->list.expires_ms &&
              kiln_public_list_has(&keeper->list, package, tree);
    pthread_rwlock_unlock(&keeper->lock);
    return is;
}
