// SHA-256 as an identity: a fixed-size value, hex only at the edges. FIPS 180-4, by OpenSSL.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct kiln_digest {
    uint8_t bytes[32];
};

#define KILN_DIGEST_HEX_LEN 64

struct kiln_hasher; // one streaming hash; not shared between threads

struct kiln_hasher *kiln_hasher_new(void); // NULL on exhausted memory
void kiln_hasher_free(struct kiln_hasher *hasher);
void kiln_hasher_update(struct kiln_hasher *hasher, const void *data, size_t len);
// Writes the digest and makes the hasher ready for the next one.
void kiln_hasher_finish(struct kiln_hasher *hasher, struct kiln_digest *digest);

void kiln_digest_of(const void *data, size_t len, struct kiln_digest *digest);
// Hashes a file from its beginning by pread (the offset is left alone), at most max_bytes (else KILN_E_LIMIT).
// *size may be NULL.
int kiln_digest_of_fd(int fd, uint64_t max_bytes, struct kiln_digest *digest, uint64_t *size, struct kiln_err *err);
// Copies `in` (from its current offset) to `out` while hashing what is written.
int kiln_digest_copy_fd(int in, int out, uint64_t max_bytes, struct kiln_digest *digest, uint64_t *size,
                        struct kiln_err *err);

// HMAC-SHA256 (RFC 2104), as request signatures of the store use it.
void kiln_hmac(const void *key, size_t key_len, const void *data, size_t len, struct kiln_digest *mac);
// MD5 (RFC 1321) of a file from its beginning by pread, or of bytes: only because S3 asks for Content-MD5 on a locked PUT.
// Never an identity. KILN_E_UNSUPPORTED where the library does not have it.
#define KILN_MD5_BYTES 16
int kiln_md5_of_fd(int fd, uint64_t max_bytes, uint8_t md5[KILN_MD5_BYTES], struct kiln_err *err);
int kiln_md5_of(const void *data, size_t len, uint8_t md5[KILN_MD5_BYTES], struct kiln_err *err);
// Standard base64 (RFC 4648) with padding and a NUL.
#define KILN_BASE64_LEN(bytes) ((((bytes) + 2) / 3) * 4)
void kiln_base64(const void *data, size_t len, char *text);

bool kiln_digest_equal(const struct kiln_digest *a, const struct kiln_digest *b);
int kiln_digest_compare(const struct kiln_digest *a, const struct kiln_digest *b); // memcmp order
bool kiln_digest_is_zero(const struct kiln_digest *digest);
void kiln_digest_format(const struct kiln_digest *digest, char hex[KILN_DIGEST_HEX_LEN + 1]); // lower case
int kiln_digest_parse(const char *hex, struct kiln_digest *digest, struct kiln_err *err); // exactly 64 lower-case digits
