#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"

static const char magic[] = "kiln-pack-1"; // with its NUL

#define HEAD_BYTES (sizeof magic + 8)
#define CHUNK_BYTES ((size_t)256 << 10)

static void free_hasher(struct kiln_hasher **hasher) { kiln_hasher_free(*hasher); }

// Sum of all file sizes, or KILN_E_LIMIT.
static int content_bytes(const struct kiln_tree *tree, uint64_t *total, struct kiln_err *err) {
    uint64_t sum = 0;
    for (size_t i = 0; i < tree->count; i++) {
        uint64_t size = tree->entries[i].kind == KILN_TREE_FILE ? tree->entries[i].size : 0;
        if (size > KILN_PACK_CONTENT_MAX - sum)
            return kiln_fail(err, KILN_E_LIMIT, "a pack holds at most %llu bytes of content", KILN_PACK_CONTENT_MAX);
        sum += size;
    }
    *total = sum;
    return 0;
}

// Buffered output: a package is many small files.
struct sink {
    int fd;
    struct kiln_buf pending;
};

static void sink_release(struct sink *sink) { kiln_buf_release(&sink->pending); }

static int sink_flush(struct sink *sink, struct kiln_err *err) {
    int rc = kiln_fs_write_all(sink->fd, sink->pending.data, sink->pending.len, err);
    kiln_buf_reset(&sink->pending);
    return rc;
}

static int changed(struct kiln_err *err, const char *path) {
    int rc = kiln_fail(err, KILN_E_CORRUPT, "file \"%s\" changed while it was packed", path);
    if (err)
        err->retriable = true;
    return rc;
}

static int open_member(int dirfd, const struct kiln_tree_entry *entry, int *out, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    struct kiln_err why;
    int rc = kiln_fs_open_beneath(dirfd, entry->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, &fd, &why);
    if (rc == KILN_E_NOTFOUND || (rc && why.sys_errno == ELOOP))
        return changed(err, entry->path);
    if (rc) {
        if (err)
            *err = why;
        return rc;
    }
    struct stat st;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat \"%s\"", entry->path);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != entry->size)
        return changed(err, entry->path);
    *out = kiln_steal_fd(&fd);
    return 0;
}

// Reads straight into the pending buffer, whose room is what is left of one chunk.
static int copy_member(int fd, const struct kiln_tree_entry *entry, struct kiln_hasher *hasher, struct sink *sink,
                       struct kiln_err *err) {
    uint64_t left = entry->size;
    while (left > 0) {
        if (sink->pending.len == CHUNK_BYTES) {
            int rc = sink_flush(sink, err);
            if (rc)
                return rc;
        }
        size_t room = CHUNK_BYTES - sink->pending.len;
        size_t want = left < room ? (size_t)left : room;
        unsigned char *at = sink->pending.data + sink->pending.len;
        ssize_t got = read(fd, at, want);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read \"%s\"", entry->path);
        if (got == 0)
            return changed(err, entry->path);
        kiln_hasher_update(hasher, at, (size_t)got);
        sink->pending.len += (size_t)got;
        left -= (uint64_t)got;
    }
    return 0;
}

static int write_member(const struct kiln_tree_entry *entry, int dirfd, struct kiln_hasher *hasher, struct sink *sink,
                        struct kiln_err *err) {
    kiln_autofd int fd = -1;
    int rc = open_member(dirfd, entry, &fd, err);
    if (rc)
        return rc;
    rc = copy_member(fd, entry, hasher, sink, err);
    struct kiln_digest found;
    kiln_hasher_finish(hasher, &found);
    if (!rc && !kiln_digest_equal(&found, &entry->digest))
        rc = changed(err, entry->path);
    return rc;
}

static int write_head(const struct kiln_tree *tree, int out_fd, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    int rc = kiln_tree_encode(tree, &encoding, err);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf head = KILN_BUF_INIT(HEAD_BYTES);
    kiln_buf_add(&head, magic, sizeof magic);
    kiln_buf_add_be64(&head, encoding.len);
    rc = kiln_buf_check(&head, "a pack head", err);
    if (!rc)
        rc = kiln_fs_write_all(out_fd, head.data, head.len, err);
    return rc ? rc : kiln_fs_write_all(out_fd, encoding.data, encoding.len, err);
}

