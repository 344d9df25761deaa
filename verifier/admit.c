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
#include "lib/rustc/paths.h"

#define PACK_BYTES_MAX (KILN_PACK_CONTENT_MAX + KILN_TREE_BYTES_MAX + 64)

void kiln_refs_release(struct kiln_refs *refs) {
    free(refs->list);
    *refs = (struct kiln_refs){0};
}

static const char *kind_name(enum kiln_content_kind kind) {
    static const char *const names[] = {
        [KILN_CONTENT_BLOB] = "blob", [KILN_CONTENT_PACK] = "pack", [KILN_CONTENT_LIST] = "list"};
    return names[kind];
}

void kiln_content_name(const struct kiln_content_ref *ref, char name[KILN_CONTENT_NAME_BYTES]) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(&ref->digest, hex);
    snprintf(name, KILN_CONTENT_NAME_BYTES, "%s-%s", kind_name(ref->kind), hex);
}

static int denied(struct kiln_err *err, const struct kiln_content_ref *ref, const char *why) {
    char name[KILN_CONTENT_NAME_BYTES];
    kiln_content_name(ref, name);
    return kiln_fail(err, KILN_E_DENIED, "contents: %s %s", name, why);
}

static char *input_key(const struct kiln_admit *admit, const struct kiln_content_ref *ref) {
    return kiln_key_content(kind_name(ref->kind), admit->scope, &ref->digest);
}

// One look at a submission's content: its references in order of (kind, digest), and which of them the action needs.
struct review {
    const struct kiln_admit *admit;
    enum kiln_admit_care care;
    struct item {
        struct kiln_content_ref *ref;
        bool needed, lacks;
    } *items;
    size_t count;
    bool lists_missing; // then the need for blobs is not known yet
};

static int compare_refs(const struct kiln_content_ref *a, const struct kiln_content_ref *b) {
    return a->kind != b->kind ? (a->kind < b->kind ? -1 : 1) : kiln_digest_compare(&a->digest, &b->digest);
}

static int by_ref(const void *a, const void *b) {
    return compare_refs(((const struct item *)a)->ref, ((const struct item *)b)->ref);
}

static struct item *find_item(const struct review *review, enum kiln_content_kind kind,
                              const struct kiln_digest *digest) {
    struct kiln_content_ref wanted = {.kind = kind, .digest = *digest};
    const struct item key = {.ref = &wanted};
    return review->count ? bsearch(&key, review->items, review->count, sizeof *review->items, by_ref) : NULL;
}

static int begin_review(struct review *review, struct kiln_job_submitted *record, struct kiln_err *err) {
    review->items = calloc(record->contents_count + 1, sizeof *review->items);
    if (!review->items)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a content list");
    review->count = record->contents_count;
    for (size_t i = 0; i < review->count; i++)
        review->items[i].ref = &record->contents[i];
    qsort(review->items, review->count, sizeof *review->items, by_ref);
    for (size_t i = 1; i < review->count; i++) {
        if (compare_refs(review->items[i - 1].ref, review->items[i].ref) == 0)
            return denied(err, review->items[i].ref, "is listed twice");
    }
    return 0;
}

static void release_review(struct review *review) { free(review->items); }

// An object that turned out not to be what its name says: gone, so that the right bytes can come again.
static int drop_object(const struct kiln_admit *admit, enum kiln_space space, const char *key, bool *lacks,
                       struct kiln_err *err) {
    *lacks = true;
    return kiln_store_remove(admit->store, space, key, err);
}

// Reads a stored object whose name is the digest of its bytes. *lacks: it is not there, or was not what it should be.
static int read_stored(const struct kiln_admit *admit, enum kiln_space space, const char *key,
                       const struct kiln_digest *digest, int *fd, uint64_t *size, bool *lacks, struct kiln_err *err) {
    int rc = kiln_store_get_fd(admit->store, space, key, digest, fd, size, err);
    if (rc == KILN_E_CORRUPT)
        return drop_object(admit, space, key, lacks, err);
    if (rc == KILN_E_NOTFOUND) {
        *lacks = true;
        return 0;
    }
    return rc;
}

