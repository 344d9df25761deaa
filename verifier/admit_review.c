#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"
#include "lib/rustc/paths.h"
#include "verifier/admit.h"
#include "verifier/identity.h"

// One look at a submission's content: its references in order of (kind, digest), and which of them the action needs.
struct review {
    const struct kiln_admit *admit;
    enum kiln_admit_care care;
    bool bundled; // the store keeps what jobs need in inputs alone
    struct item {
        struct kiln_content_ref *ref;
        bool needed, lacks;
    } *items;
    size_t count;
    bool lists_missing; // then the need for blobs is not known yet
};

// A place where content may lie.
struct place {
    enum kiln_space space;
    const char *scope;
};
#define PLACES_MAX 3u

static size_t places_of(const struct review *review, enum kiln_content_kind kind, struct place places[PLACES_MAX]) {
    const char *scope = review->admit->scope;
    size_t count = 0;
    places[count++] = (struct place){KILN_SPACE_INPUTS, scope};
    if (!review->bundled && kind == KILN_CONTENT_BLOB) // outputs of earlier jobs are in the vault already
        places[count++] = (struct place){KILN_SPACE_VAULT, scope};
    if (strcmp(scope, KILN_SCOPE_PUBLIC) != 0)
        places[count++] = (struct place){KILN_SPACE_INPUTS, KILN_SCOPE_PUBLIC};
    return count;
}

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
    review->bundled = kiln_store_wants_bundles(review->admit->store);
    review->items = calloc(record->contents_count + 1, sizeof *review->items);
    if (!review->items)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a content list");
    review->count = record->contents_count;
    for (size_t i = 0; i < review->count; i++)
        review->items[i].ref = &record->contents[i];
    qsort(review->items, review->count, sizeof *review->items, by_ref);
    for (size_t i = 1; i < review->count; i++) {
        if (compare_refs(review->items[i - 1].ref, review->items[i].ref) == 0)
            return kiln_content_deny(review->items[i].ref, "is listed twice", err);
    }
    return 0;
}

static void release_review(struct review *review) { free(review->items); }

static char *key_at(const struct place *place, const struct kiln_content_ref *ref, struct kiln_err *err) {
    char *key = kiln_key_content(kiln_content_kind_name(ref->kind), place->scope, &ref->digest);
    if (!key)
        kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    return key;
}

// An object that turned out not to be what its name says: gone, so that the right bytes can come again.
static int drop_object(const struct review *review, const struct place *place, const char *key, struct kiln_err *err) {
    return kiln_store_remove(review->admit->store, place->space, key, err);
}

// Reads a stored object whose name is the digest of its bytes. KILN_E_NOTFOUND also when it was not what it should be.
static int read_stored(const struct review *review, const struct place *place, const struct kiln_content_ref *ref, int *fd,
                       uint64_t *size, struct kiln_err *err) {
    kiln_autofree char *key = key_at(place, ref, err);
    int rc = key ? kiln_store_get_fd(review->admit->store, place->space, key, &ref->digest, fd, size, err) : KILN_E_NOMEM;
    if (rc != KILN_E_CORRUPT)
        return rc;
    rc = drop_object(review, place, key, err);
    return rc ? rc : KILN_E_NOTFOUND;
}

static int read_pack(const struct review *review, const struct place *place, struct kiln_content_ref *ref, bool verify,
                     struct kiln_err *err) {
    kiln_autofree char *key = key_at(place, ref, err);
    kiln_autofd int fd = -1;
    int rc = key ? kiln_store_open_unchecked(review->admit->store, place->space, key, &fd, err) : KILN_E_NOMEM;
    struct stat st = {0};
    if (!rc && fstat(fd, &st))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot stat a pack");
    if (rc)
        return rc;
    bool claims_other = ref->size && ref->size != (uint64_t)st.st_size;
    if (verify || claims_other)
        rc = kiln_pack_verify(fd, &ref->digest, NULL, err);
    if (rc == KILN_E_CORRUPT || rc == KILN_E_LIMIT) {
        rc = drop_object(review, place, key, err);
        return rc ? rc : KILN_E_NOTFOUND;
    }
    if (!rc && claims_other)
        return kiln_content_deny(ref, "has another size", err);
    if (!rc)
        ref->size = (uint64_t)st.st_size;
    return rc;
}

// An object and its bytes, where it is to be read: 0, KILN_E_NOTFOUND, or an error.
static int look(const struct review *review, const struct place *place, struct kiln_content_ref *ref, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    uint64_t size;
    return ref->kind == KILN_CONTENT_PACK ? read_pack(review, place, ref, review->care == KILN_ADMIT_BYTES, err)
                                          : read_stored(review, place, ref, &fd, &size, err);
}

// A rotten copy is looked at in every place, so that none is left.
static int look_everywhere(const struct review *review, struct item *item, struct kiln_err *err) {
    struct place places[PLACES_MAX];
    size_t count = places_of(review, item->ref->kind, places);
    for (size_t i = 0; i < count && (item->lacks || review->care == KILN_ADMIT_BYTES); i++) {
        int rc = look(review, &places[i], item->ref, err);
        if (rc && rc != KILN_E_NOTFOUND)
            return rc;
        item->lacks &= rc != 0;
    }
    return 0;
}