int kiln_pack_write(const struct kiln_tree *tree, int dirfd, int out_fd, struct kiln_err *err) {
    uint64_t total;
    int rc = content_bytes(tree, &total, err);
    if (rc)
        return rc;
    kiln_auto(sink_release) struct sink sink = {.fd = out_fd, .pending = KILN_BUF_INIT(CHUNK_BYTES)};
    kiln_auto(free_hasher) struct kiln_hasher *hasher = kiln_hasher_new();
    if (!hasher || kiln_buf_reserve(&sink.pending, CHUNK_BYTES))
        return kiln_fail(err, KILN_E_NOMEM, "no memory to write a pack");
    rc = write_head(tree, out_fd, err);
    for (size_t i = 0; !rc && i < tree->count; i++) {
        if (tree->entries[i].kind == KILN_TREE_FILE)
            rc = write_member(&tree->entries[i], dirfd, hasher, &sink, err);
    }
    return rc ? rc : sink_flush(&sink, err);
}

// Buffered input from the start of a file, its offset left alone.
struct source {
    int fd;
    uint64_t offset;
    unsigned char *chunk;
    size_t at, len;
};

// Borrows up to `want` of the next bytes; *got = 0 at the end of the file.
static int source_next(struct source *source, uint64_t want, const unsigned char **bytes, size_t *got,
                       struct kiln_err *err) {
    while (source->at == source->len) {
        ssize_t n = pread(source->fd, source->chunk, CHUNK_BYTES, (off_t)source->offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read a pack");
        if (n == 0) {
            *got = 0;
            return 0;
        }
        source->offset += (uint64_t)n;
        source->at = 0;
        source->len = (size_t)n;
    }
    size_t have = source->len - source->at;
    *got = want < have ? (size_t)want : have;
    *bytes = source->chunk + source->at;
    source->at += *got;
    return 0;
}

static int source_read(struct source *source, struct kiln_buf *out, uint64_t count, struct kiln_err *err) {
    while (count > 0) {
        const unsigned char *bytes;
        size_t got;
        int rc = source_next(source, count, &bytes, &got, err);
        if (rc)
            return rc;
        if (got == 0)
            return kiln_fail(err, KILN_E_CORRUPT, "a pack ends too early");
        if (kiln_buf_add(out, bytes, got))
            return kiln_fail(err, KILN_E_NOMEM, "no memory to read a pack");
        count -= got;
    }
    return 0;
}

static int read_tree(struct source *source, const struct kiln_digest *expected, struct kiln_tree *tree,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    int rc = source_read(source, &bytes, HEAD_BYTES, err);
    if (rc)
        return rc;
    struct kiln_reader reader = KILN_READER_INIT(bytes.data, bytes.len);
    if (memcmp(kiln_read_bytes(&reader, sizeof magic), magic, sizeof magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a pack");
    uint64_t length = kiln_read_be64(&reader);
    if (length > KILN_TREE_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "the tree of a pack is larger than %u bytes", KILN_TREE_BYTES_MAX);
    kiln_buf_reset(&bytes);
    rc = source_read(source, &bytes, length, err);
    if (rc)
        return rc;
    struct kiln_digest found;
    kiln_digest_of(bytes.data, bytes.len, &found);
    if (!kiln_digest_equal(&found, expected))
        return kiln_fail(err, KILN_E_CORRUPT, "a pack holds another tree than its name says");
    return kiln_tree_decode(bytes.data, bytes.len, tree, err);
}

// Reads one member, checks it, and writes it to out_fd when that is not negative.
static int read_member(struct source *source, const struct kiln_tree_entry *entry, struct kiln_hasher *hasher,
                       int out_fd, struct kiln_err *err) {
    int rc = 0;
    for (uint64_t left = entry->size; !rc && left > 0;) {
        const unsigned char *bytes;
        size_t got;
        rc = source_next(source, left, &bytes, &got, err);
        if (rc)
            break;
        if (got == 0)
            rc = kiln_fail(err, KILN_E_CORRUPT, "a pack ends within \"%s\"", entry->path);
        kiln_hasher_update(hasher, bytes, got);
        if (!rc && out_fd >= 0)
            rc = kiln_fs_write_all(out_fd, bytes, got, err);
        left -= got;
    }
    struct kiln_digest found;
    kiln_hasher_finish(hasher, &found);
    if (!rc && !kiln_digest_equal(&found, &entry->digest))
        rc = kiln_fail(err, KILN_E_CORRUPT, "file \"%s\" of a pack does not match its digest", entry->path);
    return rc;
}

// Every parent was made here, in a directory that was empty and that nobody else writes, so no component is a link.
static int unpack_entry(struct source *source, const struct kiln_tree_entry *entry, struct kiln_hasher *hasher,
                        int dirfd, struct kiln_err *err) {
    if (entry->kind == KILN_TREE_DIR) {
        if (mkdirat(dirfd, entry->path, 0755) || fchmodat(dirfd, entry->path, 0755, 0))
            return kiln_fail_errno(err, KILN_E_IO, "cannot make directory \"%s\"", entry->path);
        return 0;
    }
    if (entry->kind == KILN_TREE_LINK) {
        if (symlinkat(entry->target, dirfd, entry->path))
            return kiln_fail_errno(err, KILN_E_IO, "cannot make link \"%s\"", entry->path);
        return 0;
    }
    if (entry->kind == KILN_TREE_WITHHELD)
        return 0;
    kiln_autofd int fd = openat(dirfd, entry->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot make file \"%s\"", entry->path);
    int rc = read_member(source, entry, hasher, fd, err);
    if (!rc && fchmod(fd, entry->executable ? 0755 : 0644))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot set the mode of \"%s\"", entry->path);
    return rc;
}

// Walks a whole pack; unpacks into dirfd when that is not negative.
static int walk(struct source *source, const struct kiln_digest *expected, struct kiln_hasher *hasher, int dirfd,
                struct kiln_tree *tree, struct kiln_err *err) {
    uint64_t total;
    int rc = read_tree(source, expected, tree, err);
    if (!rc)
        rc = content_bytes(tree, &total, err);
    for (size_t i = 0; !rc && i < tree->count; i++) {
        const struct kiln_tree_entry *entry = &tree->entries[i];
        if (dirfd >= 0)
            rc = unpack_entry(source, entry, hasher, dirfd, err);
        else if (entry->kind == KILN_TREE_FILE)
            rc = read_member(source, entry, hasher, -1, err);
    }
    if (rc)
        return rc;
    const unsigned char *bytes;
    size_t got;
    rc = source_next(source, 1, &bytes, &got, err);
    if (!rc && got)
        rc = kiln_fail(err, KILN_E_CORRUPT, "bytes after the end of a pack");
    return rc;
}

static int walk_fd(int fd, const struct kiln_digest *expected, int dirfd, struct kiln_tree *tree,
                   struct kiln_err *err) {
    kiln_autofree unsigned char *chunk = malloc(CHUNK_BYTES);
    kiln_auto(free_hasher) struct kiln_hasher *hasher = kiln_hasher_new();
    if (!chunk || !hasher)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a pack");
    struct source source = {.fd = fd, .chunk = chunk};
    return walk(&source, expected, hasher, dirfd, tree, err);
}

int kiln_pack_verify(int fd, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autotree struct kiln_tree found = {0};
    int rc = walk_fd(fd, expected, -1, &found, err);
    if (rc || !tree)
        return rc;
    *tree = found;
    found = (struct kiln_tree){0};
    return 0;
}

int kiln_pack_read_tree(int fd, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autofree unsigned char *chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a pack");
    struct source source = {.fd = fd, .chunk = chunk};
    return read_tree(&source, expected, tree, err);
}

// Deepest first: what is made below a directory touches it.
int kiln_tree_set_times(const struct kiln_tree *tree, int dirfd, struct kiln_err *err) {
    const struct timespec times[2] = {{.tv_sec = KILN_PACK_MTIME_S}, {.tv_sec = KILN_PACK_MTIME_S}};
    for (size_t i = tree->count; i-- > 0;)
        if (tree->entries[i].kind != KILN_TREE_WITHHELD &&
            utimensat(dirfd, tree->entries[i].path, times, AT_SYMLINK_NOFOLLOW))
            return kiln_fail_errno(err, KILN_E_IO, "cannot set the time of \"%s\"", tree->entries[i].path);
    return futimens(dirfd, times) ? kiln_fail_errno(err, KILN_E_IO, "cannot set the time of a tree") : 0;
}

int kiln_pack_unpack(int fd, const struct kiln_digest *expected, int dirfd, struct kiln_err *err) {
    if (dirfd < 0)
        return kiln_fail(err, KILN_E_INVAL, "no directory to unpack into");
    kiln_autotree struct kiln_tree tree = {0};
    int rc = walk_fd(fd, expected, dirfd, &tree, err);
    return rc ? rc : kiln_tree_set_times(&tree, dirfd, err);
}
