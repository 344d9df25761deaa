#include <fcntl.h>

#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/principals.h"

#define LIST_BYTES_MAX (8u << 20)
#define DAY_MS (24ull * 3600 * 1000)
#define KEY_DAYS 365
#define KEY_DAYS_MAX 3650

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"principals", "FILE", "Whom to enrol or change: NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY] a line, - for none."},
    {"key-days", "COUNT", "How long a new signing key of a verifier is good (default 365)."},
};

static int change(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(LIST_BYTES_MAX);
    const char *file = kiln_cli_text(call, "principals");
    uint32_t days;
    int rc = kiln_admin_number(call, "key-days", KEY_DAYS, KEY_DAYS_MAX, &days, err);
    if (!rc)
        rc = kiln_fs_read_file(AT_FDCWD, file, &text, err);
    if (rc)
        return rc;
    rc = kiln_principals_parse((const char *)text.data, text.len, kiln_clock_wall_ms() + days * DAY_MS, record, err);
    return rc ? kiln_wrap(err, rc, "%s", file) : 0;
}

static int run(const struct kiln_cli_call *call) {
    if (!kiln_cli_text(call, "principals"))
        return kiln_admin_usage(call, "--principals is needed");
    return kiln_draft_change(call, change);
}

const struct kiln_cli_command kiln_admin_trust_enrol = {
    .name = "enrol",
    .help = "Put principals into the record, or other keys, tenants and pools of those in it.",
    .details = "Topics and rights on Kafka are not touched: run `kiln-admin init` again for those.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
