#include "lib/core/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define CHUNK_BYTES ((size_t)64 << 10)

struct kiln_hasher {
    EVP_MD_CTX *context;
};

// OpenSSL 3 looks an algorithm up by name on each use of EVP_sha256(), which costs more than hashing a small input.
// So it is fetched once for the process, and each thread keeps one hasher for one-shot digests.
static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;
static pthread_key_t thread_hasher_key;

static void free_thread_hasher(void *hasher) { kiln_hasher_free(hasher); }

static void fetch(void) {
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256 || pthread_key_create(&thread_hasher_key, free_thread_hasher))
        abort(); // no identity without SHA-256: nothing that Kiln does would be safe
}

// Initialising a context again with its own algorithm allocates nothing; a failure means a broken libcrypto.
static void start(struct kiln_hasher *hasher) {
    if (EVP_DigestInit_ex2(hasher->context, sha256, NULL) != 1)
        abort();
}

struct kiln_hasher *kiln_hasher_new(void) {
    pthread_once(&once, fetch);
    struct kiln_hasher *hasher = calloc(1, sizeof *hasher);
    if (!hasher)
        return NULL;
    hasher->context = EVP_MD_CTX_new();
    if (!hasher->context || EVP_DigestInit_ex2(hasher->context, sha256, NULL) != 1) {
        kiln_hasher_free(hasher);
        return NULL;
    }
    return hasher;
}

void kiln_hasher_free(struct kiln_hasher *hasher) {
    if (!hasher)
        return;
    EVP_MD_CTX_free(hasher->context);
    free(hasher);
}

void kiln_hasher_update(struct kiln_hasher *hasher, const void *data, size_t len) {
    if (len && EVP_DigestUpdate(hasher->context, data, len) != 1)
        abort();
}

void kiln_hasher_finish(struct kiln_hasher *hasher, struct kiln_digest *digest) {
    if (EVP_DigestFinal_ex(hasher->context, digest->bytes, NULL) != 1)
        abort();
    start(hasher);
}

static struct kiln_hasher *thread_hasher(void) {
    pthread_once(&once, fetch);
    struct kiln_hasher *hasher = pthread_getspecific(thread_hasher_key);
    if (hasher)
        return hasher;
    hasher = kiln_hasher_new();
    if (!hasher || pthread_setspecific(thread_hasher_key, hasher))
        abort(); // the callers have no error to return, and a wrong digest is worse than none
    return hasher;
}

void kiln_digest_of(const void *data, size_t len, struct kiln_digest *digest) {
    struct kiln_hasher *hasher = thread_hasher();
    kiln_hasher_update(hasher, data, len);
    kiln_hasher_finish(hasher, digest);
}

// Hashes `in` by pread from 0 when out < 0; else reads on from its offset and writes what was hashed to `out`.
static int hash_fd(int in, int out, uint64_t max_bytes, struct kiln_digest *digest, uint64_t *size,
                   struct kiln_err *err) {
    struct kiln_hasher *hasher = thread_hasher();
    struct kiln_digest found;
    unsigned char chunk[CHUNK_BYTES];
    uint64_t total = 0;
    int rc = 0;
    for (;;) {
        ssize_t got = out < 0 ? pread(in, chunk, sizeof chunk, (off_t)total) : read(in, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            rc = kiln_fail_errno(err, KILN_E_IO, "cannot read the file to hash");
        if (got <= 0)
            break;
        if ((uint64_t)got > max_bytes - total) {
            rc = kiln_fail(err, KILN_E_LIMIT, "file is larger than %llu bytes", (unsigned long long)max_bytes);
            break;
        }
        kiln_hasher_update(hasher, chunk, (size_t)got);
        if (out >= 0 && (rc = kiln_fs_write_all(out, chunk, (size_t)got, err)))
            break;
        total += (uint64_t)got;
    }
    kiln_hasher_finish(hasher, &found); // also after a failure: the hasher is the thread's
    if (rc)
        return rc;
    *digest = found;
    if (size)
        *size = total;
    return 0;
}

int kiln_digest_of_fd(int fd, uint64_t max_bytes, struct kiln_digest *digest, uint64_t *size, struct kiln_err *err) {
    return hash_fd(fd, -1, max_bytes, digest, size, err);
}

int kiln_digest_copy_fd(int in, int out, uint64_t max_bytes, struct kiln_digest *digest, uint64_t *size,
                        struct kiln_err *err) {
    if (out < 0)
        return kiln_fail(err, KILN_E_INVAL, "no file to copy to");
    return hash_fd(in, out, max_bytes, digest, size, err);
}

void kiln_hmac(const void *key, size_t key_len, const void *data, size_t len, struct kiln_digest *mac) {
    unsigned char block[64] = {0}, inner_pad[64], outer_pad[64];
    struct kiln_digest folded, inner;
    if (key_len > sizeof block) {
        kiln_digest_of(key, key_len, &folded);
        key = folded.bytes;
        key_len = sizeof folded.bytes;
    }
    if (key_len)
        memcpy(block, key, key_len);
    for (size_t i = 0; i < sizeof block; i++) {
        inner_pad[i] = block[i] ^ 0x36;
        outer_pad[i] = block[i] ^ 0x5c;
    }
    struct kiln_hasher *hasher = thread_hasher();
    kiln_hasher_update(hasher, inner_pad, sizeof inner_pad);
    kiln_hasher_update(hasher, data, len);
    kiln_hasher_finish(hasher, &inner);
    kiln_hasher_update(hasher, outer_pad, sizeof outer_pad);
    kiln_hasher_update(hasher, inner.bytes, sizeof inner.bytes);
    kiln_hasher_finish(hasher, mac);
}

static void free_context(EVP_MD_CTX **context) { EVP_MD_CTX_free(*context); }

static EVP_MD_CTX *md5_start(struct kiln_err *err) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context && EVP_DigestInit_ex2(context, EVP_md5(), NULL) == 1)
        return context;
    EVP_MD_CTX_free(context);
    kiln_fail(err, KILN_E_UNSUPPORTED, "this libcrypto has no MD5");
    return NULL;
}

