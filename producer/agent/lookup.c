#include "producer/agent/lookup.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/log.h"
#include "lib/blob/bundle.h"

static const char *local_reason(const struct kiln_result *result) {
    return result->reasons_count ? result->reasons[0] : "undeclared: no reason recorded";
}

void kiln_lookup_mark_local(const struct kiln_lookup *lookup, const struct kiln_digest *action, const char *reason) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1024);
    kiln_buf_addf(&text, "%.900s", reason);
    kiln_l0_memo_put(lookup->l0, KILN_MEMO_LOCAL, action->bytes, sizeof action->bytes, text.data, text.len, NULL);
}

int kiln_lookup_check(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                      struct kiln_result *result, struct kiln_err *err) {
    if (!lookup->keeper)
        return kiln_result_open(envelope, len, lookup->trust, action, result, err);
    return kiln_keeper_open_result(lookup->keeper, envelope, len, action, lookup->scope,
                                   kiln_keeper_generation(lookup->keeper), result, err);
}

static bool is_over(const struct kiln_err *why) {
    static const char *const over[] = {"generation:", "expired:", "revoked_", "key_expired:", "scope:"};
    for (size_t i = 0; i < sizeof over / sizeof *over; i++)
        if (!strncmp(why->text, over[i], strlen(over[i])))
            return true;
    return false;
}

// A result whose time is over is no sign of damage.
static void count_refused(const struct kiln_lookup *lookup, const struct kiln_err *why) {
    if (lookup->keeper && is_over(why))
        return;
    kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    kiln_log(KILN_LOG_WARN, "result_refused", "error", why->text, NULL);
}

// What a good result says: itself, or that its action is compiled where it is.
static int give(struct kiln_result *result, struct kiln_err *err) {
    if (result->outcome == KILN_OUTCOME_SUCCESS)
        return 0;
    kiln_fail(err, KILN_E_UNSUPPORTED, "%s", local_reason(result));
    kiln_result_release(result);
    *result = (struct kiln_result){0};
    return KILN_E_UNSUPPORTED;
}

int kiln_lookup_accept(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_result *result, struct kiln_err *err) {
    int rc = kiln_lookup_check(lookup, action, envelope, len, result, err);
    if (rc)
        return rc;
    if (lookup->keeper || result->outcome == KILN_OUTCOME_SUCCESS) // a fleet's can be revoked
        kiln_l0_put_result(lookup->l0, action, envelope, len, NULL);
    else
        kiln_lookup_mark_local(lookup, action, local_reason(result));
    return give(result, err);
}

int kiln_lookup_cached(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    struct kiln_err why = {0};
    if (kiln_l0_get_result(lookup->l0, action, &bytes, NULL))
        return kiln_fail(err, KILN_E_NOTFOUND, "no result");
    if (kiln_lookup_check(lookup, action, bytes.data, bytes.len, result, &why) == 0)
        return give(result, err);
    kiln_l0_drop_result(lookup->l0, action);
    *result = (struct kiln_result){0};
    count_refused(lookup, &why);
    return kiln_fail(err, KILN_E_NOTFOUND, "the kept result is not valid");
}

int kiln_lookup_take_answer(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                            struct kiln_result *result, struct kiln_err *err) {
    struct kiln_err why = {0};
    int rc = kiln_lookup_accept(lookup, action, envelope, len, result, &why);
    bool differs = rc == KILN_E_CORRUPT && lookup->keeper && (is_over(&why) || !strncmp(why.text, "unknown_key:", 12));
    if (differs && kiln_keeper_refresh(lookup->keeper, NULL) == 0) // the verifier may know a newer record
        rc = kiln_lookup_accept(lookup, action, envelope, len, result, &why);
    if (rc == KILN_E_CORRUPT && lookup->keeper && is_over(&why))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "trust_differs: %s", why.text);
    return rc ? kiln_fail(err, rc, "%s", why.text) : 0;
}