// Packs in a directory are opened: it tells their size at no cost. Everything else is only asked for.
static bool is_read(const struct review *review, enum kiln_content_kind kind) {
    return review->care == KILN_ADMIT_BYTES || (kind == KILN_CONTENT_PACK && !review->bundled);
}

// What of a kind still lacks is asked for in one place, all at once.
struct question {
    struct item **items;
    char **keys;
    bool *present;
    size_t count;
};

static void release_question(struct question *question) {
    for (size_t i = 0; question->keys && i < question->count; i++)
        free(question->keys[i]);
    free(question->keys);
    free(question->items);
    free(question->present);
}

static int ask(const struct review *review, enum kiln_content_kind kind, const struct place *place, struct kiln_err *err) {
    kiln_auto(release_question) struct question question = {.items = calloc(review->count + 1, sizeof *question.items),
                                                            .keys = calloc(review->count + 1, sizeof *question.keys),
                                                            .present = calloc(review->count + 1, sizeof *question.present)};
    if (!question.items || !question.keys || !question.present)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a content list");
    for (size_t i = 0; i < review->count; i++) {
        struct item *item = &review->items[i];
        if (item->ref->kind != kind || !item->lacks)
            continue;
        question.items[question.count] = item;
        question.keys[question.count++] = key_at(place, item->ref, err);
        if (!question.keys[question.count - 1])
            return KILN_E_NOMEM;
    }
    if (question.count)
        kiln_store_has_many(review->admit->store, place->space, (const char *const *)question.keys, question.count,
                            question.present);
    for (size_t i = 0; i < question.count; i++)
        question.items[i]->lacks = !question.present[i];
    return 0;
}

static int ask_everywhere(const struct review *review, enum kiln_content_kind kind, struct kiln_err *err) {
    struct place places[PLACES_MAX];
    size_t count = places_of(review, kind, places);
    int rc = 0;
    for (size_t i = 0; !rc && i < count; i++)
        rc = ask(review, kind, &places[i], err);
    return rc;
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
        return kiln_content_deny(item->ref, "has another size", err);
    item->needed = true;
    return 0;
}

static int read_list(const struct review *review, struct item *item, struct kiln_tree *tree, struct kiln_err *err) {
    struct place places[PLACES_MAX];
    size_t count = places_of(review, item->ref->kind, places);
    kiln_autofd int fd = -1;
    uint64_t size = 0;
    int rc = KILN_E_NOTFOUND;
    for (size_t i = 0; rc == KILN_E_NOTFOUND && i < count; i++)
        rc = read_stored(review, &places[i], item->ref, &fd, &size, err);
    item->lacks = rc == KILN_E_NOTFOUND;
    if (rc)
        return item->lacks ? 0 : rc;
    if (size != item->ref->size)
        return kiln_content_deny(item->ref, "has another size", err);
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
        item->needed = true;
        int rc = list ? review_list(review, record, item, input->mount, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int find_lacking(struct review *review, struct kiln_err *err) {
    static const enum kiln_content_kind kinds[] = {KILN_CONTENT_BLOB, KILN_CONTENT_PACK};
    int rc = 0;
    for (size_t i = 0; i < review->count; i++)
        review->items[i].lacks |= review->items[i].ref->kind != KILN_CONTENT_LIST;
    for (size_t i = 0; !rc && i < sizeof kinds / sizeof *kinds; i++)
        rc = is_read(review, kinds[i]) ? 0 : ask_everywhere(review, kinds[i], err);
    for (size_t i = 0; !rc && i < review->count; i++) {
        struct item *item = &review->items[i];
        if (item->ref->kind != KILN_CONTENT_LIST && is_read(review, item->ref->kind))
            rc = look_everywhere(review, item, err);
    }
    return rc;
}

static int review_presence(struct review *review, struct kiln_err *err) {
    bool is_public = strcmp(review->admit->scope, KILN_SCOPE_PUBLIC) == 0;
    for (size_t i = 0; i < review->count; i++) {
        const struct item *item = &review->items[i];
        if (!item->needed && (!review->lists_missing || item->ref->kind != KILN_CONTENT_BLOB))
            return kiln_content_deny(item->ref, "is no input of the action", err);
    }
    int rc = find_lacking(review, err);
    for (size_t i = 0; !rc && is_public && i < review->count; i++) {
        char name[KILN_CONTENT_NAME_BYTES];
        const struct item *item = &review->items[i];
        kiln_content_name(item->ref, name);
        if (item->lacks && item->ref->kind == KILN_CONTENT_BLOB)
            rc = kiln_fail(err, KILN_E_DENIED, "scope: %s is not public", name);
    }
    return rc;
}

int kiln_admit_lacking(const struct kiln_admit *admit, struct kiln_job_submitted *record,
                       const struct kiln_action *action, enum kiln_admit_care care, struct kiln_refs *lacking,
                       struct kiln_err *err) {
    kiln_auto(release_review) struct review review = {.admit = admit, .care = care};
    int rc = begin_review(&review, record, err);
    if (!rc)
        rc = review_inputs(&review, record, action, err);
    if (!rc)
        rc = review_presence(&review, err);
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
