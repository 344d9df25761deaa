#include "lib/core/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/list.h"

#define KEY_TEXT_BYTES (KILN_DIGEST_HEX_LEN + 1) // hex and a newline; both kinds of key have 32 bytes
#define KEY_NAME_MAX 128
#define TRUSTED_MAX 64u

struct kiln_sign_key {
    EVP_PKEY *pkey;
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    struct kiln_digest id;
};

struct trusted {
    struct kiln_digest id;
    EVP_PKEY *pkey;
};

struct kiln_trust {
    struct trusted *keys;
    size_t count;
};

static void free_context(EVP_MD_CTX **context) { EVP_MD_CTX_free(*context); }
static void free_pkey(EVP_PKEY **pkey) { EVP_PKEY_free(*pkey); }
static void free_key(struct kiln_sign_key **key) { kiln_sign_key_free(*key); }
static void wipe_digest(struct kiln_digest *secret) { OPENSSL_cleanse(secret, sizeof *secret); }
static void wipe_text(char (*text)[KEY_TEXT_BYTES + 1]) { OPENSSL_cleanse(*text, sizeof *text); }

void kiln_sign_key_free(struct kiln_sign_key *key) {
    if (!key)
        return;
    EVP_PKEY_free(key->pkey);
    free(key);
}

void kiln_sign_key_id(const struct kiln_sign_key *key, struct kiln_digest *id) { *id = key->id; }

void kiln_sign_key_public(const struct kiln_sign_key *key, uint8_t public_key[KILN_PUBLIC_KEY_BYTES]) {
    memcpy(public_key, key->public_key, KILN_PUBLIC_KEY_BYTES);
}

static int check_name(const char *name, struct kiln_err *err) {
    if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > KEY_NAME_MAX)
        return kiln_fail(err, KILN_E_INVAL, "\"%s\" is no name for a key file", name);
    return 0;
}

// A private key must be ours alone; a public one must not be writable by others.
static int read_key_file(int dirfd, const char *name, mode_t forbidden, struct kiln_digest *bytes,
                         struct kiln_err *err) {
    kiln_autofd int fd = -1;
    int rc = kiln_fs_open_private(dirfd, name, forbidden, &fd, err);
    if (rc)
        return kiln_wrap(err, rc, "key file");
    kiln_auto(wipe_text) char text[KEY_TEXT_BYTES + 1];
    ssize_t got = pread(fd, text, sizeof text, 0);
    if (got < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot read key file %s", name);
    if (got != KEY_TEXT_BYTES || text[KEY_TEXT_BYTES - 1] != '\n')
        return kiln_fail(err, KILN_E_CORRUPT, "key file %s is not 64 hex digits and a newline", name);
    text[KEY_TEXT_BYTES - 1] = 0;
    if (kiln_digest_parse(text, bytes, NULL))
        return kiln_fail(err, KILN_E_CORRUPT, "key file %s is not 64 hex digits and a newline", name);
    return 0;
}

static int write_synced(int fd, const char *text, const char *name, struct kiln_err *err) {
    int rc = kiln_fs_write_all(fd, text, KEY_TEXT_BYTES, err);
    if (!rc && fsync(fd))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot make key file %s durable", name);
    return rc;
}

// Publishes a whole file under a name that is free: KILN_E_EXISTS when somebody was faster.
static int create_key_file(int dirfd, const char *name, mode_t mode, const struct kiln_digest *bytes,
                           struct kiln_err *err) {
    uint64_t random;
    if (RAND_bytes((unsigned char *)&random, sizeof random) != 1)
        return kiln_fail(err, KILN_E_INTERNAL, "no random bytes");
    char temporary[KEY_NAME_MAX + 32];
    int printed = snprintf(temporary, sizeof temporary, ".%s.%016llx", name, (unsigned long long)random);
    if (printed < 0 || (size_t)printed >= sizeof temporary)
        return kiln_fail(err, KILN_E_LIMIT, "the name of key file %s is too long", name);
    kiln_auto(wipe_text) char text[KEY_TEXT_BYTES + 1];
    kiln_digest_format(bytes, text);
    text[KEY_TEXT_BYTES - 1] = '\n';
    kiln_autofd int fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot make key file %s", name);
    int rc = write_synced(fd, text, name, err);
    if (!rc && linkat(dirfd, temporary, dirfd, name, 0))
        rc = kiln_fail_errno(err, errno == EEXIST ? KILN_E_EXISTS : KILN_E_IO, "cannot publish key file %s", name);
    unlinkat(dirfd, temporary, 0);
    return rc;
}

static int key_from_private(const struct kiln_digest *bytes, struct kiln_sign_key **key, struct kiln_err *err) {
    kiln_auto(free_key) struct kiln_sign_key *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    made->pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, bytes->bytes, sizeof bytes->bytes);
    size_t len = sizeof made->public_key;
    if (!made->pkey || EVP_PKEY_get_raw_public_key(made->pkey, made->public_key, &len) != 1 ||
        len != sizeof made->public_key)
        return kiln_fail(err, KILN_E_INTERNAL, "cannot make an Ed25519 key");
    kiln_digest_of(made->public_key, sizeof made->public_key, &made->id);
    *key = KILN_STEAL(made);
    return 0;
}

