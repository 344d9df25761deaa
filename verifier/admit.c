#include "verifier/admit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"
#include "verifier/identity.h"

#define PACK_BYTES_MAX (KILN_PACK_CONTENT_MAX + KILN_TREE_BYTES_MAX + 64)
#define BATCH_MAX 32u // objects that are fetched at once
#define ROUNDS_MAX 4u // lists first, then what they name; a store that forgets must not keep us here

void kiln_refs_release(struct kiln_refs *refs) {
    free(refs->list);
    *refs = (struct kiln_refs){0};
}

const char *kiln_content_kind_name(enum kiln_content_kind kind) {
    static const char *const names[] = {
        [KILN_CONTENT_BLOB] = "blob", [KILN_CONTENT_PACK] = "pack", [KILN_CONTENT_LIST] = "list"};
    return names[kind];
}

void kiln_content_name(const struct kiln_content_ref *ref, char name[KILN_CONTENT_NAME_BYTES]) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(&ref->digest, hex);
    snprintf(name, KILN_CONTENT_NAME_BYTES, "%s-%s", kiln_content_kind_name(ref->kind), hex);
}

int kiln_content_deny(const struct kiln_content_ref *ref, const char *why, struct kiln_err *err) {
    char name[KILN_CONTENT_NAME_BYTES];
    kiln_content_name(ref, name);
    return kiln_fail(err, KILN_E_DENIED, "contents: %s %s", name, why);
}

