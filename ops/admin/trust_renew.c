#include "ops/admin/commands.h"
#include "ops/admin/draft.h"

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"next-generation", NULL, "Begin the next generation too: entries that are used are carried over, the others fade."},
};

static int change(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    (void)err;
    if (kiln_cli_flag(call, "next-generation"))
        record->generation++;
    return 0;
}

static int run(const struct kiln_cli_call *call) { return kiln_draft_change(call, change); }

const struct kiln_cli_command kiln_admin_trust_renew = {
    .name = "renew",
    .help = "Issue the record again before it expires.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
