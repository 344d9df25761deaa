#include <stdio.h>
#include <unistd.h>

#include "lib/base/fs.h"
#include "ops/admin/commands.h"

static const struct kiln_cli_command *const commands[] = {
    &kiln_admin_init, &kiln_admin_trust, &kiln_admin_public, &kiln_admin_key,
    &kiln_admin_probe, &kiln_admin_toolchain, NULL,
};

static const struct kiln_cli_option options[] = {
    {"man", NULL, "Print the manual page (man(7) source)."},
};

static const struct kiln_cli_section sections[] = {
    {"Files",
     "kiln.conf: the file that --config names, or /etc/kiln/kiln.conf; its sections [fleet], [s3] and [tls] say where the fleet is and "
     "with whose certificate and storage key to go there (an operator's)."},
    {NULL, NULL},
};

static int run(const struct kiln_cli_call *call) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(KILN_ADMIN_TEXT_BYTES_MAX);
    if (kiln_cli_flag(call, "man")) {
        kiln_cli_man(&kiln_admin_program, &text);
        return kiln_admin_print(&text);
    }
    kiln_cli_help(call, &text);
    fputs(kiln_buf_text(&text), stderr);
    return KILN_EXIT_USAGE;
}

const struct kiln_cli_command kiln_admin_program = {
    .name = "kiln-admin",
    .help = "Set up and look after a fleet: its topics, rights, buckets and the trust record.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .commands = commands,
    .sections = sections,
    .run = run,
};

static void say_command(const struct kiln_cli_call *call) {
    for (size_t i = 0; i < call->depth; i++)
        fprintf(stderr, "%s%s", i ? " " : "", call->path[i]->name);
}

int kiln_admin_failed(const struct kiln_cli_call *call, const struct kiln_err *err) {
    say_command(call);
    fprintf(stderr, ": %s\n", err->text);
    return KILN_EXIT_FAILED;
}

int kiln_admin_usage(const struct kiln_cli_call *call, const char *what) {
    say_command(call);
    fprintf(stderr, ": %s\n", what);
    return KILN_EXIT_USAGE;
}

int kiln_admin_print(const struct kiln_buf *text) {
    if (text->failed || kiln_fs_write_all(STDOUT_FILENO, text->data, text->len, NULL))
        return KILN_EXIT_FAILED;
    return KILN_EXIT_OK;
}
