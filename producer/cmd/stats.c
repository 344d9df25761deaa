#include "producer/cmd/ask.h"
#include "producer/cmd/commands.h"

static const struct kiln_cli_option options[] = {
    {"json", NULL, "Print one JSON object."},
    {"zero", NULL, "Set all counters to zero first."},
};

static int run(const struct kiln_cli_call *call) { return kiln_cmd_ask(call, KILN_ASK_START); }

const struct kiln_cli_command kiln_cmd_stats = {
    .name = "stats",
    .help = "Print what was asked, hit, missed, executed and compiled locally, and why.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
