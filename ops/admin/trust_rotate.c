// kiln-admin trust rotate: a verifier's next signing key, while the last one stays good for a while.
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/core/list.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"

#define DAY_MS (24ull * 3600 * 1000)
#define KEY_DAYS 365
#define OVERLAP_DAYS 7
#define DAYS_MAX 3650

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"sign-key", "HEX", "The verifier's new public signing key."},
    {"record-key", "HEX", "The principal's new public record key, which takes the place of the old one at once."},
    {"key-days", "COUNT", "How long the new signing key is good (default 365)."},
    {"overlap-days", "COUNT", "How long its other signing keys stay good (default 7): as long as results are used that they signed."},
};

static int read_key(const struct kiln_cli_call *call, const char *name, uint8_t key[KILN_PUBLIC_KEY_BYTES], struct kiln_err *err) {
    struct kiln_digest bytes;
    if (kiln_digest_parse(kiln_cli_text(call, name), &bytes, NULL))
        return kiln_fail(err, KILN_E_INVAL, "--%s: not 64 lower-case hex digits", name);
    memcpy(key, bytes.bytes, KILN_PUBLIC_KEY_BYTES);
    return 0;
}

static struct kiln_principal *find(struct kiln_trust_record *record, const char *name) {
    for (size_t i = 0; i < record->principals_count; i++) {
        if (!strcmp(record->principals[i].name, name))
            return &record->principals[i];
    }
    return NULL;
}

static int add_sign_key(const struct kiln_cli_call *call, struct kiln_trust_record *record, const struct kiln_principal *whose,
                        struct kiln_err *err) {
    uint32_t days, overlap_days;
    struct kiln_verifier_key key = {.not_after_ms = 0};
    int rc = kiln_admin_number(call, "key-days", KEY_DAYS, DAYS_MAX, &days, err);
    if (!rc)
        rc = kiln_admin_number(call, "overlap-days", OVERLAP_DAYS, DAYS_MAX, &overlap_days, err);
    if (!rc)
        rc = read_key(call, "sign-key", key.public_key, err);
    if (!rc && whose->role != KILN_ROLE_OF_VERIFIER)
        rc = kiln_fail(err, KILN_E_INVAL, "%s is no verifier: it signs no results", whose->name);
    if (rc)
        return rc;
    uint64_t now_ms = kiln_clock_wall_ms(), last_ms = now_ms + overlap_days * DAY_MS;
    for (size_t i = 0; i < record->keys_count; i++) {
        if (!memcmp(record->keys[i].public_key, key.public_key, sizeof key.public_key))
            return kiln_fail(err, KILN_E_EXISTS, "--sign-key: it is in the record already");
        if (!strcmp(record->keys[i].principal, whose->name) && record->keys[i].not_after_ms > last_ms)
            record->keys[i].not_after_ms = last_ms;
    }
    struct kiln_verifier_key *grown = kiln_list_grow(record->keys, record->keys_count, sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "keys: out of memory");
    record->keys = grown;
    snprintf(key.principal, sizeof key.principal, "%s", whose->name);
    key.not_after_ms = now_ms + days * DAY_MS;
    record->keys[record->keys_count++] = key;
    return 0;
}

static int change(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    struct kiln_principal *whose = find(record, call->operands[0]);
    if (!whose)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s is not in the record", call->operands[0]);
    int rc = kiln_cli_text(call, "record-key") ? read_key(call, "record-key", whose->record_key, err) : 0;
    if (!rc && kiln_cli_text(call, "sign-key"))
        rc = add_sign_key(call, record, whose, err);
    return rc;
}

static int run(const struct kiln_cli_call *call) {
    if (call->operands_count != 1)
        return kiln_admin_usage(call, "one PRINCIPAL is needed");
    if (!kiln_cli_text(call, "sign-key") && !kiln_cli_text(call, "record-key"))
        return kiln_admin_usage(call, "--sign-key or --record-key is needed");
    return kiln_draft_change(call, change);
}

const struct kiln_cli_command kiln_admin_trust_rotate = {
    .name = "rotate",
    .operands = "PRINCIPAL",
    .operands_max = 1,
    .help = "Give a principal a new key.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
