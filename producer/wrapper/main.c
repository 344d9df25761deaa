// kiln: a rustc wrapper (`kiln RUSTC ARGUMENT...`) and the user's commands (`kiln COMMAND ...`).
//
// As a wrapper it has nothing of its own to say: what it cannot hand to the agent it runs as cargo asked for it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/path.h"
#include "lib/rustc/argv.h"
#include "producer/cmd/commands.h"
#include "producer/wrapper/local.h"
#include "producer/wrapper/remote.h"

static bool is_compiler(const char *word) {
    if (word[0] == '-' || kiln_cli_find(kiln_program.commands, word))
        return false;
    return strchr(word, '/') || !strcmp(word, "rustc") || !strcmp(word, "clippy-driver") || kiln_local_is_program(word);
}

static _Noreturn void wrap(size_t argc, char **argv) {
    const char *local = getenv("KILN_LOCAL");
    if (!(local && !strcmp(local, "1")) && !kiln_rustc_is_probe(argc, argv))
        kiln_remote_compile(argc, argv);
    kiln_local_run(argv);
}

int main(int argc, char **argv) {
    if (argc > 1 && is_compiler(argv[1]))
        wrap((size_t)argc - 1, argv + 1);
    if (kiln_cmd_is_admin(argc, argv))
        return kiln_cmd_run_admin(argv);
    struct kiln_cli_call call;
    struct kiln_err err;
    if (kiln_cli_parse(&kiln_program, argc, argv, &call, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return KILN_EXIT_USAGE;
    }
    return call.wants_help ? kiln_cmd_print_help(&call) : call.command->run(&call);
}
