#include "lib/blob/bundle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/blob/scratch.h"

static const char magic[] = "kiln-bundle-1"; // with its NUL

#define HEAD_BYTES (sizeof magic + 4)
#define MEMBER_BYTES (32 + 8 + 8)
#define LEVEL 3
#define WINDOW_LOG_MAX 23 // 8 MiB; level 3 uses 2 MiB
#define CHUNK_BYTES ((size_t)128 << 10)
#define FRAME_BYTES 32 // header, empty last block and checksum of a frame that is written in pieces

struct member {
    struct kiln_digest digest;
    uint64_t size, stored;
};

static void free_hasher(struct kiln_hasher **hasher) { kiln_hasher_free(*hasher); }
static void free_writer(ZSTD_CCtx **context) { ZSTD_freeCCtx(*context); }
static void free_reader(ZSTD_DCtx **context) { ZSTD_freeDCtx(*context); }

static int read_some(int fd, void *data, size_t want, uint64_t offset, size_t *got, struct kiln_err *err) {
    ssize_t n;
    do
        n = pread(fd, data, want, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot read a member of a bundle");
    *got = (size_t)n;
    return 0;
}

struct writer {
    ZSTD_CCtx *zstd;
    struct kiln_hasher *hasher;
    unsigned char *in, *out;
    int fd;
};

// Compresses what is given and, with `last`, ends the frame.
static int write_chunk(struct writer *writer, size_t len, bool last, uint64_t *stored, struct kiln_err *err) {
    ZSTD_inBuffer in = {writer->in, len, 0};
    for (;;) {
        ZSTD_outBuffer out = {writer->out, CHUNK_BYTES, 0};
        size_t left = ZSTD_compressStream2(writer->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return kiln_fail(err, KILN_E_INTERNAL, "zstd: %s", ZSTD_getErrorName(left));
        int rc = kiln_fs_write_all(writer->fd, writer->out, out.pos, err);
        if (rc)
            return rc;
        *stored += out.pos;
        if (last ? left == 0 : in.pos == in.size)
            return 0;
    }
}

static int write_member(struct writer *writer, const struct kiln_bundle_member *member, uint64_t *stored, struct kiln_err *err) {
    struct kiln_digest found;
    uint64_t offset = 0;
    int rc = 0;
    *stored = 0;
    ZSTD_CCtx_reset(writer->zstd, ZSTD_reset_session_only);
    ZSTD_CCtx_setPledgedSrcSize(writer->zstd, member->size);
    do {
        size_t want = member->size - offset < CHUNK_BYTES ? (size_t)(member->size - offset) : CHUNK_BYTES, got = 0;
        if (want)
            rc = read_some(member->fd, writer->in, want, offset, &got, err);
        if (!rc && want && !got)
            rc = kiln_fail(err, KILN_E_CORRUPT, "a member of a bundle is shorter than its size");
        if (rc)
            break;
        offset += got;
        kiln_hasher_update(writer->hasher, writer->in, got);
        rc = write_chunk(writer, got, offset == member->size, stored, err);
    } while (!rc && offset < member->size);
    kiln_hasher_finish(writer->hasher, &found);
    if (!rc && !kiln_digest_equal(&found, &member->digest))
        rc = kiln_fail(err, KILN_E_CORRUPT, "a member of a bundle does not have its digest");
    return rc;
}

// Indexes of the members to store: of equal digests the first.
static size_t choose(const struct kiln_bundle_member *members, size_t count, size_t *chosen) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool seen = false;
        for (size_t j = 0; j < kept && !seen; j++)
            seen = kiln_digest_equal(&members[chosen[j]].digest, &members[i].digest);
        if (!seen)
            chosen[kept++] = i;
    }
    return kept;
}

static int write_bundle(struct writer *writer, const struct kiln_bundle_member *members, const size_t *chosen, size_t kept,
                        struct kiln_err *err) {
    kiln_autobuf struct kiln_buf head = KILN_BUF_INIT(HEAD_BYTES + KILN_BUNDLE_MEMBERS_MAX * MEMBER_BYTES);
    off_t start = (off_t)(HEAD_BYTES + kept * MEMBER_BYTES);
    if (ftruncate(writer->fd, 0) || lseek(writer->fd, start, SEEK_SET) != start)
        return kiln_fail_errno(err, KILN_E_IO, "cannot write a bundle");
    kiln_buf_add(&head, magic, sizeof magic);
    kiln_buf_add_be32(&head, (uint32_t)kept);
    for (size_t i = 0; i < kept; i++) {
        const struct kiln_bundle_member *member = &members[chosen[i]];
        uint64_t stored;
        int rc = write_member(writer, member, &stored, err);
        if (rc)
            return rc;
        kiln_buf_add(&head, member->digest.bytes, sizeof member->digest.bytes);
        kiln_buf_add_be64(&head, member->size);
        kiln_buf_add_be64(&head, stored);
    }
    int rc = kiln_buf_check(&head, "the head of a bundle", err);
    if (!rc && lseek(writer->fd, 0, SEEK_SET))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot write a bundle");
    return rc ? rc : kiln_fs_write_all(writer->fd, head.data, head.len, err);
}