// The pointer in the vault: the newest version of it, which may be a shadow; then a verifier finds the right one.
static int ask_vault(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    uint64_t generation = lookup->keeper ? kiln_keeper_generation(lookup->keeper) : KILN_GENERATION;
    kiln_autofree char *key = kiln_key_result(lookup->scope, generation, action);
    struct kiln_err why = {0};
    int rc = key ? kiln_store_get_bytes(lookup->store, KILN_SPACE_VAULT, key, &bytes, &why) : KILN_E_NOMEM;
    if (rc && lookup->link)
        kiln_link_store_failed(lookup->link, &why);
    if (why.code == KILN_E_UNSUPPORTED)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", why.text);
    if (rc)
        return kiln_fail(err, KILN_E_NOTFOUND, "no result");
    rc = kiln_lookup_accept(lookup, action, bytes.data, bytes.len, result, &why);
    if (rc == KILN_E_UNSUPPORTED)
        return kiln_fail(err, rc, "%s", why.text);
    if (rc == 0)
        return 0;
    count_refused(lookup, &why);
    return kiln_fail(err, KILN_E_NOTFOUND, "the stored result is not valid");
}

// In a fleet without a trust record in force nothing can be believed, and nothing is asked for.
static int check_fleet(const struct kiln_lookup *lookup, struct kiln_err *err) {
    struct kiln_err why = {0};
    if (lookup->keeper && kiln_keeper_valid(lookup->keeper, &why))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", why.text);
    return 0;
}

int kiln_lookup_result(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf reason = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    if (kiln_l0_memo_get(lookup->l0, KILN_MEMO_LOCAL, action->bytes, sizeof action->bytes, &reason, NULL) == 0)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", kiln_buf_text(&reason));
    int rc = check_fleet(lookup, err);
    if (!rc)
        rc = kiln_lookup_cached(lookup, action, result, err);
    if (rc != KILN_E_NOTFOUND)
        return rc;
    rc = lookup->link ? kiln_link_store(lookup->link, err) : 0;
    return rc ? rc : ask_vault(lookup, action, result, err);
}

static bool is_needed(const struct kiln_output *output) { return output->size || output->kind == KILN_OUTPUT_FILE; }

static bool is_here(const struct kiln_lookup *lookup, const struct kiln_output *output) {
    return kiln_fetched_has(lookup->fetched, &output->digest) || kiln_l0_has_blob(lookup->l0, &output->digest);
}

// Takes a checked file in: for this request, and for later ones (a full or read-only cache costs the next hit, not this one).
static int take_in(void *context, const struct kiln_digest *digest, uint64_t size, int fd) {
    const struct kiln_lookup *lookup = context;
    fchmod(fd, 0444); // a file that nobody may write is linked by the cache, not copied
    kiln_l0_add_blob(lookup->l0, fd, digest, size, NULL);
    return kiln_fetched_add(lookup->fetched, digest, size, fd, NULL);
}

static int bring_bundle(const struct kiln_lookup *lookup, const struct kiln_result *result, struct kiln_err *err) {
    struct kiln_pin pin = {{0}};
    kiln_autofree char *key = kiln_key_content("bundle", result->scope, &result->bundle);
    kiln_autofd int bundle = -1;
    uint64_t size;
    if (!key || strlen(result->bundle_pin) >= sizeof pin.text)
        return kiln_fail(err, KILN_E_CORRUPT, "a result's bundle has no usable name");
    memcpy(pin.text, result->bundle_pin, strlen(result->bundle_pin) + 1);
    int rc = kiln_store_get_pinned(lookup->store, key, &pin, &result->bundle, &bundle, &size, err);
    return rc ? rc : kiln_bundle_read(bundle, result, lookup->scratch_dir, take_in, (void *)(uintptr_t)lookup, err);
}

struct wants {
    struct kiln_store_want *all;
    size_t count;
};

