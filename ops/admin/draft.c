#include "ops/admin/draft.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "ops/admin/commands.h"
#include "ops/admin/root_keys.h"
#include "ops/admin/storage.h"

#define DAY_MS (24ull * 3600 * 1000)
#define DAYS 30
#define DAYS_MAX 3650
#define ENVELOPE_BYTES_MAX (KILN_TRUST_BYTES_MAX + 4096)

void kiln_draft_release(struct kiln_draft *draft) {
    kiln_admin_settings_release(&draft->settings);
    kiln_trust_record_release(&draft->record);
    kiln_buf_release(&draft->envelope);
}

int kiln_admin_number(const struct kiln_cli_call *call, const char *name, uint32_t fallback, uint32_t max, uint32_t *value,
                      struct kiln_err *err) {
    const char *text = kiln_cli_text(call, name);
    char *end = NULL;
    unsigned long given = text ? strtoul(text, &end, 10) : fallback;
    if (text && (*text < '1' || *text > '9' || *end || given > max))
        return kiln_fail(err, KILN_E_INVAL, "--%s: a number from 1 to %u", name, max);
    *value = (uint32_t)given;
    return 0;
}

int kiln_draft_begin(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err) {
    *draft = (struct kiln_draft){.envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX)};
    return kiln_admin_settings_load(call, &draft->settings, err);
}

static int fetch(struct kiln_draft *draft, struct kiln_err *err) {
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    int rc = kiln_storage_open(&draft->settings, &storage, err);
    return rc ? rc : kiln_storage_get(&storage, KILN_TRUST_KEY, &draft->envelope, err);
}

int kiln_draft_read(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err) {
    const char *in = kiln_cli_text(call, "in");
    int rc = kiln_draft_begin(call, draft, err);
    if (!rc)
        rc = in ? kiln_fs_read_file(AT_FDCWD, in, &draft->envelope, err) : fetch(draft, err);
    if (!rc)
        rc = kiln_trust_record_open(draft->envelope.data, draft->envelope.len, draft->settings.roots.keys, draft->settings.roots.count,
                                    in ? 1 : draft->settings.roots.threshold, &draft->record, err);
    uint64_t least = rc ? 0 : kiln_conf_number(draft->settings.conf, "fleet.trust_version");
    if (!rc && draft->record.version < least) // a storage that gives an old one back would have its revocations forgotten
        rc = kiln_fail(err, KILN_E_DENIED, "the record is of version %" PRIu64 ", but fleet.trust_version is %" PRIu64,
                       draft->record.version, least);
    return rc;
}

static int sign(const struct kiln_cli_call *call, const struct kiln_trust_record *record, struct kiln_buf *envelope, struct kiln_err *err) {
    kiln_autoroot_keys struct kiln_root_keys keys = {.count = 0};
    const char *files = kiln_cli_text(call, "roots");
    if (!files)
        return kiln_fail(err, KILN_E_INVAL, "--roots is needed: the key files that sign the record");
    int rc = kiln_root_keys_load(files, &keys, err);
    return rc ? rc : kiln_trust_record_sign(record, (const struct kiln_sign_key *const *)keys.keys, keys.count, envelope, err);
}

int kiln_draft_push(const struct kiln_admin_settings *settings, const struct kiln_trust_record *record, const struct kiln_buf *envelope,
                    struct kiln_err *err) {
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    kiln_autobuf struct kiln_buf there = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autotrust_record struct kiln_trust_record newest = {0};
    int rc = kiln_storage_open(settings, &storage, err);
    if (rc)
        return rc;
    rc = kiln_storage_get(&storage, KILN_TRUST_KEY, &there, err);
    if (rc && rc != KILN_E_NOTFOUND)
        return rc;
    // What does not open was put there by somebody else, and makes room.
    if (!rc && !kiln_trust_record_open(there.data, there.len, settings->roots.keys, settings->roots.count, settings->roots.threshold,
                                       &newest, NULL) && newest.version >= record->version)
        return kiln_fail(err, KILN_E_EXISTS, "the vault holds version %" PRIu64 ", this is %" PRIu64 ": begin again from that one",
                         newest.version, record->version);
    return kiln_storage_put(&storage, KILN_TRUST_KEY, envelope, err);
}

int kiln_draft_issue(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autotrust_record struct kiln_trust_record checked = {0};
    const char *out = kiln_cli_text(call, "out");
    uint32_t days;
    int rc = kiln_admin_number(call, "days", DAYS, DAYS_MAX, &days, err);
    if (rc)
        return rc;
    draft->record.version++;
    draft->record.issued_ms = kiln_clock_wall_ms();
    draft->record.expires_ms = draft->record.issued_ms + days * DAY_MS;
    kiln_trust_record_sort(&draft->record);
    rc = sign(call, &draft->record, &envelope, err);
    if (!rc)
        rc = kiln_trust_record_open(envelope.data, envelope.len, draft->settings.roots.keys, draft->settings.roots.count,
                                    out ? 1 : draft->settings.roots.threshold, &checked, err);
    if (rc)
        return rc;
    return out ? kiln_fs_write_file(AT_FDCWD, out, envelope.data, envelope.len, 0644, err) : kiln_draft_push(&draft->settings, &draft->record, &envelope, err);
}

int kiln_draft_print_issued(const struct kiln_cli_call *call, const struct kiln_draft *draft) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1024);
    const struct kiln_trust_record *record = &draft->record;
    bool pushed = !kiln_cli_text(call, "out");
    if (kiln_cli_flag(call, "json"))
        kiln_buf_addf(&out, "{\"version\": %" PRIu64 ", \"generation\": %" PRIu64 ", \"expires_ms\": %" PRIu64 ", \"pushed\": %s}\n",
                      record->version, record->generation, record->expires_ms, pushed ? "true" : "false");
    else
        kiln_buf_addf(&out, "trust record version %" PRIu64 ", generation %" PRIu64 ": %s\n", record->version, record->generation,
                      pushed ? "in the vault" : "written, not in the vault");
    return kiln_admin_print(&out);
}

int kiln_draft_change(const struct kiln_cli_call *call,
                      int (*change)(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err)) {
    kiln_autodraft struct kiln_draft draft = {.envelope = KILN_BUF_INIT(0)};
    struct kiln_err err;
    int rc = kiln_draft_read(call, &draft, &err);
    if (!rc)
        rc = change(call, &draft.record, &err);
    if (!rc)
        rc = kiln_draft_issue(call, &draft, &err);
    return rc ? kiln_admin_failed(call, &err) : kiln_draft_print_issued(call, &draft);
}
