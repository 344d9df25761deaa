#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/core/list.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/revoked.h"

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"since", "WHEN", "Results issued from then on are void: milliseconds since 1970, or now; default all there ever were."},
    {"until", "WHEN", "Of a toolchain or action: results issued from then on are good again; default none."},
    {"undo", NULL, "Take the revocation back."},
};

static int read_time(const struct kiln_cli_call *call, const char *name, uint64_t *ms, struct kiln_err *err) {
    const char *text = kiln_cli_text(call, name);
    char *end = NULL;
    if (!text)
        *ms = 0;
    else if (!strcmp(text, "now"))
        *ms = kiln_clock_wall_ms();
    else {
        *ms = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end)
            return kiln_fail(err, KILN_E_INVAL, "--%s: milliseconds since 1970, or now", name);
    }
    return 0;
}

static struct kiln_revocation *find(struct kiln_trust_record *record, enum kiln_revoked kind, const char *what) {
    for (size_t i = 0; i < record->revocations_count; i++) {
        if (record->revocations[i].kind == kind && !strcmp(record->revocations[i].what, what))
            return &record->revocations[i];
    }
    return NULL;
}

static int check_what(enum kiln_revoked kind, const char *what, struct kiln_err *err) {
    struct kiln_digest digest;
    if (kind == KILN_REVOKED_EXECUTOR || kind == KILN_REVOKED_PRINCIPAL)
        return kiln_principal_check_name(what, "name", err);
    if (kiln_digest_parse(what, &digest, NULL))
        return kiln_fail(err, KILN_E_INVAL, "\"%.64s\" is not 64 lower-case hex digits", what);
    return 0;
}

static int revoke(struct kiln_trust_record *record, const struct kiln_revocation *wanted, struct kiln_err *err) {
    struct kiln_revocation *known = find(record, wanted->kind, wanted->what);
    if (!known) {
        struct kiln_revocation *grown = kiln_list_grow(record->revocations, record->revocations_count, sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "revocations: out of memory");
        record->revocations = grown;
        known = &record->revocations[record->revocations_count++];
    }
    *known = *wanted;
    return 0;
}

static int undo(struct kiln_trust_record *record, enum kiln_revoked kind, const char *what, struct kiln_err *err) {
    struct kiln_revocation *known = find(record, kind, what);
    if (!known)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s %s is not revoked", kiln_revoked_name(kind), what);
    *known = record->revocations[--record->revocations_count];
    return 0;
}

static int change(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    struct kiln_revocation wanted = {.what = ""};
    const char *what = call->operands[1];
    int rc = kiln_revoked_parse(call->operands[0], &wanted.kind, err);
    if (!rc)
        rc = check_what(wanted.kind, what, err);
    if (!rc)
        rc = read_time(call, "since", &wanted.since_ms, err);
    if (!rc)
        rc = read_time(call, "until", &wanted.until_ms, err);
    if (rc)
        return rc;
    snprintf(wanted.what, sizeof wanted.what, "%s", what);
    return kiln_cli_flag(call, "undo") ? undo(record, wanted.kind, what, err) : revoke(record, &wanted, err);
}

static int run(const struct kiln_cli_call *call) {
    if (call->operands_count != 2)
        return kiln_admin_usage(call, "KIND and WHAT are needed");
    return kiln_draft_change(call, change);
}

const struct kiln_cli_command kiln_admin_trust_revoke = {
    .name = "revoke",
    .operands = "KIND WHAT",
    .operands_max = 2,
    .help = "Make results void that name a key, executor, toolchain or action, or put out a principal.",
    .details = "KIND is key (WHAT: the key's id), executor, toolchain (the digest of a part), action (its digest) or principal. A revoked "
               "result is a miss. It is made again at once by another executor or key; of a toolchain or action with --until now, "
               "or else never.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
