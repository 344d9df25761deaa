#include "ops/admin/principals.h"

#include <stdio.h>
#include <string.h>

#include "lib/core/list.h"

#define WORDS_MAX 6
#define LINE_BYTES_MAX 512

static const char *const role_names[] = {
    [KILN_ROLE_OF_AGENT] = "agent",   [KILN_ROLE_OF_VERIFIER] = "verifier", [KILN_ROLE_OF_EXECUTOR] = "executor",
    [KILN_ROLE_OF_READER] = "reader", [KILN_ROLE_OF_OPERATOR] = "operator",
};

int kiln_principals_role(const char *word, enum kiln_role *role) {
    for (size_t i = 0; i < sizeof role_names / sizeof *role_names; i++) {
        if (role_names[i] && !strcmp(word, role_names[i])) {
            *role = (enum kiln_role)i;
            return 0;
        }
    }
    return -1;
}

const char *kiln_principals_role_name(enum kiln_role role) {
    return (size_t)role < sizeof role_names / sizeof *role_names && role_names[role] ? role_names[role] : "nobody";
}

static size_t split(char *line, char *words[WORDS_MAX + 1]) {
    size_t count = 0;
    char *rest = line;
    while (count <= WORDS_MAX) {
        rest += strspn(rest, " \t\r");
        if (!*rest || *rest == '#')
            break;
        words[count++] = rest;
        rest += strcspn(rest, " \t\r");
        if (*rest)
            *rest++ = '\0';
    }
    return count;
}

static int take_name(const char *word, const char *what, char out[KILN_PRINCIPAL_BYTES], struct kiln_err *err) {
    int rc = kiln_principal_check_name(word, what, err);
    if (!rc)
        snprintf(out, KILN_PRINCIPAL_BYTES, "%s", word);
    return rc;
}

static int take_key(const char *word, const char *what, uint8_t key[KILN_PUBLIC_KEY_BYTES], struct kiln_err *err) {
    struct kiln_digest bytes;
    _Static_assert(sizeof bytes.bytes == KILN_PUBLIC_KEY_BYTES, "hex of both is read alike");
    if (kiln_digest_parse(word, &bytes, NULL))
        return kiln_fail(err, KILN_E_INVAL, "%s: not 64 lower-case hex digits", what);
    memcpy(key, bytes.bytes, KILN_PUBLIC_KEY_BYTES);
    return 0;
}

static int put_principal(struct kiln_trust_record *record, const struct kiln_principal *one, struct kiln_err *err) {
    for (size_t i = 0; i < record->principals_count; i++) {
        if (!strcmp(record->principals[i].name, one->name)) {
            record->principals[i] = *one;
            return 0;
        }
    }
    struct kiln_principal *grown = kiln_list_grow(record->principals, record->principals_count, sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "principals: out of memory");
    record->principals = grown;
    record->principals[record->principals_count++] = *one;
    return 0;
}

static int put_key(struct kiln_trust_record *record, const struct kiln_verifier_key *key, struct kiln_err *err) {
    for (size_t i = 0; i < record->keys_count; i++) {
        if (!memcmp(record->keys[i].public_key, key->public_key, sizeof key->public_key)) {
            record->keys[i] = *key;
            return 0;
        }
    }
    struct kiln_verifier_key *grown = kiln_list_grow(record->keys, record->keys_count, sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "verifier keys: out of memory");
    record->keys = grown;
    record->keys[record->keys_count++] = *key;
    return 0;
}

static int take_line(char **words, size_t count, uint64_t not_after_ms, struct kiln_trust_record *record, struct kiln_err *err) {
    struct kiln_principal one = {.role = KILN_ROLE_OF_NOBODY};
    struct kiln_verifier_key key = {.not_after_ms = not_after_ms};
    if (count < 5 || count > WORDS_MAX)
        return kiln_fail(err, KILN_E_INVAL, "expected NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY]");
    if (kiln_principals_role(words[1], &one.role))
        return kiln_fail(err, KILN_E_INVAL, "role \"%.64s\" is none of agent, verifier, executor, reader, operator", words[1]);
    bool tenant = strcmp(words[2], "-") != 0, pool = strcmp(words[3], "-") != 0;
    if (tenant != (one.role == KILN_ROLE_OF_AGENT))
        return kiln_fail(err, KILN_E_INVAL, "an agent has a tenant, nobody else does");
    if (pool != (one.role == KILN_ROLE_OF_EXECUTOR))
        return kiln_fail(err, KILN_E_INVAL, "an executor has a pool, nobody else does");
    if ((count == 6) != (one.role == KILN_ROLE_OF_VERIFIER))
        return kiln_fail(err, KILN_E_INVAL, "a verifier has a signing key, nobody else does");
    int rc = take_name(words[0], "name", one.name, err);
    if (!rc && tenant)
        rc = take_name(words[2], "tenant", one.tenant, err);
    if (!rc && pool)
        rc = take_name(words[3], "pool", one.pool, err);
    if (!rc)
        rc = take_key(words[4], "record key", one.record_key, err);
    if (!rc && count == 6)
        rc = take_key(words[5], "signing key", key.public_key, err);
    if (!rc && count == 6 && !memcmp(key.public_key, one.record_key, sizeof key.public_key))
        rc = kiln_fail(err, KILN_E_INVAL, "the signing key must not be the record key");
    if (!rc)
        rc = put_principal(record, &one, err);
    if (!rc && count == 6) {
        memcpy(key.principal, one.name, sizeof key.principal);
        rc = put_key(record, &key, err);
    }
    return rc;
}

int kiln_principals_parse(const char *text, size_t len, uint64_t key_not_after_ms, struct kiln_trust_record *record,
                          struct kiln_err *err) {
    char line[LINE_BYTES_MAX], *words[WORDS_MAX + 1];
    size_t number = 0;
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end ? (size_t)(end - text) - at : len - at;
        number++;
        if (line_len >= sizeof line || memchr(text + at, '\0', line_len))
            return kiln_fail(err, KILN_E_INVAL, "line %zu: too long, or not text", number);
        memcpy(line, text + at, line_len);
        line[line_len] = '\0';
        at += line_len + 1;
        size_t count = split(line, words);
        int rc = count ? take_line(words, count, key_not_after_ms, record, err) : 0;
        if (rc)
            return kiln_wrap(err, rc, "line %zu", number);
    }
    kiln_trust_record_sort(record);
    return 0;
}
