#include "verifier/vault.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "verifier/vault_content.h"

#define ENVELOPE_BYTES_MAX (KILN_RESULT_BYTES_MAX + 4096u)

static int no_memory(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "no memory for a result"); }

void kiln_vault_entry_release(struct kiln_vault_entry *entry) {
    kiln_buf_release(&entry->envelope);
    kiln_result_release(&entry->result);
    *entry = (struct kiln_vault_entry){0};
}

int kiln_vault_open_trusted(void *trust, const void *envelope, size_t len, const struct kiln_digest *action,
                            const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err) {
    kiln_autoresult struct kiln_result opened = {0};
    int rc = kiln_result_open(envelope, len, trust, action, &opened, err);
    if (rc)
        return rc;
    if (strcmp(opened.scope, scope) != 0 || opened.generation != generation)
        return kiln_fail(err, KILN_E_CORRUPT, "a result of another scope or generation");
    *result = opened;
    opened = (struct kiln_result){0};
    return 0;
}

// A result that holds, and the bytes of its bundle.
struct holding {
    struct kiln_vault_entry entry;
    int bundle;
};
#define HOLDING_INIT {.bundle = -1}

static void release_holding(struct holding *holding) {
    kiln_vault_entry_release(&holding->entry);
    kiln_cleanup_fd(&holding->bundle);
}
#define auto_holding kiln_auto(release_holding) struct holding

struct question {
    const struct kiln_vault *vault;
    const char *scope;
    uint64_t generation;
    const struct kiln_digest *action;
};

static int examine(const struct question *question, const void *bytes, size_t len, struct holding *holding,
                   struct kiln_err *err) {
    const struct kiln_vault *vault = question->vault;
    auto_holding found = HOLDING_INIT;
    found.entry.envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    int rc = vault->open(vault->context, bytes, len, question->action, question->scope, question->generation,
                         &found.entry.result, err);
    if (!rc)
        rc = kiln_vault_read(vault, &found.entry.result, &found.bundle, err);
    if (!rc && kiln_buf_add(&found.entry.envelope, bytes, len))
        rc = kiln_buf_check(&found.entry.envelope, "a stored result", err);
    if (rc)
        return rc == KILN_E_LIMIT ? kiln_fail(err, KILN_E_CORRUPT, "a stored result is too large") : rc;
    *holding = found;
    found = (struct holding)HOLDING_INIT;
    return 0;
}

static int find_newest(const struct question *question, const char *key, struct holding *holding, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    int rc = kiln_store_get_bytes(question->vault->store, KILN_SPACE_VAULT, key, &bytes, err);
    if (rc == KILN_E_LIMIT)
        return kiln_fail(err, KILN_E_CORRUPT, "a stored result is too large");
    return rc ? rc : examine(question, bytes.data, bytes.len, holding, err);
}

struct versions {
    const struct question *question;
    struct holding *holding;
    struct kiln_err why; // of the last one that does not hold
    unsigned count;
};

enum { FOUND = 1 };

static int visit_version(void *context, const struct kiln_pin *pin, const struct kiln_buf *bytes) {
    struct versions *versions = context;
    (void)pin;
    versions->count++;
    int rc = examine(versions->question, bytes->data, bytes->len, versions->holding, &versions->why);
    return rc == KILN_E_CORRUPT ? 0 : rc ? rc : FOUND;
}

// The oldest version that holds: who came later cannot take its place, whatever he may write.
static int find_oldest(const struct question *question, const char *key, struct holding *holding, struct kiln_err *err) {
    struct versions versions = {.question = question, .holding = holding};
    int rc = kiln_store_pointer_versions(question->vault->store, key, visit_version, &versions, err);
    if (rc == FOUND)
        return 0;
    if (rc == KILN_E_NOTFOUND || (!rc && !versions.count))
        return kiln_fail(err, KILN_E_NOTFOUND, "no result");
    if (!rc) {
        if (err)
            *err = versions.why;
        return KILN_E_CORRUPT;
    }
    if (versions.why.code == rc && err)
        *err = versions.why;
    return rc;
}

// A pointer is locked as long as its result is good.
static int put_pointer(const struct kiln_vault *vault, const char *key, const struct holding *holding, bool over_shadow,
                       struct kiln_err *err) {
    const struct kiln_vault_entry *entry = &holding->entry;
    return kiln_store_keep_pointer(vault->store, key, entry->envelope.data, entry->envelope.len, entry->result.expires_ms,
                                   over_shadow, NULL, err);
}

// In the current generation. Something over the valid version: it is put on top again.
static int find_current(const struct question *question, struct holding *holding, struct kiln_err *err) {
    const struct kiln_vault *vault = question->vault;
    kiln_autofree char *key = kiln_key_result(question->scope, question->generation, question->action);
    if (!key)
        return no_memory(err);
    if (!kiln_store_pointer_is_listed(vault->store, key))
        return kiln_fail(err, KILN_E_NOTFOUND, "no result");
    int rc = find_newest(question, key, holding, err);
    if (rc != KILN_E_NOTFOUND && rc != KILN_E_CORRUPT)
        return rc;
    auto_holding oldest = HOLDING_INIT;
    int older = find_oldest(question, key, &oldest, err);
    if (older)
        return older == KILN_E_NOTFOUND ? rc : older;
    oldest.entry.shadowed = true;
    rc = put_pointer(vault, key, &oldest, true, err);
    if (rc)
        return rc;
    *holding = oldest;
    oldest = (struct holding)HOLDING_INIT;
    return 0;
}