int kiln_bundle_write(const struct kiln_bundle_member *members, size_t count, int out_fd, struct kiln_digest *digest,
                      uint64_t *size, struct kiln_err *err) {
    if (count > KILN_BUNDLE_MEMBERS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a bundle has at most %u members", KILN_BUNDLE_MEMBERS_MAX);
    kiln_auto(free_writer) ZSTD_CCtx *zstd = ZSTD_createCCtx();
    kiln_auto(free_hasher) struct kiln_hasher *hasher = kiln_hasher_new();
    kiln_autofree unsigned char *in = malloc(CHUNK_BYTES), *out = malloc(CHUNK_BYTES);
    kiln_autofree size_t *chosen = calloc(count + 1, sizeof *chosen);
    if (!zstd || !hasher || !in || !out || !chosen)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to write a bundle");
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, LEVEL);
    struct writer writer = {.zstd = zstd, .hasher = hasher, .in = in, .out = out, .fd = out_fd};
    int rc = write_bundle(&writer, members, chosen, choose(members, count, chosen), err);
    return rc ? rc : kiln_digest_of_fd(out_fd, UINT64_MAX, digest, size, err);
}

static int corrupt(struct kiln_err *err, const char *why) { return kiln_fail(err, KILN_E_CORRUPT, "a bundle %s", why); }

static int by_digest(const void *a, const void *b) {
    return kiln_digest_compare(&(*(const struct member *const *)a)->digest, &(*(const struct member *const *)b)->digest);
}

static int output_by_digest(const void *a, const void *b) {
    return kiln_digest_compare(&(*(const struct kiln_output *const *)a)->digest, &(*(const struct kiln_output *const *)b)->digest);
}

// The members are exactly the result's outputs, each once, of its size and of no more bytes than a compressor makes of that:
// before a byte of content is looked at.
static int match(const struct member *members, size_t count, const struct kiln_result *result, struct kiln_err *err) {
    kiln_autofree const struct member **have = calloc(count + 1, sizeof *have);
    kiln_autofree const struct kiln_output **want = calloc(result->outputs_count + 1, sizeof *want);
    if (!have || !want)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a bundle");
    for (size_t i = 0; i < count; i++)
        have[i] = &members[i];
    for (size_t i = 0; i < result->outputs_count; i++)
        want[i] = &result->outputs[i];
    qsort(have, count, sizeof *have, by_digest);
    qsort(want, result->outputs_count, sizeof *want, output_by_digest);
    size_t at = 0;
    for (size_t i = 0; i < result->outputs_count; i++) {
        if (i > 0 && kiln_digest_equal(&want[i]->digest, &want[i - 1]->digest)) {
            if (want[i]->size != want[i - 1]->size)
                return corrupt(err, "is of a result with two sizes for one digest");
            continue;
        }
        if (at == count || !kiln_digest_equal(&have[at]->digest, &want[i]->digest))
            return corrupt(err, "holds other members than its result");
        if (have[at]->size != want[i]->size)
            return corrupt(err, "holds a member of another size");
        if (have[at]->size > SIZE_MAX / 2 || have[at]->stored > ZSTD_compressBound((size_t)have[at]->size) + FRAME_BYTES)
            return corrupt(err, "stores a member in more bytes than it has");
        at++;
    }
    return at == count ? 0 : corrupt(err, "holds more members than its result");
}

struct reader {
    ZSTD_DCtx *zstd;
    struct kiln_hasher *hasher;
    unsigned char *in, *out;
    int fd, scratch_dir;
};

static int take_output(const struct reader *reader, const struct member *member, const ZSTD_outBuffer *out, uint64_t *written, int to,
                       struct kiln_err *err) {
    if (out->pos > member->size - *written)
        return corrupt(err, "holds a member that is longer than its size");
    kiln_hasher_update(reader->hasher, reader->out, out->pos);
    *written += out->pos;
    return kiln_fs_write_all(to, reader->out, out->pos, err);
}

// One frame, exactly the stored bytes, exactly the size.
static int unpack(const struct reader *reader, const struct member *member, uint64_t offset, int to, struct kiln_err *err) {
    uint64_t consumed = 0, written = 0;
    size_t more = 1;
    ZSTD_DCtx_reset(reader->zstd, ZSTD_reset_session_only);
    while (consumed < member->stored) {
        size_t want = member->stored - consumed < CHUNK_BYTES ? (size_t)(member->stored - consumed) : CHUNK_BYTES, got = 0;
        int rc = read_some(reader->fd, reader->in, want, offset + consumed, &got, err);
        if (rc)
            return rc;
        if (got == 0)
            return corrupt(err, "is cut");
        consumed += got;
        ZSTD_inBuffer in = {reader->in, got, 0};
        for (bool full = true; more && (in.pos < in.size || full);) { // full: the decoder may hold more back
            ZSTD_outBuffer out = {reader->out, CHUNK_BYTES, 0};
            more = ZSTD_decompressStream(reader->zstd, &out, &in);
            if (ZSTD_isError(more))
                return corrupt(err, ZSTD_getErrorName(more));
            if ((rc = take_output(reader, member, &out, &written, to, err)))
                return rc;
            full = out.pos == out.size;
        }
        if (more == 0 && (in.pos < in.size || consumed < member->stored))
            return corrupt(err, "holds more than one frame for a member");
    }
    return more == 0 && written == member->size ? 0 : corrupt(err, "holds a member that is shorter than its size");
}

