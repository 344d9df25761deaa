// kiln-admin: what operators do to a fleet (`kiln admin COMMAND ...` runs it).
#include <stdio.h>

#include "ops/admin/commands.h"

int main(int argc, char **argv) {
    struct kiln_cli_call call;
    struct kiln_err err;
    if (kiln_cli_parse(&kiln_admin_program, argc, argv, &call, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return KILN_EXIT_USAGE;
    }
    if (call.wants_help) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(KILN_ADMIN_TEXT_BYTES_MAX);
        kiln_cli_help(&call, &text);
        return kiln_admin_print(&text);
    }
    return call.command->run(&call);
}
