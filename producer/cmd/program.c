#include <stdio.h>

#include "producer/cmd/commands.h"
#include "producer/cmd/print.h"

#define TEXT_BYTES_MAX (1u << 20)

static const struct kiln_cli_command *const commands[] = {
    &kiln_cmd_stats, &kiln_cmd_config, &kiln_cmd_doctor, &kiln_cmd_agent, &kiln_cmd_toolchain, &kiln_cmd_admin,   &kiln_cmd_version,
    &kiln_cmd_help, NULL,
};

static const struct kiln_cli_option options[] = {
    {"version", NULL, "Print the version."},
};

static const struct kiln_cli_section sections[] = {
    {"Environment",
     "KILN_DIR: talk to the agent in this directory (started with `kiln agent start --dir`); a wrapper honours it only when "
     "cargo was started with the same value. KILN_LOCAL=1: the wrapper runs the compiler itself. KILN_BUILD_ID: counts of "
     "this build are also kept under this name."},
    {"Files",
     "~/.cache/kiln: the agent's state, its log and the cache. ~/.config/kiln/kiln.conf, then /etc/kiln/kiln.conf: the "
     "agent's configuration. /run/kiln/agent.sock: an agent for all users of the host, preferred when it is there. ~ is "
     "the home directory of the password database."},
    {NULL, NULL},
};

static int run(const struct kiln_cli_call *call) {
    if (kiln_cli_flag(call, "version"))
        return kiln_cmd_version.run(&(struct kiln_cli_call){.command = &kiln_cmd_version});
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(TEXT_BYTES_MAX);
    kiln_cli_help(call, &text);
    fputs(kiln_buf_text(&text), stderr);
    return KILN_EXIT_USAGE;
}

const struct kiln_cli_command kiln_program = {
    .name = "kiln",
    .help = "Compile Rust once: a wrapper for rustc, and commands to look after it.",
    .details = "With RUSTC_WRAPPER=kiln, cargo runs `kiln RUSTC ARGUMENT...` for each compile: the agent answers it from the "
               "cache or has it compiled in a sandbox, and whatever it cannot answer is compiled as if kiln were not there. The "
               "wrapper prints nothing of its own.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .commands = commands,
    .sections = sections,
    .run = run,
};

int kiln_cmd_print_help(const struct kiln_cli_call *call) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(TEXT_BYTES_MAX);
    kiln_cli_help(call, &text);
    return kiln_cmd_print(&text);
}
