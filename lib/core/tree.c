#include "lib/core/tree.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

static const char magic[] = "kiln-tree-1"; // with its NUL

#define ENTRY_BYTES_MIN 6u // kind, path length, one byte of path

static void release_entry(struct kiln_tree_entry *entry) {
    free(entry->path);
    free(entry->target);
}

void kiln_tree_release(struct kiln_tree *tree) {
    for (size_t i = 0; i < tree->count; i++)
        release_entry(&tree->entries[i]);
    free(tree->entries);
    *tree = (struct kiln_tree){0};
}

static int reserve(struct kiln_tree *tree, size_t count, struct kiln_err *err) {
    if (count > KILN_TREE_ENTRIES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a tree has at most %u entries", KILN_TREE_ENTRIES_MAX);
    if (count <= tree->cap)
        return 0;
    size_t cap = tree->cap ? tree->cap * 2 : 16;
    if (cap < count)
        cap = count;
    struct kiln_tree_entry *entries = reallocarray(tree->entries, cap, sizeof *entries);
    if (!entries)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for %zu tree entries", cap);
    tree->entries = entries;
    tree->cap = cap;
    return 0;
}

// Takes ownership of entry->path and entry->target, also on failure. A NULL path means that copying it failed.
static int append(struct kiln_tree *tree, struct kiln_tree_entry *entry, struct kiln_err *err) {
    int rc = entry->path ? reserve(tree, tree->count + 1, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    if (rc) {
        release_entry(entry);
        return rc;
    }
    tree->entries[tree->count++] = *entry;
    return 0;
}

int kiln_tree_add_dir(struct kiln_tree *tree, const char *path, struct kiln_err *err) {
    return append(tree, &(struct kiln_tree_entry){.path = strdup(path), .kind = KILN_TREE_DIR}, err);
}

int kiln_tree_add_file(struct kiln_tree *tree, const char *path, bool executable, uint64_t size,
                       const struct kiln_digest *digest, struct kiln_err *err) {
    struct kiln_tree_entry entry = {
        .path = strdup(path), .kind = KILN_TREE_FILE, .executable = executable, .size = size, .digest = *digest};
    return append(tree, &entry, err);
}

int kiln_tree_add_link(struct kiln_tree *tree, const char *path, const char *target, struct kiln_err *err) {
    struct kiln_tree_entry entry = {.path = strdup(path), .kind = KILN_TREE_LINK, .target = strdup(target)};
    if (!entry.target) {
        free(entry.path);
        entry.path = NULL;
    }
    return append(tree, &entry, err);
}

int kiln_tree_add_withheld(struct kiln_tree *tree, const char *path, struct kiln_err *err) {
    return append(tree, &(struct kiln_tree_entry){.path = strdup(path), .kind = KILN_TREE_WITHHELD}, err);
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct kiln_tree_entry *)a)->path, ((const struct kiln_tree_entry *)b)->path);
}

// Compares the `len` first bytes of `path` as a whole path with an entry's.
static int compare_prefix(const char *path, size_t len, const char *entry_path) {
    int order = strncmp(path, entry_path, len);
    return order ? order : -(int)(unsigned char)entry_path[len];
}