static void format_job(const struct kiln_job_id *job, char hex[33]) {
    for (size_t i = 0; i < sizeof job->bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", job->bytes[i]);
}

static char *quarantine_key(const struct kiln_job_submitted *record, const char *name) {
    char job[33];
    format_job(&record->job, job);
    return kiln_key_quarantine_in(record->tenant, record->agent, job, name);
}

static bool is_public(const struct kiln_admit *admit) { return strcmp(admit->scope, KILN_SCOPE_PUBLIC) == 0; }

// A list becomes public only with members that are. One by one: the store remembers what it has seen.
static int check_members(const struct kiln_admit *admit, const struct kiln_tree *tree, struct kiln_err *err) {
    bool vault = !kiln_store_wants_bundles(admit->store);
    for (size_t i = 0; i < tree->count; i++) {
        kiln_autofree char *key = kiln_key_content("blob", admit->scope, &tree->entries[i].digest);
        if (!key)
            return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
        if (!kiln_store_has(admit->store, KILN_SPACE_INPUTS, key) &&
            !(vault && kiln_store_has(admit->store, KILN_SPACE_VAULT, key)))
            return kiln_fail(err, KILN_E_DENIED, "scope: \"%.200s\" of a list is not public", tree->entries[i].path);
    }
    return 0;
}

static int check_list(const struct kiln_admit *admit, const struct kiln_content_ref *ref, int fd, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    kiln_autotree struct kiln_tree tree = {0};
    struct kiln_digest found;
    int rc = kiln_fs_read_fd(fd, &bytes, err);
    if (rc == KILN_E_LIMIT)
        return kiln_content_deny(ref, "is too large", err);
    if (rc)
        return rc;
    kiln_digest_of(bytes.data, bytes.len, &found);
    if (!kiln_digest_equal(&found, &ref->digest))
        return kiln_content_deny(ref, "has other bytes", err);
    rc = kiln_tree_decode(bytes.data, bytes.len, &tree, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_DENIED, "contents: list");
    return is_public(admit) ? check_members(admit, &tree, err) : 0;
}

// A pack is named by its tree, so a store cannot check it by its name: it is verified in a copy that nobody else can
// write, and that copy is what is stored. What came from a server is such a copy already.
static int check_pack(const struct kiln_admit *admit, const struct kiln_content_ref *ref, int *fd, uint64_t *size,
                      struct kiln_err *err) {
    if (!kiln_store_wants_bundles(admit->store)) {
        kiln_autofd int copy = openat(admit->scratch_dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (copy < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot make a private copy of a pack");
        int rc = kiln_fs_copy_fd(*fd, copy, PACK_BYTES_MAX, size, err);
        if (rc)
            return rc == KILN_E_LIMIT ? kiln_content_deny(ref, "is too large", err) : rc;
        close(*fd);
        *fd = kiln_steal_fd(&copy);
    }
    int rc = kiln_pack_verify(*fd, &ref->digest, NULL, err);
    return rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT ? kiln_wrap(err, KILN_E_DENIED, "contents: pack") : rc;
}

// Some objects on their way from quarantine into the inputs.
struct batch {
    const struct kiln_content_ref *refs[BATCH_MAX];
    struct kiln_store_want wants[BATCH_MAX];
    struct kiln_store_offer offers[BATCH_MAX];
    char *from[BATCH_MAX], *to[BATCH_MAX];
    size_t count;
};

static void release_batch(struct batch *batch) {
    for (size_t i = 0; i < batch->count; i++) {
        kiln_cleanup_fd(&batch->wants[i].fd);
        free(batch->from[i]);
        free(batch->to[i]);
    }
}

static int add_to_batch(struct batch *batch, const struct kiln_admit *admit, const struct kiln_job_submitted *record,
                        const struct kiln_content_ref *ref, struct kiln_err *err) {
    char name[KILN_CONTENT_NAME_BYTES];
    kiln_content_name(ref, name);
    size_t i = batch->count++;
    batch->refs[i] = ref;
    batch->from[i] = quarantine_key(record, name);
    batch->to[i] = kiln_key_content(kiln_content_kind_name(ref->kind), admit->scope, &ref->digest);
    batch->wants[i] = (struct kiln_store_want){.space = KILN_SPACE_QUARANTINE, .key = batch->from[i], .fd = -1};
    return batch->from[i] && batch->to[i] ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
}

static int check_fetched(const struct kiln_admit *admit, const struct kiln_content_ref *ref, struct kiln_store_want *want,
                         struct kiln_err *err) {
    char name[KILN_CONTENT_NAME_BYTES];
    struct stat st;
    kiln_content_name(ref, name);
    if (want->fd < 0)
        return want->err.code == KILN_E_NOTFOUND ? kiln_fail(err, KILN_E_DENIED, "not_uploaded: %s", name)
                                                 : kiln_fail(err, want->err.code ? want->err.code : KILN_E_IO, "%s",
                                                             want->err.text);
    if (fstat(want->fd, &st) || !S_ISREG(st.st_mode))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat %s", name);
    want->size = (uint64_t)st.st_size;
    if ((ref->kind != KILN_CONTENT_PACK || ref->size) && ref->size != want->size)
        return kiln_content_deny(ref, "has another size", err);
    switch (ref->kind) {
    case KILN_CONTENT_BLOB:
        return is_public(admit) ? kiln_fail(err, KILN_E_DENIED, "scope: %s is not public", name) : 0;
    case KILN_CONTENT_PACK: return check_pack(admit, ref, &want->fd, &want->size, err);
    case KILN_CONTENT_LIST: return check_list(admit, ref, want->fd, err);
    }
    return kiln_content_deny(ref, "is of an unknown kind", err);
}

static int store_batch(const struct kiln_admit *admit, struct batch *batch, struct kiln_err *err) {
    for (size_t i = 0; i < batch->count; i++) {
        const struct kiln_content_ref *ref = batch->refs[i];
        batch->offers[i] = (struct kiln_store_offer){
            .space = KILN_SPACE_INPUTS, .key = batch->to[i], .fd = batch->wants[i].fd, .max_bytes = batch->wants[i].size,
            .expected = ref->kind == KILN_CONTENT_PACK ? NULL : &ref->digest};
    }
    int rc = kiln_store_put_many(admit->store, batch->offers, batch->count, err);
    for (size_t i = 0; i < batch->count; i++) {
        int code = batch->offers[i].err.code;
        if (code == KILN_E_CORRUPT || code == KILN_E_LIMIT)
            return kiln_content_deny(batch->refs[i], "has other bytes", err);
        if (code)
            return kiln_fail(err, code, "%s", batch->offers[i].err.text);
    }
    return rc;
}

static int take_batch(const struct kiln_admit *admit, struct batch *batch, uint64_t *bytes, struct kiln_err *err) {
    int rc = 0;
    kiln_store_get_many(admit->store, batch->wants, batch->count);
    for (size_t i = 0; !rc && i < batch->count; i++) {
        rc = check_fetched(admit, batch->refs[i], &batch->wants[i], err);
        *bytes += batch->wants[i].size;
    }
    return rc ? rc : store_batch(admit, batch, err);
}

// Lists alone, while one lacks: only they tell whether the blobs are needed at all.
static int take_some(const struct kiln_admit *admit, const struct kiln_job_submitted *record,
                     const struct kiln_refs *lacking, bool *took_lists, uint64_t *bytes, struct kiln_err *err) {
    *took_lists = false;
    for (size_t i = 0; i < lacking->count; i++)
        *took_lists |= lacking->list[i].kind == KILN_CONTENT_LIST;
    for (size_t at = 0; at < lacking->count;) {
        kiln_auto(release_batch) struct batch batch = {.count = 0};
        int rc = 0;
        for (; !rc && at < lacking->count && batch.count < BATCH_MAX; at++) {
            if (!*took_lists || lacking->list[at].kind == KILN_CONTENT_LIST)
                rc = add_to_batch(&batch, admit, record, &lacking->list[at], err);
        }
        if (!rc && batch.count)
            rc = take_batch(admit, &batch, bytes, err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_admit_upload(const struct kiln_admit *admit, struct kiln_job_submitted *record, const struct kiln_action *action,
                      uint64_t *bytes, struct kiln_err *err) {
    uint64_t taken = 0;
    int rc = 0;
    bool more = true;
    for (unsigned round = 0; !rc && more && round < ROUNDS_MAX; round++) {
        kiln_auto(kiln_refs_release) struct kiln_refs lacking = {0};
        rc = kiln_admit_lacking(admit, record, action, KILN_ADMIT_PRESENT, &lacking, err);
        if (!rc)
            rc = take_some(admit, record, &lacking, &more, &taken, err);
    }
    if (bytes)
        *bytes += taken;
    if (rc)
        return rc;
    kiln_auto(kiln_refs_release) struct kiln_refs still = {0};
    rc = kiln_admit_lacking(admit, record, action, KILN_ADMIT_PRESENT, &still, err);
    return !rc && still.count ? kiln_content_deny(&still.list[0], "is still lacking", err) : rc;
}

char *kiln_admit_uploads(const struct kiln_job_submitted *record) {
    char *key = quarantine_key(record, "x");
    if (key)
        *strrchr(key, '/') = 0;
    return key;
}

void kiln_admit_clear(struct kiln_store *store, const struct kiln_job_submitted *record) {
    kiln_autofree char *uploads = kiln_admit_uploads(record);
    if (uploads)
        kiln_store_remove_below(store, KILN_SPACE_QUARANTINE, uploads, NULL);
}