static int give_member(const struct reader *reader, const struct member *member, uint64_t offset,
                       int (*visit)(void *context, const struct kiln_digest *digest, uint64_t size, int fd), void *context,
                       struct kiln_err *err) {
    kiln_autofd int fd = -1;
    struct kiln_digest found;
    int rc = kiln_scratch_file(reader->scratch_dir, member->size, &fd, err);
    if (rc)
        return rc;
    rc = unpack(reader, member, offset, fd, err);
    kiln_hasher_finish(reader->hasher, &found);
    if (!rc && !kiln_digest_equal(&found, &member->digest))
        rc = corrupt(err, "holds a member that does not have its digest");
    if (!rc)
        rc = kiln_scratch_seal(&fd, err);
    return rc ? rc : visit(context, &member->digest, member->size, kiln_steal_fd(&fd));
}

static int read_exact(int fd, struct kiln_buf *bytes, size_t count, struct kiln_err *err) {
    if (kiln_buf_reserve(bytes, count))
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a bundle");
    while (bytes->len < count) {
        size_t got = 0;
        int rc = read_some(fd, bytes->data + bytes->len, count - bytes->len, bytes->len, &got, err);
        if (rc)
            return rc;
        if (got == 0)
            return corrupt(err, "is cut");
        bytes->len += got;
    }
    return 0;
}

// The head, whose announced bytes are exactly those of the file.
static int read_head(int fd, struct member **members, size_t *count, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(HEAD_BYTES + KILN_BUNDLE_MEMBERS_MAX * MEMBER_BYTES);
    struct stat st;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat a bundle");
    int rc = read_exact(fd, &bytes, HEAD_BYTES, err);
    if (rc)
        return rc;
    struct kiln_reader reader = KILN_READER_INIT(bytes.data, bytes.len);
    if (memcmp(kiln_read_bytes(&reader, sizeof magic), magic, sizeof magic) != 0)
        return corrupt(err, "does not begin like one");
    size_t announced = kiln_read_be32(&reader);
    if (announced > KILN_BUNDLE_MEMBERS_MAX)
        return kiln_fail(err, KILN_E_CORRUPT, "a bundle has at most %u members", KILN_BUNDLE_MEMBERS_MAX);
    if ((rc = read_exact(fd, &bytes, HEAD_BYTES + announced * MEMBER_BYTES, err)))
        return rc;
    kiln_autofree struct member *found = calloc(announced + 1, sizeof *found);
    if (!found)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a bundle");
    reader = KILN_READER_INIT(bytes.data + HEAD_BYTES, announced * MEMBER_BYTES);
    uint64_t left = (uint64_t)st.st_size - bytes.len;
    for (size_t i = 0; i < announced; i++) {
        memcpy(found[i].digest.bytes, kiln_read_bytes(&reader, 32), 32);
        found[i].size = kiln_read_be64(&reader);
        found[i].stored = kiln_read_be64(&reader);
        if (found[i].stored > left)
            return corrupt(err, "is cut");
        left -= found[i].stored;
    }
    if (left)
        return corrupt(err, "has bytes after its end");
    *members = KILN_STEAL(found);
    *count = announced;
    return 0;
}

int kiln_bundle_read(int fd, const struct kiln_result *result, int scratch_dir,
                     int (*visit)(void *context, const struct kiln_digest *digest, uint64_t size, int fd), void *context,
                     struct kiln_err *err) {
    kiln_autofree struct member *members = NULL;
    size_t count = 0;
    int rc = read_head(fd, &members, &count, err);
    if (rc == 0)
        rc = match(members, count, result, err);
    if (rc)
        return rc;
    kiln_auto(free_reader) ZSTD_DCtx *zstd = ZSTD_createDCtx();
    kiln_auto(free_hasher) struct kiln_hasher *hasher = kiln_hasher_new();
    kiln_autofree unsigned char *in = malloc(CHUNK_BYTES), *out = malloc(CHUNK_BYTES);
    if (!zstd || !hasher || !in || !out)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read a bundle");
    ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    struct reader reader = {.zstd = zstd, .hasher = hasher, .in = in, .out = out, .fd = fd, .scratch_dir = scratch_dir};
    uint64_t offset = HEAD_BYTES + count * MEMBER_BYTES;
    for (size_t i = 0; !rc && i < count; i++) {
        rc = give_member(&reader, &members[i], offset, visit, context, err);
        offset += members[i].stored;
    }
    return rc;
}