// Signs a result as of now. The signature is worth nothing when a revocation has met the result meanwhile:
// what is signed is looked at as a reader would.
static int sign(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result, struct kiln_vault_entry *entry,
                struct kiln_err *err) {
    struct kiln_vault_entry made = {.envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX)};
    result->issued_ms = now_ms;
    result->expires_ms = vault->pointer_ms ? now_ms + vault->pointer_ms : 0;
    int rc = kiln_result_finish(result, err);
    if (!rc)
        rc = kiln_result_seal(result, vault->key, &made.envelope, err);
    if (!rc)
        rc = vault->open(vault->context, made.envelope.data, made.envelope.len, &result->action, result->scope,
                         result->generation, &made.result, err);
    if (rc) {
        kiln_vault_entry_release(&made);
        return rc;
    }
    *entry = made;
    return 0;
}

// It was there already: another verifier may have been faster, then its result is the one.
static int resolve(const struct question *question, const char *key, struct holding *holding, struct kiln_err *err) {
    const struct kiln_vault *vault = question->vault;
    auto_holding first = HOLDING_INIT;
    int rc = find_current(question, &first, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_NOTFOUND)
        return put_pointer(vault, key, holding, true, err);
    if (rc)
        return rc;
    release_holding(holding);
    *holding = first;
    first = (struct holding)HOLDING_INIT;
    return 0;
}

static int publish(const struct question *question, struct holding *holding, bool over_shadow, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_result(question->scope, question->generation, question->action);
    int rc = key ? put_pointer(question->vault, key, holding, over_shadow, err) : no_memory(err);
    return rc == KILN_E_EXISTS ? resolve(question, key, holding, err) : rc;
}

static int publish_pair(const struct question *question, const struct kiln_store_pair *pair, struct holding *holding, struct kiln_err *err) {
    const struct kiln_vault_entry *entry = &holding->entry;
    int rc = kiln_store_pair_pointer(question->vault->store, pair, entry->envelope.data, entry->envelope.len, entry->result.expires_ms, err);
    return rc == KILN_E_EXISTS ? resolve(question, pair->pointer_key, holding, err) : rc;
}

static int carry(const struct question *current, uint64_t now_ms, bool over_shadow, struct holding *holding,
                 struct kiln_err *err) {
    const struct kiln_vault *vault = current->vault;
    struct question before = *current;
    before.generation--;
    kiln_autofree char *key = kiln_key_result(before.scope, before.generation, before.action);
    auto_holding old = HOLDING_INIT;
    int rc = key ? find_oldest(&before, key, &old, err) : no_memory(err);
    if (rc)
        return rc;
    auto_holding signed_anew = HOLDING_INIT;
    if (old.bundle >= 0)
        rc = kiln_vault_keep_bundle(vault, now_ms, &old.entry.result, old.bundle, err);
    old.entry.result.generation = current->generation;
    if (!rc)
        rc = sign(vault, now_ms, &old.entry.result, &signed_anew.entry, err);
    if (!rc)
        rc = publish(current, &signed_anew, over_shadow, err);
    if (rc)
        return rc;
    signed_anew.entry.carried = true;
    *holding = signed_anew;
    signed_anew = (struct holding)HOLDING_INIT;
    return 0;
}

static void give(struct holding *holding, struct kiln_vault_entry *entry) {
    *entry = holding->entry;
    holding->entry = (struct kiln_vault_entry){0};
}

int kiln_vault_find(const struct kiln_vault *vault, const struct kiln_vault_place *place, const struct kiln_digest *action,
                    struct kiln_vault_entry *entry, struct kiln_err *err) {
    const struct question question = {vault, place->scope, place->generation, action};
    auto_holding found = HOLDING_INIT;
    int rc = find_current(&question, &found, err);
    if ((rc == KILN_E_NOTFOUND || rc == KILN_E_CORRUPT) && place->generation > 1) {
        struct kiln_err why;
        int carried = carry(&question, place->now_ms, rc == KILN_E_CORRUPT, &found, &why);
        if (carried != KILN_E_NOTFOUND && carried != KILN_E_CORRUPT) {
            rc = carried;
            if (rc && err)
                *err = why;
        }
    }
    if (!rc)
        give(&found, entry);
    return rc;
}

// The same outcome: what a client would get is equal. Who ran it and when is not.
static bool is_equal(const struct kiln_result *a, const struct kiln_result *b) {
    if (a->outcome != b->outcome || a->outputs_count != b->outputs_count)
        return false;
    for (size_t i = 0; i < a->outputs_count; i++) {
        const struct kiln_output *one = &a->outputs[i], *other = &b->outputs[i];
        if (one->kind != other->kind || one->executable != other->executable || strcmp(one->name, other->name) != 0 ||
            !kiln_digest_equal(&one->digest, &other->digest))
            return false;
    }
    return true;
}

static void release_pair(struct kiln_store_pair *pair) {
    free((char *)(uintptr_t)pair->content_key);
    free((char *)(uintptr_t)pair->pointer_key);
}

int kiln_vault_store(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result,
                     const struct kiln_vault_source *source, struct kiln_vault_entry *entry, struct kiln_err *err) {
    const struct question question = {vault, result->scope, result->generation, &result->action};
    auto_holding holding = HOLDING_INIT;
    kiln_auto(release_pair) struct kiln_store_pair pair = {0};
    int rc = kiln_vault_take(vault, now_ms, result, source, &pair, err);
    if (!rc)
        rc = sign(vault, now_ms, result, &holding.entry, err);
    if (!rc)
        rc = pair.content_key ? publish_pair(&question, &pair, &holding, err) : publish(&question, &holding, false, err);
    if (rc)
        return rc;
    give(&holding, entry);
    entry->diverges = !is_equal(&entry->result, result);
    return 0;
}
