#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "lib/base/json.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/principals.h"
#include "ops/admin/revoked.h"

static const struct kiln_cli_option options[] = {
    {"config", "FILE", "The operator's or reader's kiln.conf (default /etc/kiln/kiln.conf)."},
    {"in", "FILE", "Show the record in this file instead of the one in the vault."},
    {"json", NULL, "Print JSON."},
};

static const char *hex_of(const uint8_t key[KILN_PUBLIC_KEY_BYTES], char hex[KILN_DIGEST_HEX_LEN + 1]) {
    struct kiln_digest bytes;
    memcpy(bytes.bytes, key, sizeof bytes.bytes);
    kiln_digest_format(&bytes, hex);
    return hex;
}

static const char *id_of(const uint8_t key[KILN_PUBLIC_KEY_BYTES], char hex[KILN_DIGEST_HEX_LEN + 1]) {
    struct kiln_digest id;
    kiln_digest_of(key, KILN_PUBLIC_KEY_BYTES, &id);
    kiln_digest_format(&id, hex);
    return hex;
}

static const char *day_of(uint64_t ms, char text[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    if (!gmtime_r(&seconds, &parts) || !strftime(text, 32, "%Y-%m-%d %H:%M UTC", &parts))
        return "?";
    return text;
}

static void add_text(struct kiln_buf *out, const char *name, const char *value) {
    kiln_buf_addf(out, "\"%s\": ", name);
    kiln_json_add_string(out, value, strlen(value));
}

static void print_json(const struct kiln_trust_record *record, struct kiln_buf *out) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_buf_addf(out, "{\"version\": %" PRIu64 ", \"generation\": %" PRIu64 ", \"issued_ms\": %" PRIu64 ", \"expires_ms\": %" PRIu64
                       ",\n \"principals\": [", record->version, record->generation, record->issued_ms, record->expires_ms);
    for (size_t i = 0; i < record->principals_count; i++) {
        const struct kiln_principal *one = &record->principals[i];
        kiln_buf_add_str(out, i ? ",\n  {" : "\n  {");
        add_text(out, "name", one->name);
        kiln_buf_addf(out, ", \"role\": \"%s\", ", kiln_principals_role_name(one->role));
        add_text(out, "tenant", one->tenant);
        kiln_buf_add_str(out, ", ");
        add_text(out, "pool", one->pool);
        kiln_buf_addf(out, ", \"record_key\": \"%s\"}", hex_of(one->record_key, hex));
    }
    kiln_buf_add_str(out, "],\n \"keys\": [");
    for (size_t i = 0; i < record->keys_count; i++) {
        kiln_buf_add_str(out, i ? ",\n  {" : "\n  {");
        add_text(out, "principal", record->keys[i].principal);
        kiln_buf_addf(out, ", \"id\": \"%s\"", id_of(record->keys[i].public_key, hex));
        kiln_buf_addf(out, ", \"public_key\": \"%s\", \"not_after_ms\": %" PRIu64 "}", hex_of(record->keys[i].public_key, hex),
                      record->keys[i].not_after_ms);
    }
    kiln_buf_add_str(out, "],\n \"revocations\": [");
    for (size_t i = 0; i < record->revocations_count; i++) {
        kiln_buf_addf(out, "%s\n  {\"kind\": \"%s\", ", i ? "," : "", kiln_revoked_name(record->revocations[i].kind));
        add_text(out, "what", record->revocations[i].what);
        kiln_buf_addf(out, ", \"since_ms\": %" PRIu64 ", \"until_ms\": %" PRIu64 "}", record->revocations[i].since_ms,
                      record->revocations[i].until_ms);
    }
    kiln_buf_add_str(out, "]}\n");
}

static void print_text(const struct kiln_trust_record *record, struct kiln_buf *out) {
    char hex[KILN_DIGEST_HEX_LEN + 1], day[32];
    kiln_buf_addf(out, "version %" PRIu64 ", generation %" PRIu64 "\nissued %s\n", record->version, record->generation,
                  day_of(record->issued_ms, day));
    kiln_buf_addf(out, "expires %s\n", day_of(record->expires_ms, day));
    for (size_t i = 0; i < record->principals_count; i++) {
        const struct kiln_principal *one = &record->principals[i];
        kiln_buf_addf(out, "%-9s %s%s%s%s%s\n", kiln_principals_role_name(one->role), one->name, *one->tenant ? ", tenant " : "", one->tenant,
                      *one->pool ? ", pool " : "", one->pool);
    }
    for (size_t i = 0; i < record->keys_count; i++)
        kiln_buf_addf(out, "key       %s of %s, until %s\n", id_of(record->keys[i].public_key, hex), record->keys[i].principal,
                      day_of(record->keys[i].not_after_ms, day));
    for (size_t i = 0; i < record->revocations_count; i++) {
        const struct kiln_revocation *one = &record->revocations[i];
        kiln_buf_addf(out, "revoked   %s %s, %s%s", kiln_revoked_name(one->kind), one->what, one->since_ms ? "since " : "all",
                      one->since_ms ? day_of(one->since_ms, day) : "");
        kiln_buf_addf(out, "%s%s\n", one->until_ms ? ", until " : "", one->until_ms ? day_of(one->until_ms, day) : "");
    }
}

static int run(const struct kiln_cli_call *call) {
    kiln_autodraft struct kiln_draft draft = {.envelope = KILN_BUF_INIT(0)};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_ADMIN_TEXT_BYTES_MAX);
    struct kiln_err err;
    if (kiln_draft_read(call, &draft, &err))
        return kiln_admin_failed(call, &err);
    kiln_cli_flag(call, "json") ? print_json(&draft.record, &out) : print_text(&draft.record, &out);
    return kiln_admin_print(&out);
}

const struct kiln_cli_command kiln_admin_trust_show = {
    .name = "show",
    .help = "Print the trust record: version, generation, who is who, keys, revocations.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
