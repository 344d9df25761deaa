#include "lib/ipc/frames.h"
#include "producer/cmd/commands.h"
#include "producer/cmd/print.h"

static const struct kiln_cli_option options[] = {
    {"json", NULL, "Print one JSON object."},
};

static int run(const struct kiln_cli_call *call) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1024);
    if (kiln_cli_flag(call, "json"))
        kiln_buf_addf(&out, "{\"version\": \"%s\", \"frames\": %d}\n", KILN_VERSION, KILN_FRAME_VERSION);
    else
        kiln_buf_addf(&out, "kiln %s\n", KILN_VERSION);
    return kiln_cmd_print(&out);
}

const struct kiln_cli_command kiln_cmd_version = {
    .name = "version",
    .help = "Print the version.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