static const struct kiln_tree_entry *find_prefix(const struct kiln_tree_entry *entries, size_t count, const char *path,
                                                 size_t len) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_prefix(path, len, entries[middle].path);
        if (order == 0)
            return &entries[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct kiln_tree_entry *kiln_tree_find(const struct kiln_tree *tree, const char *path) {
    return find_prefix(tree->entries, tree->count, path, strlen(path));
}

// In byte order all entries below one directory follow each other; so when the one before lies in directory
// path[0..len) too, that directory has been dealt with.
static bool shares_directory(const struct kiln_tree_entry *entries, size_t index, const char *path, size_t len) {
    if (index == 0)
        return false;
    const char *before = entries[index - 1].path;
    return strncmp(before, path, len) == 0 && before[len] == '/';
}

static int add_missing_parents(struct kiln_tree *tree, struct kiln_err *err) {
    size_t given = tree->count;
    for (size_t i = 0; i < given; i++) {
        for (size_t len = 0; tree->entries[i].path[len]; len++) {
            const char *path = tree->entries[i].path;
            if (path[len] != '/' || shares_directory(tree->entries, i, path, len) ||
                find_prefix(tree->entries, given, path, len))
                continue;
            int rc = append(tree, &(struct kiln_tree_entry){.path = strndup(path, len), .kind = KILN_TREE_DIR}, err);
            if (rc)
                return rc;
        }
    }
    if (tree->count > given)
        qsort(tree->entries, tree->count, sizeof *tree->entries, by_path);
    return 0;
}

static int check_parent(const struct kiln_tree *tree, size_t index, struct kiln_err *err) {
    const char *path = tree->entries[index].path;
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    size_t len = (size_t)(slash - path);
    if (shares_directory(tree->entries, index, path, len))
        return 0; // checked with the entry before, or one above that
    const struct kiln_tree_entry *parent = find_prefix(tree->entries, index, path, len);
    if (!parent)
        return kiln_fail(err, KILN_E_INVAL, "tree entry \"%s\" has no directory entry above it", path);
    if (parent->kind != KILN_TREE_DIR)
        return kiln_fail(err, KILN_E_INVAL, "tree entry \"%s\" lies below one that is no directory", path);
    return 0;
}

// The target is any number of "../" that the link's own depth allows, then a canonical path; or only "..", "../..".
// What lies below a link is no entry, so the link's directory is a real one and textual resolution is exact.
static int check_target(const struct kiln_tree_entry *entry, struct kiln_err *err) {
    size_t depth = 0;
    for (const char *c = entry->path; *c; c++)
        depth += *c == '/';
    const char *rest = entry->target;
    size_t up = 0;
    while (strncmp(rest, "../", 3) == 0) {
        rest += 3;
        up++;
    }
    if (strcmp(rest, "..") == 0) {
        rest = NULL;
        up++;
    }
    if (up > depth)
        return kiln_fail(err, KILN_E_INVAL, "link \"%s\" leads out of the tree", entry->path);
    if (strlen(entry->target) > KILN_PATH_MAX)
        return kiln_fail(err, KILN_E_INVAL, "the target of link \"%s\" is too long", entry->path);
    int rc = rest ? kiln_path_check_relative(rest, err) : 0;
    return rc ? kiln_wrap(err, KILN_E_INVAL, "the target of link \"%s\"", entry->path) : 0;
}

static int check_entry(const struct kiln_tree *tree, size_t index, struct kiln_err *err) {
    const struct kiln_tree_entry *entry = &tree->entries[index];
    int rc = kiln_path_check_relative(entry->path, err);
    if (rc)
        return kiln_wrap(err, KILN_E_INVAL, "tree entry %zu", index);
    if (index > 0) {
        int order = strcmp(tree->entries[index - 1].path, entry->path);
        if (order >= 0)
            return kiln_fail(err, KILN_E_INVAL, "tree entry \"%s\" %s", entry->path,
                             order ? "is out of order" : "is there twice");
    }
    rc = check_parent(tree, index, err);
    if (!rc && entry->kind == KILN_TREE_LINK)
        rc = check_target(entry, err);
    return rc;
}

static int check_entries(const struct kiln_tree *tree, struct kiln_err *err) {
    for (size_t i = 0; i < tree->count; i++) {
        int rc = check_entry(tree, i, err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_tree_finish(struct kiln_tree *tree, struct kiln_err *err) {
    if (tree->count)
        qsort(tree->entries, tree->count, sizeof *tree->entries, by_path);
    // Paths first: a path that is no canonical one has no parents to add.
    for (size_t i = 0; i < tree->count; i++) {
        if (kiln_path_check_relative(tree->entries[i].path, err))
            return kiln_wrap(err, KILN_E_INVAL, "tree entry");
    }
    int rc = add_missing_parents(tree, err);
    return rc ? rc : check_entries(tree, err);
}

static void encode_entry(const struct kiln_tree_entry *entry, struct kiln_buf *out) {
    kiln_buf_add_u8(out, (uint8_t)entry->kind);
    kiln_buf_add_field_str(out, entry->path);
    if (entry->kind == KILN_TREE_FILE) {
        kiln_buf_add_u8(out, entry->executable);
        kiln_buf_add_be64(out, entry->size);
        kiln_buf_add(out, entry->digest.bytes, sizeof entry->digest.bytes);
    } else if (entry->kind == KILN_TREE_LINK) {
        kiln_buf_add_field_str(out, entry->target);
    }
}

int kiln_tree_encode(const struct kiln_tree *tree, struct kiln_buf *out, struct kiln_err *err) {
    size_t start = out->len;
    kiln_buf_add(out, magic, sizeof magic);
    kiln_buf_add_be32(out, (uint32_t)tree->count);
    for (size_t i = 0; i < tree->count; i++)
        encode_entry(&tree->entries[i], out);
    int rc = kiln_buf_check(out, "a tree encoding", err);
    if (!rc && out->len - start > KILN_TREE_BYTES_MAX)
        rc = kiln_fail(err, KILN_E_LIMIT, "a tree encoding is larger than %u bytes", KILN_TREE_BYTES_MAX);
    return rc;
}

static bool decode_entry(struct kiln_reader *reader, struct kiln_tree_entry *entry) {
    uint8_t kind = kiln_read_u8(reader);
    if (kind < KILN_TREE_DIR || kind > KILN_TREE_WITHHELD)
        return false;
    *entry = (struct kiln_tree_entry){.kind = kind, .path = kiln_read_field_text(reader, KILN_PATH_MAX)};
    if (kind == KILN_TREE_FILE) {
        uint8_t executable = kiln_read_u8(reader);
        entry->executable = executable;
        entry->size = kiln_read_be64(reader);
        const unsigned char *digest = kiln_read_bytes(reader, sizeof entry->digest.bytes);
        if (executable > 1 || !digest)
            return false;
        memcpy(entry->digest.bytes, digest, sizeof entry->digest.bytes);
    } else if (kind == KILN_TREE_LINK) {
        entry->target = kiln_read_field_text(reader, KILN_PATH_MAX);
    }
    return !reader->failed;
}

int kiln_tree_decode(const void *data, size_t len, struct kiln_tree *tree, struct kiln_err *err) {
    if (len > KILN_TREE_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a tree encoding is larger than %u bytes", KILN_TREE_BYTES_MAX);
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof magic);
    uint32_t count = kiln_read_be32(&reader);
    if (reader.failed || memcmp(head, magic, sizeof magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a tree encoding");
    if (count > (len - reader.at) / ENTRY_BYTES_MIN)
        return kiln_fail(err, KILN_E_CORRUPT, "a tree encoding is too short for its %u entries", count);
    kiln_autotree struct kiln_tree decoded = {0};
    int rc = reserve(&decoded, count, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < count; i++) {
        decoded.count = i + 1;
        decoded.entries[i] = (struct kiln_tree_entry){0};
        if (!decode_entry(&reader, &decoded.entries[i]))
            return kiln_fail(err, KILN_E_CORRUPT, "tree entry %u is malformed", i);
    }
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "bytes after the last tree entry");
    if (check_entries(&decoded, err))
        return kiln_wrap(err, KILN_E_CORRUPT, "tree encoding");
    *tree = decoded;
    decoded = (struct kiln_tree){0};
    return 0;
}

int kiln_tree_digest(const struct kiln_tree *tree, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    int rc = kiln_tree_encode(tree, &encoding, err);
    if (!rc)
        kiln_digest_of(encoding.data, encoding.len, digest);
    return rc;
}
