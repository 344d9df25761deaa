// kiln admin: runs kiln-admin, which lies beside this program and alone is linked with what a fleet needs.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/ipc/endpoint.h"
#include "producer/cmd/commands.h"

int kiln_cmd_run_admin(char **argv) {
    kiln_autofree char *program = NULL;
    struct kiln_err err;
    if (kiln_endpoint_program("kiln-admin", &program, &err)) {
        fprintf(stderr, "kiln admin: %s\n", err.text);
        return KILN_EXIT_FAILED;
    }
    argv[0] = program;
    execv(program, argv);
    fprintf(stderr, "kiln admin: %s: %s\n", program, strerrordesc_np(errno));
    return KILN_EXIT_FAILED;
}

static int run(const struct kiln_cli_call *call) {
    (void)call;
    return kiln_cmd_run_admin((char *[]){(char *)"kiln-admin", (char *)"--help", NULL});
}

const struct kiln_cli_command kiln_cmd_admin = {
    .name = "admin",
    .operands = "COMMAND ...",
    .operands_max = 1,
    .help = "Set up and look after a fleet: everything behind this word goes to kiln-admin.",
    .details = "See `kiln admin --help`.",
    .run = run,
};
