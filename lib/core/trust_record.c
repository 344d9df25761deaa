#include "lib/core/trust_record.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/core/list.h"

static const char core_magic[] = "kiln-trust-1"; // with its NUL
static const struct kiln_rooted envelope_form = {"kiln-trust-signed-1", "trust record", KILN_TRUST_BYTES_MAX};

// The shortest encodings: texts of one byte where one may not be empty.
#define KEY_BYTES_MIN (5 + KILN_PUBLIC_KEY_BYTES + 8)
#define PRINCIPAL_BYTES_MIN (5 + 1 + 4 + 4 + KILN_PUBLIC_KEY_BYTES)
#define REVOCATION_BYTES_MIN (1 + 5 + 8 + 8)

void kiln_trust_record_release(struct kiln_trust_record *record) {
    free(record->keys);
    free(record->principals);
    free(record->revocations);
    *record = (struct kiln_trust_record){0};
}

static bool is_alphanumeric(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int kiln_principal_check_name(const char *name, const char *what, struct kiln_err *err) {
    size_t len = strnlen(name, KILN_PRINCIPAL_BYTES);
    bool good = len > 0 && len < KILN_PRINCIPAL_BYTES && is_alphanumeric(*name);
    for (size_t i = 1; good && i < len; i++)
        good = is_alphanumeric(name[i]) || name[i] == '.' || name[i] == '_' || name[i] == '-';
    if (!good)
        return kiln_fail(err, KILN_E_INVAL,
                         "\"%.64s\" is no %s: a letter or digit, then letters, digits, '.', '_' or '-', 64 bytes at most", name,
                         what);
    return 0;
}

static int by_key(const void *a, const void *b) {
    const struct kiln_verifier_key *one = a, *other = b;
    return memcmp(one->public_key, other->public_key, KILN_PUBLIC_KEY_BYTES);
}

static int by_name(const void *a, const void *b) {
    const struct kiln_principal *one = a, *other = b;
    return strcmp(one->name, other->name);
}

static int by_revoked(const void *a, const void *b) {
    const struct kiln_revocation *one = a, *other = b;
    return one->kind != other->kind ? (one->kind < other->kind ? -1 : 1) : strcmp(one->what, other->what);
}

static int by_record_key(const void *a, const void *b) {
    const struct kiln_principal *const *one = a, *const *other = b;
    return memcmp((*one)->record_key, (*other)->record_key, KILN_PUBLIC_KEY_BYTES);
}

static void sort(void *items, size_t count, size_t item_bytes, int (*compare)(const void *, const void *)) {
    if (count)
        qsort(items, count, item_bytes, compare);
}

void kiln_trust_record_sort(struct kiln_trust_record *record) {
    sort(record->keys, record->keys_count, sizeof *record->keys, by_key);
    sort(record->principals, record->principals_count, sizeof *record->principals, by_name);
    sort(record->revocations, record->revocations_count, sizeof *record->revocations, by_revoked);
}

static bool has_key(const struct kiln_principal *principal) {
    static const uint8_t none[KILN_PUBLIC_KEY_BYTES];
    return memcmp(principal->record_key, none, sizeof none) != 0;
}

static int check_keys(const struct kiln_trust_record *record, struct kiln_err *err) {
    for (size_t i = 0; i < record->keys_count; i++) {
        int rc = kiln_principal_check_name(record->keys[i].principal, "principal", err);
        if (rc)
            return rc;
        if (i > 0 && by_key(&record->keys[i - 1], &record->keys[i]) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "the key of verifier %s is there twice or out of order",
                             record->keys[i].principal);
    }
    return 0;
}

// A tenant of that name would own what every tenant reads.
static int check_tenant(const struct kiln_principal *principal, struct kiln_err *err) {
    if (strcmp(principal->tenant, "public") == 0)
        return kiln_fail(err, KILN_E_INVAL, "the tenant of %s may not be called public", principal->name);
    return kiln_principal_check_name(principal->tenant, "tenant", err);
}

static int check_principal(const struct kiln_principal *principal, struct kiln_err *err) {
    int rc = kiln_principal_check_name(principal->name, "principal", err);
    if (rc)
        return rc;
    if (principal->role <= KILN_ROLE_OF_NOBODY || principal->role > KILN_ROLE_OF_OPERATOR)
        return kiln_fail(err, KILN_E_INVAL, "principal %s has unknown role %d", principal->name, (int)principal->role);
    if (principal->role == KILN_ROLE_OF_AGENT ? check_tenant(principal, err) : *principal->tenant)
        return kiln_wrap(err, KILN_E_INVAL, "an agent has a tenant, others have none: %s", principal->name);
    if (principal->role == KILN_ROLE_OF_EXECUTOR ? kiln_principal_check_name(principal->pool, "pool", err) : *principal->pool)
        return kiln_wrap(err, KILN_E_INVAL, "an executor has a pool, others have none: %s", principal->name);
    if (principal->role != KILN_ROLE_OF_READER && !has_key(principal))
        return kiln_fail(err, KILN_E_INVAL, "principal %s has no record key", principal->name);
    return 0;
}

// Whoever shares a key with another could write and attest in its name.
static int check_distinct_keys(const struct kiln_trust_record *record, struct kiln_err *err) {
    kiln_autofree const struct kiln_principal **sorted = calloc(record->principals_count + 1, sizeof *sorted);
    if (!sorted)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a trust record");
    size_t count = 0;
    for (size_t i = 0; i < record->principals_count; i++)
        if (has_key(&record->principals[i]))
            sorted[count++] = &record->principals[i];
    sort(sorted, count, sizeof *sorted, by_record_key);
    for (size_t i = 1; i < count; i++)
        if (by_record_key(&sorted[i - 1], &sorted[i]) == 0)
            return kiln_fail(err, KILN_E_INVAL, "principals %s and %s have the same record key", sorted[i - 1]->name,
                             sorted[i]->name);
    return 0;
}

static int check_principals(const struct kiln_trust_record *record, struct kiln_err *err) {
    for (size_t i = 0; i < record->principals_count; i++) {
        int rc = check_principal(&record->principals[i], err);
        if (rc)
            return rc;
        if (i > 0 && by_name(&record->principals[i - 1], &record->principals[i]) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "principal %s is there twice or out of order", record->principals[i].name);
    }
    return check_distinct_keys(record, err);
}

// Whoever is revoked chooses the dates of what he signs: only of what is signed about can some be good again.
static int check_period(const struct kiln_revocation *revocation, struct kiln_err *err) {
    bool may_end = revocation->kind == KILN_REVOKED_TOOLCHAIN || revocation->kind == KILN_REVOKED_ACTION;
    if (revocation->until_ms && (!may_end || revocation->until_ms <= revocation->since_ms))
        return kiln_fail(err, KILN_E_INVAL, "the revocation of %s cannot end then", revocation->what);
    return 0;
}

static int check_revocation(const struct kiln_revocation *revocation, struct kiln_err *err) {
    struct kiln_digest digest;
    switch (revocation->kind) {
    case KILN_REVOKED_KEY:
    case KILN_REVOKED_TOOLCHAIN:
    case KILN_REVOKED_ACTION:
        return kiln_digest_parse(revocation->what, &digest, err);
    case KILN_REVOKED_EXECUTOR:
    case KILN_REVOKED_PRINCIPAL:
        return kiln_principal_check_name(revocation->what, "revoked principal", err);
    }
    return kiln_fail(err, KILN_E_INVAL, "a revocation of unknown kind %d", (int)revocation->kind);
}

static int check_revocations(const struct kiln_trust_record *record, struct kiln_err *err) {
    for (size_t i = 0; i < record->revocations_count; i++) {
        const struct kiln_revocation *revocation = &record->revocations[i];
        int rc = check_revocation(revocation, err);
        if (!rc)
            rc = check_period(revocation, err);
        if (rc)
            return rc;
        if (i > 0 && by_revoked(revocation - 1, revocation) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "the revocation of %s is there twice or out of order", revocation->what);
    }
    return 0;
}

static int check(const struct kiln_trust_record *record, struct kiln_err *err) {
    if (record->keys_count > KILN_TRUST_KEYS_MAX || record->principals_count > KILN_TRUST_PRINCIPALS_MAX ||
        record->revocations_count > KILN_TRUST_REVOCATIONS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a trust record has at most %u verifier keys, %u principals, %u revocations",
                         KILN_TRUST_KEYS_MAX, KILN_TRUST_PRINCIPALS_MAX, KILN_TRUST_REVOCATIONS_MAX);
    if (!record->version)
        return kiln_fail(err, KILN_E_INVAL, "the first version of a trust record is 1");
    if (record->expires_ms <= record->issued_ms)
        return kiln_fail(err, KILN_E_INVAL, "a trust record expires before it is issued");
    int rc = check_keys(record, err);
    if (!rc)
        rc = check_principals(record, err);
    return rc ? rc : check_revocations(record, err);
}

static void encode(const struct kiln_trust_record *record, struct kiln_buf *out) {
    kiln_buf_add(out, core_magic, sizeof core_magic);
    kiln_buf_add_be64(out, record->version);
    kiln_buf_add_be64(out, record->issued_ms);
    kiln_buf_add_be64(out, record->expires_ms);
    kiln_buf_add_be64(out, record->generation);
    kiln_buf_add_be32(out, (uint32_t)record->keys_count);
    for (const struct kiln_verifier_key *key = record->keys; key < record->keys + record->keys_count; key++) {
        kiln_buf_add_field_str(out, key->principal);
        kiln_buf_add(out, key->public_key, sizeof key->public_key);
        kiln_buf_add_be64(out, key->not_after_ms);
    }
    kiln_buf_add_be32(out, (uint32_t)record->principals_count);
    for (size_t i = 0; i < record->principals_count; i++) {
        const struct kiln_principal *principal = &record->principals[i];
        kiln_buf_add_field_str(out, principal->name);
        kiln_buf_add_u8(out, (uint8_t)principal->role);
        kiln_buf_add_field_str(out, principal->tenant);
        kiln_buf_add_field_str(out, principal->pool);
        kiln_buf_add(out, principal->record_key, sizeof principal->record_key);
    }
    kiln_buf_add_be32(out, (uint32_t)record->revocations_count);
    for (size_t i = 0; i < record->revocations_count; i++) {
        kiln_buf_add_u8(out, (uint8_t)record->revocations[i].kind);
        kiln_buf_add_field_str(out, record->revocations[i].what);
        kiln_buf_add_be64(out, record->revocations[i].since_ms);
        kiln_buf_add_be64(out, record->revocations[i].until_ms);
    }
}

int kiln_trust_record_encode(const struct kiln_trust_record *record, struct kiln_buf *out, struct kiln_err *err) {
    int rc = check(record, err);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf made = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX);
    encode(record, &made);
    rc = kiln_buf_check(&made, "a trust record", err);
    if (rc)
        return rc;
    kiln_buf_add(out, made.data, made.len);
    return kiln_buf_check(out, "a trust record", err);
}

