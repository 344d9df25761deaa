// Ed25519 keys (RFC 8032, by OpenSSL) and the set of public keys that are trusted.
//
// A key file holds the 32 raw private bytes in hex and a newline, mode 0600, owned by the reader (anything looser is
// refused). The public file beside it (NAME.pub) holds the 32 public bytes in hex. key id = SHA-256 of the public bytes.
#pragma once

#include "lib/core/digest.h"

#define KILN_SIGNATURE_BYTES 64
#define KILN_PUBLIC_KEY_BYTES 32

struct kiln_sign_key; // a private key
struct kiln_trust;    // public keys that may sign results

// Loads DIR/NAME, making both files when absent (create-only: of two racing makers one wins and both load the same).
int kiln_sign_key_load_or_make(int dirfd, const char *name, struct kiln_sign_key **key, struct kiln_err *err);
// Loads a private key from a path below dirfd (AT_FDCWD); makes and changes nothing.
int kiln_sign_key_load(int dirfd, const char *path, struct kiln_sign_key **key, struct kiln_err *err);
void kiln_sign_key_free(struct kiln_sign_key *key);
void kiln_sign_key_id(const struct kiln_sign_key *key, struct kiln_digest *id);
void kiln_sign_key_public(const struct kiln_sign_key *key, uint8_t public_key[KILN_PUBLIC_KEY_BYTES]);
int kiln_sign(const struct kiln_sign_key *key, const void *data, size_t len, uint8_t signature[KILN_SIGNATURE_BYTES],
              struct kiln_err *err);
// 0 only when the signature is that key's over these bytes; else KILN_E_CORRUPT.
int kiln_verify(const uint8_t public_key[KILN_PUBLIC_KEY_BYTES], const void *data, size_t len,
                const uint8_t signature[KILN_SIGNATURE_BYTES], struct kiln_err *err);

int kiln_trust_new(struct kiln_trust **trust, struct kiln_err *err);
void kiln_trust_free(struct kiln_trust *trust);
int kiln_trust_add_public(struct kiln_trust *trust, const uint8_t public_key[KILN_PUBLIC_KEY_BYTES], struct kiln_err *err);
int kiln_trust_add_file(struct kiln_trust *trust, int dirfd, const char *name, struct kiln_err *err); // NAME.pub
// 0 only when key_id is trusted and the signature is good; else KILN_E_CORRUPT.
int kiln_trust_verify(const struct kiln_trust *trust, const struct kiln_digest *key_id, const void *data, size_t len,
                      const uint8_t signature[KILN_SIGNATURE_BYTES], struct kiln_err *err);
