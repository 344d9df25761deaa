#include "producer/cmd/ask.h"
#include "producer/cmd/commands.h"

static const struct kiln_cli_option options[] = {
    {"show-origin", NULL, "Say where each value comes from."},
    {"json", NULL, "Print a JSON array."},
};

static int run(const struct kiln_cli_call *call) { return kiln_cmd_ask(call, KILN_ASK_RUNNING); }

const struct kiln_cli_command kiln_cmd_config = {
    .name = "config",
    .help = "Print the settings that the running agent works with.",
    .details = "No agent is started for this: its settings are fixed when it starts.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