static void read_text(struct kiln_reader *reader, char out[KILN_PRINCIPAL_BYTES]) {
    size_t len;
    const unsigned char *bytes = kiln_read_field(reader, KILN_PRINCIPAL_BYTES - 1, &len);
    if (!bytes)
        return;
    if (memchr(bytes, 0, len))
        reader->failed = true;
    memcpy(out, bytes, len); // the rest is zero: lists are made so
}

static void read_key(struct kiln_reader *reader, uint8_t key[KILN_PUBLIC_KEY_BYTES]) {
    const unsigned char *bytes = kiln_read_bytes(reader, KILN_PUBLIC_KEY_BYTES);
    if (bytes)
        memcpy(key, bytes, KILN_PUBLIC_KEY_BYTES);
}

static void decode_keys(struct kiln_reader *reader, struct kiln_trust_record *record) {
    record->keys = kiln_list_read(reader, KILN_TRUST_KEYS_MAX, KEY_BYTES_MIN, sizeof *record->keys, &record->keys_count);
    for (size_t i = 0; i < record->keys_count && !reader->failed; i++) {
        read_text(reader, record->keys[i].principal);
        read_key(reader, record->keys[i].public_key);
        record->keys[i].not_after_ms = kiln_read_be64(reader);
    }
}

static void decode_principals(struct kiln_reader *reader, struct kiln_trust_record *record) {
    record->principals = kiln_list_read(reader, KILN_TRUST_PRINCIPALS_MAX, PRINCIPAL_BYTES_MIN, sizeof *record->principals,
                                        &record->principals_count);
    for (size_t i = 0; i < record->principals_count && !reader->failed; i++) {
        struct kiln_principal *principal = &record->principals[i];
        read_text(reader, principal->name);
        principal->role = kiln_read_u8(reader);
        read_text(reader, principal->tenant);
        read_text(reader, principal->pool);
        read_key(reader, principal->record_key);
    }
}

