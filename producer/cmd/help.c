#include <stdio.h>
#include <string.h>

#include "producer/cmd/commands.h"
#include "producer/cmd/print.h"

#define TEXT_BYTES_MAX (1u << 20)

static const struct kiln_cli_option options[] = {
    {"man", NULL, "Print the manual page (man(7) source)."},
    {"completion", "SHELL", "Print a completion script for the shell; there is one for bash."},
};

static int print_completion(const char *shell) {
    if (strcmp(shell, "bash") != 0) {
        fprintf(stderr, "kiln help: no completion for \"%s\"; there is one for bash\n", shell);
        return KILN_EXIT_USAGE;
    }
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(TEXT_BYTES_MAX);
    kiln_cli_bash(&kiln_program, &out);
    return kiln_cmd_print(&out);
}

static int print_man(void) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(TEXT_BYTES_MAX);
    kiln_cli_man(&kiln_program, &out);
    return kiln_cmd_print(&out);
}

static int print_command(const struct kiln_cli_call *call) {
    struct kiln_cli_call topic = {.path = {&kiln_program}, .depth = 1, .command = &kiln_program};
    for (size_t i = 0; i < call->operands_count; i++) {
        const char *name = call->operands[i];
        const struct kiln_cli_command *next = kiln_cli_find(topic.command->commands, name);
        if (!next) {
            const char *nearest = kiln_cli_nearest(topic.command->commands, name);
            fprintf(stderr, "kiln help: unknown command \"%s\"%s%s%s\n", name, nearest ? "; did you mean \"" : "",
                    nearest ? nearest : "", nearest ? "\"?" : "");
            return KILN_EXIT_USAGE;
        }
        topic.path[topic.depth++] = topic.command = next;
    }
    return kiln_cmd_print_help(&topic);
}

static int run(const struct kiln_cli_call *call) {
    if (kiln_cli_flag(call, "man"))
        return print_man();
    const char *shell = kiln_cli_text(call, "completion");
    return shell ? print_completion(shell) : print_command(call);
}

const struct kiln_cli_command kiln_cmd_help = {
    .name = "help",
    .operands = "[COMMAND ...]",
    .operands_max = KILN_CLI_DEPTH_MAX - 1,
    .help = "Print help for a command, the manual page or a shell completion.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