// The public file is derived: a missing or differing one is written again.
static int publish_public(int dirfd, const char *name, const struct kiln_sign_key *key, struct kiln_err *err) {
    char public_name[KEY_NAME_MAX + 8];
    snprintf(public_name, sizeof public_name, "%s.pub", name);
    struct kiln_digest bytes, found;
    memcpy(bytes.bytes, key->public_key, sizeof bytes.bytes);
    int rc = read_key_file(dirfd, public_name, 022, &found, NULL);
    if (rc == 0 && kiln_digest_equal(&bytes, &found))
        return 0;
    if (rc == KILN_E_NOTFOUND) {
        rc = create_key_file(dirfd, public_name, 0644, &bytes, err);
        return rc == KILN_E_EXISTS ? 0 : rc;
    }
    char text[KEY_TEXT_BYTES + 1];
    kiln_digest_format(&bytes, text);
    text[KEY_TEXT_BYTES - 1] = '\n';
    return kiln_fs_write_file(dirfd, public_name, text, KEY_TEXT_BYTES, 0644, err);
}

static int make_private(int dirfd, const char *name, struct kiln_err *err) {
    kiln_auto(wipe_digest) struct kiln_digest bytes;
    if (RAND_priv_bytes(bytes.bytes, sizeof bytes.bytes) != 1)
        return kiln_fail(err, KILN_E_INTERNAL, "no random bytes for a key");
    int rc = create_key_file(dirfd, name, 0600, &bytes, err);
    return rc == KILN_E_EXISTS ? 0 : rc; // another maker won: its key is the one
}

int kiln_sign_key_load(int dirfd, const char *path, struct kiln_sign_key **key, struct kiln_err *err) {
    kiln_auto(wipe_digest) struct kiln_digest bytes;
    int rc = read_key_file(dirfd, path, 077, &bytes, err);
    return rc ? rc : key_from_private(&bytes, key, err);
}

int kiln_sign_key_load_or_make(int dirfd, const char *name, struct kiln_sign_key **key, struct kiln_err *err) {
    int rc = check_name(name, err);
    if (rc)
        return rc;
    kiln_auto(wipe_digest) struct kiln_digest bytes;
    rc = read_key_file(dirfd, name, 077, &bytes, err);
    if (rc == KILN_E_NOTFOUND) {
        rc = make_private(dirfd, name, err);
        if (!rc)
            rc = read_key_file(dirfd, name, 077, &bytes, err);
    }
    if (rc)
        return rc;
    kiln_auto(free_key) struct kiln_sign_key *made = NULL;
    rc = key_from_private(&bytes, &made, err);
    if (!rc)
        rc = publish_public(dirfd, name, made, err);
    if (!rc)
        *key = KILN_STEAL(made);
    return rc;
}