static void decode_revocations(struct kiln_reader *reader, struct kiln_trust_record *record) {
    record->revocations = kiln_list_read(reader, KILN_TRUST_REVOCATIONS_MAX, REVOCATION_BYTES_MIN,
                                         sizeof *record->revocations, &record->revocations_count);
    for (size_t i = 0; i < record->revocations_count && !reader->failed; i++) {
        record->revocations[i].kind = kiln_read_u8(reader);
        read_text(reader, record->revocations[i].what);
        record->revocations[i].since_ms = kiln_read_be64(reader);
        record->revocations[i].until_ms = kiln_read_be64(reader);
    }
}

int kiln_trust_record_decode(const void *data, size_t len, struct kiln_trust_record *record, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof core_magic);
    if (len > KILN_TRUST_BYTES_MAX || !head || memcmp(head, core_magic, sizeof core_magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a trust record");
    kiln_autotrust_record struct kiln_trust_record decoded = {0};
    decoded.version = kiln_read_be64(&reader);
    decoded.issued_ms = kiln_read_be64(&reader);
    decoded.expires_ms = kiln_read_be64(&reader);
    decoded.generation = kiln_read_be64(&reader);
    decode_keys(&reader, &decoded);
    decode_principals(&reader, &decoded);
    decode_revocations(&reader, &decoded);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "a trust record is malformed near byte %zu", reader.at);
    int rc = check(&decoded, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_CORRUPT, "a trust record");
    *record = decoded;
    decoded = (struct kiln_trust_record){0};
    return 0;
}

