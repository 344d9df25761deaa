// What operators do: run by kiln-admin, which lies beside this program and alone is linked with what a fleet needs.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/ipc/endpoint.h"
#include "producer/cmd/commands.h"

static int become(char **argv) {
    kiln_autofree char *program = NULL;
    struct kiln_err err;
    if (kiln_endpoint_program("kiln-admin", &program, &err)) {
        fprintf(stderr, "kiln: %s\n", err.text);
        return KILN_EXIT_FAILED;
    }
    argv[0] = program;
    execv(program, argv);
    fprintf(stderr, "kiln: %s: %s\n", program, strerrordesc_np(errno));
    return KILN_EXIT_FAILED;
}

bool kiln_cmd_is_admin(int argc, char **argv) {
    return (argc > 1 && !strcmp(argv[1], kiln_cmd_admin.name)) ||
           (argc > 2 && !strcmp(argv[1], kiln_cmd_toolchain.name) && !strcmp(argv[2], kiln_cmd_toolchain_publish.name));
}

int kiln_cmd_run_admin(char **argv) { return become(strcmp(argv[1], kiln_cmd_admin.name) ? argv : argv + 1); }

// Whatever main() did not hand over at once.
static int run(const struct kiln_cli_call *call) {
    (void)call;
    return become((char *[]){(char *)"kiln-admin", (char *)"--help", NULL});
}

const struct kiln_cli_command kiln_cmd_toolchain_publish = {
    .name = "publish",
    .operands = "OPTION ...",
    .help = "Put a toolchain of this host into a fleet's vault, for executors to compile with; kiln-admin does it.",
    .details = "See `kiln toolchain publish --help`.",
    .run = run,
};

const struct kiln_cli_command kiln_cmd_admin = {
    .name = "admin",
    .operands = "COMMAND ...",
    .operands_max = 1,
    .help = "Set up and look after a fleet: everything behind this word goes to kiln-admin.",
    .details = "See `kiln admin --help`.",
    .run = run,
};
