#include "producer/cmd/ask.h"
#include "producer/cmd/commands.h"

static const struct kiln_cli_option options[] = {
    {"json", NULL, "Print one JSON object."},
};

static int run(const struct kiln_cli_call *call) { return kiln_cmd_ask(call, KILN_ASK_START); }

const struct kiln_cli_command kiln_cmd_doctor = {
    .name = "doctor",
    .help = "Prove that this host can compile in a sandbox, or say what is missing.",
    .details = "Runs a sandboxed job and tries what must be refused in it.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