static void release_wants(struct wants *wants) {
    for (size_t i = 0; i < wants->count; i++) {
        free((char *)(uintptr_t)wants->all[i].key);
        kiln_cleanup_fd(&wants->all[i].fd);
    }
    free(wants->all);
}

static int bring_each(const struct kiln_lookup *lookup, const struct kiln_result *result, struct kiln_err *err) {
    kiln_auto(release_wants) struct wants wants = {.all = calloc(result->outputs_count + 1, sizeof *wants.all)};
    if (!wants.all)
        return kiln_fail(err, KILN_E_NOMEM, "fetch outputs");
    for (size_t i = 0; i < result->outputs_count; i++) {
        const struct kiln_output *output = &result->outputs[i];
        if (!is_needed(output) || is_here(lookup, output))
            continue;
        char *key = kiln_key_content("blob", result->scope, &output->digest);
        if (!key)
            return kiln_fail(err, KILN_E_NOMEM, "fetch outputs");
        wants.all[wants.count++] = (struct kiln_store_want){.space = KILN_SPACE_VAULT, .key = key, .fd = -1,
                                                            .expected = &output->digest};
    }
    kiln_store_get_many(lookup->store, wants.all, wants.count);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < wants.count; i++) {
        struct kiln_store_want *want = &wants.all[i];
        rc = want->fd < 0 ? kiln_fail(err, want->err.code, "%s", want->err.text)
                          : take_in((void *)(uintptr_t)lookup, want->expected, want->size, kiln_steal_fd(&want->fd));
    }
    return rc;
}

int kiln_lookup_bring(const struct kiln_lookup *lookup, const struct kiln_result *result, struct kiln_err *err) {
    bool complete = true;
    for (size_t i = 0; lookup->fetched && i < result->outputs_count; i++)
        complete &= !is_needed(&result->outputs[i]) || is_here(lookup, &result->outputs[i]);
    if (complete)
        return 0;
    int rc = kiln_link_store(lookup->link, err);
    if (rc)
        return rc;
    struct kiln_err why = {0};
    rc = kiln_digest_is_zero(&result->bundle) ? bring_each(lookup, result, &why) : bring_bundle(lookup, result, &why);
    if (rc == 0)
        return 0;
    kiln_link_store_failed(lookup->link, &why);
    if (rc == KILN_E_CORRUPT)
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    return kiln_fail(err, why.code, "%s", why.text);
}

// A file that comes alone, as everything does in the embedded default.
static int open_stored(const struct kiln_lookup *lookup, const struct kiln_output *output, int *fd, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("blob", lookup->scope, &output->digest);
    kiln_autofd int stored = -1;
    uint64_t size;
    int rc = key ? kiln_store_get_fd(lookup->store, KILN_SPACE_VAULT, key, &output->digest, &stored, &size, err) : KILN_E_NOMEM;
    if (rc == KILN_E_CORRUPT)
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    if (rc == 0 && size != output->size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "stored content has another size");
    if (rc)
        return rc;
    // A full or read-only cache costs the next hit, not this one.
    kiln_l0_add_blob(lookup->l0, stored, &output->digest, output->size, NULL);
    if (lseek(stored, 0, SEEK_SET)) // adding may have read it
        return kiln_fail_errno(err, KILN_E_IO, "stored content");
    *fd = kiln_steal_fd(&stored);
    return 0;
}

int kiln_lookup_open(const struct kiln_lookup *lookup, const struct kiln_output *output, int *fd, struct kiln_err *err) {
    if (lookup->fetched && kiln_fetched_open(lookup->fetched, &output->digest, output->size, fd, NULL) == 0)
        return 0;
    int rc = kiln_l0_open_blob(lookup->l0, &output->digest, output->size, fd, err);
    if (rc == 0)
        return 0;
    if (rc == KILN_E_CORRUPT)
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    return lookup->keeper ? rc : open_stored(lookup, output, fd, err);
}