static int md5_finish(EVP_MD_CTX *context, uint8_t md5[KILN_MD5_BYTES], struct kiln_err *err) {
    unsigned char found[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_DigestFinal_ex(context, found, &len) != 1 || len != KILN_MD5_BYTES)
        return kiln_fail(err, KILN_E_INTERNAL, "MD5 failed");
    memcpy(md5, found, KILN_MD5_BYTES);
    return 0;
}

int kiln_md5_of(const void *data, size_t len, uint8_t md5[KILN_MD5_BYTES], struct kiln_err *err) {
    kiln_auto(free_context) EVP_MD_CTX *context = md5_start(err);
    if (!context)
        return KILN_E_UNSUPPORTED;
    if (len && EVP_DigestUpdate(context, data, len) != 1)
        return kiln_fail(err, KILN_E_INTERNAL, "MD5 failed");
    return md5_finish(context, md5, err);
}

int kiln_md5_of_fd(int fd, uint64_t max_bytes, uint8_t md5[KILN_MD5_BYTES], struct kiln_err *err) {
    kiln_auto(free_context) EVP_MD_CTX *context = md5_start(err);
    unsigned char chunk[CHUNK_BYTES];
    if (!context)
        return KILN_E_UNSUPPORTED;
    for (uint64_t total = 0;;) {
        ssize_t got = pread(fd, chunk, sizeof chunk, (off_t)total);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read the file to hash");
        if (got == 0)
            return md5_finish(context, md5, err);
        if ((uint64_t)got > max_bytes - total)
            return kiln_fail(err, KILN_E_LIMIT, "file is larger than %llu bytes", (unsigned long long)max_bytes);
        if (EVP_DigestUpdate(context, chunk, (size_t)got) != 1)
            return kiln_fail(err, KILN_E_INTERNAL, "MD5 failed");
        total += (uint64_t)got;
    }
}

void kiln_base64(const void *data, size_t len, char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = data;
    for (size_t at = 0; at < len; at += 3) {
        size_t left = len - at;
        uint32_t group = (uint32_t)bytes[at] << 16 | (left > 1 ? (uint32_t)bytes[at + 1] << 8 : 0) | (left > 2 ? bytes[at + 2] : 0);
        *text++ = digits[group >> 18];
        *text++ = digits[group >> 12 & 63];
        *text++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *text++ = left > 2 ? digits[group & 63] : '=';
    }
    *text = 0;
}

bool kiln_digest_equal(const struct kiln_digest *a, const struct kiln_digest *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

int kiln_digest_compare(const struct kiln_digest *a, const struct kiln_digest *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

bool kiln_digest_is_zero(const struct kiln_digest *digest) {
    static const struct kiln_digest zero;
    return kiln_digest_equal(digest, &zero);
}

void kiln_digest_format(const struct kiln_digest *digest, char hex[KILN_DIGEST_HEX_LEN + 1]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest->bytes; i++) {
        hex[2 * i] = digits[digest->bytes[i] >> 4];
        hex[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    hex[KILN_DIGEST_HEX_LEN] = 0;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int kiln_digest_parse(const char *hex, struct kiln_digest *digest, struct kiln_err *err) {
    struct kiln_digest parsed;
    for (size_t i = 0; i < sizeof parsed.bytes; i++) {
        int high = hex_value(hex[2 * i]);
        int low = high < 0 ? -1 : hex_value(hex[2 * i + 1]);
        if (low < 0)
            return kiln_fail(err, KILN_E_INVAL, "a digest is %d lower-case hex digits", KILN_DIGEST_HEX_LEN);
        parsed.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (hex[KILN_DIGEST_HEX_LEN])
        return kiln_fail(err, KILN_E_INVAL, "a digest is %d lower-case hex digits", KILN_DIGEST_HEX_LEN);
    *digest = parsed;
    return 0;
}
