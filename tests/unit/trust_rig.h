// Keys, and a trust record made of literals, for the tests of the record and of what judges by it.
#pragma once

#include "tests/unit/scratch.h"

#include "lib/core/trust_record.h"

#define RIG_NOW 1700000000000ull

// A key of that name in the scratch directory, made once.
static inline struct kiln_sign_key *rig_key(const struct scratch *scratch, const char *name) {
    struct kiln_err err = {0};
    struct kiln_sign_key *key = NULL;
    if (kiln_sign_key_load_or_make(scratch->fd, name, &key, &err))
        fail_msg("%s", err.text);
    return key;
}

static inline void rig_public(const struct scratch *scratch, const char *name, uint8_t out[KILN_PUBLIC_KEY_BYTES]) {
    struct kiln_sign_key *key = rig_key(scratch, name);
    kiln_sign_key_public(key, out);
    kiln_sign_key_free(key);
}

// Hex of the id of a key.
static inline void rig_key_hex(const struct scratch *scratch, const char *name, char hex[KILN_DIGEST_HEX_LEN + 1]) {
    struct kiln_sign_key *key = rig_key(scratch, name);
    struct kiln_digest id;
    kiln_sign_key_id(key, &id);
    kiln_digest_format(&id, hex);
    kiln_sign_key_free(key);
}

static inline void rig_copy(char out[KILN_PRINCIPAL_BYTES], const char *text) {
    assert_true(strlen(text) < KILN_PRINCIPAL_BYTES);
    memcpy(out, text, strlen(text) + 1);
}

static inline void *rig_more(void *items, size_t count, size_t item_bytes) {
    char *grown = reallocarray(items, count + 1, item_bytes);
    assert_non_null(grown);
    memset(grown + count * item_bytes, 0, item_bytes);
    return grown;
}

static inline void rig_add_verifier_key(const struct scratch *scratch, struct kiln_trust_record *record, const char *name,
                                        uint64_t not_after_ms) {
    record->keys = rig_more(record->keys, record->keys_count, sizeof *record->keys);
    struct kiln_verifier_key *key = &record->keys[record->keys_count++];
    rig_copy(key->principal, name);
    rig_public(scratch, name, key->public_key);
    key->not_after_ms = not_after_ms;
}

// The record key of NAME is the file NAME.record.
static inline void rig_enrol(const struct scratch *scratch, struct kiln_trust_record *record, const char *name,
                             enum kiln_role role, const char *tenant, const char *pool) {
    record->principals = rig_more(record->principals, record->principals_count, sizeof *record->principals);
    struct kiln_principal *principal = &record->principals[record->principals_count++];
    char file[KILN_PRINCIPAL_BYTES + 16];
    snprintf(file, sizeof file, "%s.record", name);
    rig_copy(principal->name, name);
    principal->role = role;
    rig_copy(principal->tenant, tenant);
    rig_copy(principal->pool, pool);
    rig_public(scratch, file, principal->record_key);
}

static inline void rig_revoke(struct kiln_trust_record *record, enum kiln_revoked kind, const char *what, uint64_t since_ms) {
    record->revocations = rig_more(record->revocations, record->revocations_count, sizeof *record->revocations);
    struct kiln_revocation *revocation = &record->revocations[record->revocations_count++];
    revocation->kind = kind;
    rig_copy(revocation->what, what);
    revocation->since_ms = since_ms;
}

// Verifier-1 signs; three executors in pools a, b, b; one agent of tenant blue.
static inline void rig_record(const struct scratch *scratch, struct kiln_trust_record *record) {
    *record = (struct kiln_trust_record){
        .version = 7, .issued_ms = RIG_NOW - 1000, .expires_ms = RIG_NOW + 3600000, .generation = 3};
    rig_add_verifier_key(scratch, record, "verifier-1", RIG_NOW + 7200000);
    rig_enrol(scratch, record, "verifier-1", KILN_ROLE_OF_VERIFIER, "", "");
    rig_enrol(scratch, record, "agent-1", KILN_ROLE_OF_AGENT, "blue", "");
    rig_enrol(scratch, record, "executor-1", KILN_ROLE_OF_EXECUTOR, "", "a");
    rig_enrol(scratch, record, "executor-2", KILN_ROLE_OF_EXECUTOR, "", "b");
    rig_enrol(scratch, record, "executor-3", KILN_ROLE_OF_EXECUTOR, "", "b");
    kiln_trust_record_sort(record);
}

// Signs with the named roots; envelope is begun or added to.
static inline void rig_sign(const struct scratch *scratch, const struct kiln_trust_record *record, const char *const *roots,
                            size_t count, struct kiln_buf *envelope) {
    struct kiln_err err = {0};
    struct kiln_sign_key *keys[KILN_TRUST_ROOTS_MAX] = {0};
    for (size_t i = 0; i < count; i++)
        keys[i] = rig_key(scratch, roots[i]);
    if (kiln_trust_record_sign(record, (const struct kiln_sign_key *const *)keys, count, envelope, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < count; i++)
        kiln_sign_key_free(keys[i]);
}
