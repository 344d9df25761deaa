#include "producer/cmd/ask.h"
#include "producer/cmd/commands.h"

static const struct kiln_cli_option options[] = {
    {"json", NULL, "Print a JSON array."},
};

static int run_list(const struct kiln_cli_call *call) { return kiln_cmd_ask(call, KILN_ASK_START); }

static const struct kiln_cli_command list = {
    .name = "list",
    .help = "Print the toolchains that the agent knows, with their digests.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run_list,
};

static const struct kiln_cli_command *const commands[] = {&list, &kiln_cmd_toolchain_publish, NULL};

const struct kiln_cli_command kiln_cmd_toolchain = {
    .name = "toolchain",
    .help = "Look at the toolchains that jobs are compiled with, and give a fleet another.",
    .commands = commands,
};