int kiln_trust_record_sign(const struct kiln_trust_record *record, const struct kiln_sign_key *const *roots, size_t count,
                           struct kiln_buf *envelope, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf core = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX);
    int rc = kiln_trust_record_encode(record, &core, err);
    return rc ? rc : kiln_rooted_sign(&envelope_form, core.data, core.len, roots, count, envelope, err);
}

int kiln_trust_record_open(const void *envelope, size_t len, const uint8_t (*roots)[KILN_PUBLIC_KEY_BYTES],
                           size_t roots_count, size_t threshold, struct kiln_trust_record *record, struct kiln_err *err) {
    const unsigned char *core;
    size_t core_len;
    struct kiln_roots known = {roots, roots_count, threshold};
    int rc = kiln_rooted_open(&envelope_form, envelope, len, &known, &core, &core_len, err);
    return rc ? rc : kiln_trust_record_decode(core, core_len, record, err);
}

const struct kiln_principal *kiln_trust_record_enrolled(const struct kiln_trust_record *record, const char *name) {
    struct kiln_principal key = {0};
    size_t len = strnlen(name, sizeof key.name);
    if (len == sizeof key.name || !record->principals_count)
        return NULL;
    memcpy(key.name, name, len);
    return bsearch(&key, record->principals, record->principals_count, sizeof key, by_name);
}

static const struct kiln_revocation *find_revocation(const struct kiln_trust_record *record, enum kiln_revoked kind,
                                                     const char *what) {
    struct kiln_revocation key = {.kind = kind};
    size_t len = strnlen(what, sizeof key.what);
    if (len == sizeof key.what || !record->revocations_count)
        return NULL;
    memcpy(key.what, what, len);
    return bsearch(&key, record->revocations, record->revocations_count, sizeof key, by_revoked);
}

bool kiln_trust_record_revokes(const struct kiln_trust_record *record, enum kiln_revoked kind, const char *what,
                               uint64_t issued_ms) {
    const struct kiln_revocation *revocation = find_revocation(record, kind, what);
    return revocation && issued_ms >= revocation->since_ms && (!revocation->until_ms || issued_ms < revocation->until_ms);
}

const struct kiln_principal *kiln_trust_record_find(const struct kiln_trust_record *record, const char *name) {
    const struct kiln_principal *principal = kiln_trust_record_enrolled(record, name);
    if (!principal)
        return NULL;
    struct kiln_digest id;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_of(principal->record_key, sizeof principal->record_key, &id);
    kiln_digest_format(&id, hex);
    bool revoked = find_revocation(record, KILN_REVOKED_PRINCIPAL, name) || find_revocation(record, KILN_REVOKED_KEY, hex) ||
                   (principal->role == KILN_ROLE_OF_EXECUTOR && find_revocation(record, KILN_REVOKED_EXECUTOR, name));
    return revoked ? NULL : principal;
}

const struct kiln_verifier_key *kiln_trust_record_key(const struct kiln_trust_record *record,
                                                      const struct kiln_digest *id) {
    for (size_t i = 0; i < record->keys_count; i++) {
        struct kiln_digest found;
        kiln_digest_of(record->keys[i].public_key, KILN_PUBLIC_KEY_BYTES, &found);
        if (kiln_digest_equal(&found, id))
            return &record->keys[i];
    }
    return NULL;
}