static int look_at_pack(const struct review *review, struct item *item, struct kiln_err *err) {
    kiln_autofree char *key = input_key(review->admit, item->ref);
    kiln_autofd int fd = -1;
    int rc = key ? kiln_store_open_unchecked(review->admit->store, KILN_SPACE_INPUTS, key, &fd, err)
                 : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    if (rc == KILN_E_NOTFOUND) {
        item->lacks = true;
        return 0;
    }
    struct stat st;
    if (!rc && fstat(fd, &st))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot stat a pack");
    if (rc)
        return rc;
    bool claims_other = item->ref->size && item->ref->size != (uint64_t)st.st_size;
    if (review->care == KILN_ADMIT_BYTES || claims_other)
        rc = kiln_pack_verify(fd, &item->ref->digest, NULL, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT)
        return drop_object(review->admit, KILN_SPACE_INPUTS, key, &item->lacks, err);
    if (!rc && claims_other)
        return denied(err, item->ref, "has another size");
    if (!rc)
        item->ref->size = (uint64_t)st.st_size;
    return rc;
}

// Outputs of earlier jobs are in the vault already; what came from a client is among the inputs.
static int look_at_blob(const struct review *review, struct item *item, struct kiln_err *err) {
    static const enum kiln_space spaces[] = {KILN_SPACE_INPUTS, KILN_SPACE_VAULT};
    kiln_autofree char *key = input_key(review->admit, item->ref);
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    item->lacks = true;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        bool lacks = !kiln_store_has(review->admit->store, spaces[i], key);
        if (!lacks && review->care == KILN_ADMIT_BYTES) {
            kiln_autofd int fd = -1;
            uint64_t size;
            int rc = read_stored(review->admit, spaces[i], key, &item->ref->digest, &fd, &size, &lacks, err);
            if (rc)
                return rc;
        }
        item->lacks &= lacks;
    }
    return 0;
}