int kiln_sign(const struct kiln_sign_key *key, const void *data, size_t len, uint8_t signature[KILN_SIGNATURE_BYTES],
              struct kiln_err *err) {
    kiln_auto(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t made[KILN_SIGNATURE_BYTES];
    size_t made_len = sizeof made;
    if (!context || EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) != 1 ||
        EVP_DigestSign(context, made, &made_len, data, len) != 1 || made_len != sizeof made)
        return kiln_fail(err, KILN_E_INTERNAL, "cannot sign");
    memcpy(signature, made, sizeof made);
    return 0;
}

static int verify(EVP_PKEY *key, const void *data, size_t len, const uint8_t signature[KILN_SIGNATURE_BYTES],
                  struct kiln_err *err) {
    kiln_auto(free_context) EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) != 1)
        return kiln_fail(err, KILN_E_INTERNAL, "cannot verify a signature");
    if (EVP_DigestVerify(context, signature, KILN_SIGNATURE_BYTES, data, len) != 1)
        return kiln_fail(err, KILN_E_CORRUPT, "the signature does not match");
    return 0;
}

int kiln_verify(const uint8_t public_key[KILN_PUBLIC_KEY_BYTES], const void *data, size_t len,
                const uint8_t signature[KILN_SIGNATURE_BYTES], struct kiln_err *err) {
    kiln_auto(free_pkey) EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, KILN_PUBLIC_KEY_BYTES);
    if (!key)
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes of a public key are none");
    return verify(key, data, len, signature, err);
}

int kiln_trust_new(struct kiln_trust **trust, struct kiln_err *err) {
    struct kiln_trust *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for trusted keys");
    *trust = made;
    return 0;
}

void kiln_trust_free(struct kiln_trust *trust) {
    if (!trust)
        return;
    for (size_t i = 0; i < trust->count; i++)
        EVP_PKEY_free(trust->keys[i].pkey);
    free(trust->keys);
    free(trust);
}

static const struct trusted *find_trusted(const struct kiln_trust *trust, const struct kiln_digest *id) {
    for (size_t i = 0; i < trust->count; i++) {
        if (kiln_digest_equal(&trust->keys[i].id, id))
            return &trust->keys[i];
    }
    return NULL;
}

int kiln_trust_add_public(struct kiln_trust *trust, const uint8_t public_key[KILN_PUBLIC_KEY_BYTES],
                          struct kiln_err *err) {
    struct trusted key;
    kiln_digest_of(public_key, KILN_PUBLIC_KEY_BYTES, &key.id);
    if (find_trusted(trust, &key.id))
        return 0;
    if (trust->count >= TRUSTED_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "at most %u trusted keys", TRUSTED_MAX);
    kiln_auto(free_pkey) EVP_PKEY *pkey =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, KILN_PUBLIC_KEY_BYTES);
    struct trusted *keys = pkey ? kiln_list_grow(trust->keys, trust->count, sizeof *keys) : NULL;
    if (!keys)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a trusted key");
    trust->keys = keys;
    key.pkey = KILN_STEAL(pkey);
    keys[trust->count++] = key;
    return 0;
}

int kiln_trust_add_file(struct kiln_trust *trust, int dirfd, const char *name, struct kiln_err *err) {
    int rc = check_name(name, err);
    if (rc)
        return rc;
    char public_name[KEY_NAME_MAX + 8];
    snprintf(public_name, sizeof public_name, "%s.pub", name);
    struct kiln_digest bytes;
    rc = read_key_file(dirfd, public_name, 022, &bytes, err);
    return rc ? rc : kiln_trust_add_public(trust, bytes.bytes, err);
}

int kiln_trust_verify(const struct kiln_trust *trust, const struct kiln_digest *key_id, const void *data, size_t len,
                      const uint8_t signature[KILN_SIGNATURE_BYTES], struct kiln_err *err) {
    const struct trusted *key = find_trusted(trust, key_id);
    if (!key)
        return kiln_fail(err, KILN_E_CORRUPT, "signed by a key that is not trusted");
    return verify(key->pkey, data, len, signature, err);
}