// The stem of a library ("libfoo-0123" of "libfoo-0123.rmeta") is among the submission's.
static bool stem_is_declared(const struct kiln_job_submitted *record, const char *name) {
    const char *dot = strrchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : strlen(name);
    for (size_t low = 0, high = record->closure_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        const char *stem = record->closure[middle];
        int order = strncmp(name, stem, len);
        if (order == 0)
            order = -(int)(unsigned char)stem[len];
        if (order == 0)
            return true;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static int review_entry(const struct review *review, const struct kiln_job_submitted *record,
                        const struct kiln_tree_entry *entry, bool is_closure, struct kiln_err *err) {
    if (entry->kind != KILN_TREE_FILE || strchr(entry->path, '/'))
        return kiln_fail(err, KILN_E_DENIED, "contents: \"%.200s\" of a list is no plain file", entry->path);
    if (is_closure && !stem_is_declared(record, entry->path))
        return kiln_fail(err, KILN_E_DENIED, "closure: %.200s is an input and not named", entry->path);
    struct item *item = find_item(review, KILN_CONTENT_BLOB, &entry->digest);
    if (!item)
        return kiln_fail(err, KILN_E_DENIED, "contents: \"%.200s\" of a list is not there", entry->path);
    if (item->ref->size != entry->size)
        return denied(err, item->ref, "has another size");
    item->needed = true;
    return 0;
}

static int read_list(const struct review *review, struct item *item, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autofree char *key = input_key(review->admit, item->ref);
    kiln_autofd int fd = -1;
    uint64_t size = 0;
    int rc = key ? read_stored(review->admit, KILN_SPACE_INPUTS, key, &item->ref->digest, &fd, &size, &item->lacks, err)
                 : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    if (rc || item->lacks)
        return rc;
    if (size != item->ref->size)
        return denied(err, item->ref, "has another size");
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    rc = kiln_fs_read_fd(fd, &bytes, err);
    return rc ? rc : kiln_tree_decode(bytes.data, bytes.len, tree, err);
}

static int review_list(struct review *review, const struct kiln_job_submitted *record, struct item *item,
                       const char *mount, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autofree char *deps = kiln_place(KILN_PLACE_DEPS, NULL);
    int rc = deps ? read_list(review, item, &tree, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a place");
    if (!rc && item->lacks)
        review->lists_missing = true;
    for (size_t i = 0; !rc && !item->lacks && i < tree.count; i++)
        rc = review_entry(review, record, &tree.entries[i], strcmp(mount, deps) == 0, err);
    return rc;
}

static int review_inputs(struct review *review, const struct kiln_job_submitted *record,
                         const struct kiln_action *action, struct kiln_err *err) {
    for (size_t i = 0; i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        bool list = input->form == KILN_INPUT_LIST;
        struct item *item = find_item(review, list ? KILN_CONTENT_LIST : KILN_CONTENT_PACK, &input->tree);
        if (!item)
            return kiln_fail(err, KILN_E_DENIED, "contents: what is mounted at %.200s is not there", input->mount);
        bool seen = item->needed;
        item->needed = true;
        int rc = 0;
        if (list)
            rc = review_list(review, record, item, input->mount, err);
        else if (!seen)
            rc = look_at_pack(review, item, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int review_blobs(struct review *review, struct kiln_err *err) {
    for (size_t i = 0; i < review->count; i++) {
        struct item *item = &review->items[i];
        if (!item->needed && (!review->lists_missing || item->ref->kind != KILN_CONTENT_BLOB))
            return denied(err, item->ref, "is no input of the action");
        int rc = item->ref->kind == KILN_CONTENT_BLOB ? look_at_blob(review, item, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_admit_lacking(const struct kiln_admit *admit, struct kiln_job_submitted *record,
                       const struct kiln_action *action, enum kiln_admit_care care, struct kiln_refs *lacking,
                       struct kiln_err *err) {
    kiln_auto(release_review) struct review review = {.admit = admit, .care = care};
    int rc = begin_review(&review, record, err);
    if (!rc)
        rc = review_inputs(&review, record, action, err);
    if (!rc)
        rc = review_blobs(&review, err);
    if (rc)
        return rc;
    struct kiln_refs found = {.list = calloc(review.count + 1, sizeof *found.list)};
    if (!found.list)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a content list");
    for (size_t i = 0; i < review.count; i++) {
        if (review.items[i].lacks)
            found.list[found.count++] = *review.items[i].ref;
    }
    *lacking = found;
    return 0;
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

static int open_uploaded(const struct kiln_admit *admit, const struct kiln_job_submitted *record,
                         const struct kiln_content_ref *ref, int *fd, uint64_t *size, struct kiln_err *err) {
    char name[KILN_CONTENT_NAME_BYTES];
    kiln_content_name(ref, name);
    kiln_autofree char *key = quarantine_key(record, name);
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    kiln_autofd int opened = -1;
    int rc = kiln_store_open_unchecked(admit->store, KILN_SPACE_QUARANTINE, key, &opened, err);
    if (rc == KILN_E_NOTFOUND)
        return kiln_fail(err, KILN_E_DENIED, "not_uploaded: %s", name);
    struct stat st;
    if (!rc && (fstat(opened, &st) || !S_ISREG(st.st_mode)))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot stat %s", name);
    if (rc)
        return rc;
    if (ref->kind != KILN_CONTENT_PACK || ref->size) {
        if (ref->size != (uint64_t)st.st_size)
            return denied(err, ref, "has another size");
    }
    *size = (uint64_t)st.st_size;
    *fd = kiln_steal_fd(&opened);
    return 0;
}

static int take_blob(const struct kiln_admit *admit, const struct kiln_content_ref *ref, const char *key, int fd,
                     struct kiln_err *err) {
    int rc = kiln_store_put_fd(admit->store, KILN_SPACE_INPUTS, key, fd, ref->size, &ref->digest, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT)
        return denied(err, ref, "has other bytes");
    return rc;
}

static int take_list(const struct kiln_admit *admit, const struct kiln_content_ref *ref, const char *key, int fd,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    kiln_autotree struct kiln_tree tree = {0};
    int rc = kiln_fs_read_fd(fd, &bytes, err);
    if (rc == KILN_E_LIMIT)
        return denied(err, ref, "is too large");
    if (rc)
        return rc;
    struct kiln_digest found;
    kiln_digest_of(bytes.data, bytes.len, &found);
    if (!kiln_digest_equal(&found, &ref->digest))
        return denied(err, ref, "has other bytes");
    rc = kiln_tree_decode(bytes.data, bytes.len, &tree, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_DENIED, "contents: list");
    return kiln_store_put_bytes(admit->store, KILN_SPACE_INPUTS, key, bytes.data, bytes.len, &ref->digest, err);
}

// A pack is named by its tree, so a store cannot check it by its name: it is verified in a copy that nobody else can
// write, and that copy is what is stored.
static int take_pack(const struct kiln_admit *admit, const struct kiln_content_ref *ref, const char *key, int fd,
                     struct kiln_err *err) {
    kiln_autofd int copy = openat(admit->scratch_dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (copy < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot make a private copy of a pack");
    uint64_t size;
    int rc = kiln_fs_copy_fd(fd, copy, PACK_BYTES_MAX, &size, err);
    if (rc == KILN_E_LIMIT)
        return denied(err, ref, "is too large");
    if (!rc)
        rc = kiln_pack_verify(copy, &ref->digest, NULL, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT)
        return kiln_wrap(err, KILN_E_DENIED, "contents: pack");
    return rc ? rc : kiln_store_put_fd(admit->store, KILN_SPACE_INPUTS, key, copy, size, NULL, err);
}

static int take(const struct kiln_admit *admit, const struct kiln_job_submitted *record,
                const struct kiln_content_ref *ref, struct kiln_err *err) {
    kiln_autofree char *key = input_key(admit, ref);
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = key ? open_uploaded(admit, record, ref, &fd, &size, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    if (rc)
        return rc;
    switch (ref->kind) {
    case KILN_CONTENT_BLOB: return take_blob(admit, ref, key, fd, err);
    case KILN_CONTENT_PACK: return take_pack(admit, ref, key, fd, err);
    case KILN_CONTENT_LIST: return take_list(admit, ref, key, fd, err);
    }
    return denied(err, ref, "is of an unknown kind");
}

// Lists alone, while one lacks: only they tell whether the blobs are needed at all.
static int take_some(const struct kiln_admit *admit, const struct kiln_job_submitted *record,
                     const struct kiln_refs *lacking, bool *took_lists, struct kiln_err *err) {
    *took_lists = false;
    for (size_t i = 0; i < lacking->count; i++)
        *took_lists |= lacking->list[i].kind == KILN_CONTENT_LIST;
    for (size_t i = 0; i < lacking->count; i++) {
        bool now = !*took_lists || lacking->list[i].kind == KILN_CONTENT_LIST;
        int rc = now ? take(admit, record, &lacking->list[i], err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_admit_upload(const struct kiln_admit *admit, struct kiln_job_submitted *record, const struct kiln_action *action,
                      struct kiln_err *err) {
    for (bool more = true; more;) {
        kiln_auto(kiln_refs_release) struct kiln_refs lacking = {0};
        int rc = kiln_admit_lacking(admit, record, action, KILN_ADMIT_PRESENT, &lacking, err);
        if (!rc)
            rc = take_some(admit, record, &lacking, &more, err);
        if (rc)
            return rc;
    }
    kiln_auto(kiln_refs_release) struct kiln_refs still = {0};
    int rc = kiln_admit_lacking(admit, record, action, KILN_ADMIT_PRESENT, &still, err);
    if (!rc && still.count)
        rc = denied(err, &still.list[0], "is still lacking");
    return rc;
}

char *kiln_admit_uploads(const struct kiln_job_submitted *record) {
    char *key = quarantine_key(record, "x");
    if (key)
        *strrchr(key, '/') = 0;
    return key;
}

void kiln_admit_clear(const struct kiln_admit *admit, const struct kiln_job_submitted *record) {
    kiln_autofree char *uploads = kiln_admit_uploads(record);
    if (uploads)
        kiln_store_remove_below(admit->store, KILN_SPACE_QUARANTINE, uploads, NULL);
}
