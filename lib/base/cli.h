// Commands and options from tables: one table makes the parser, --help, the manual page and the shell completion.
//
// A program is a command; a command has options, operands and subcommands. Parsing is getopt_long(3)'s: options and
// operands in any order, `--` ends the options, long options may be given by an unambiguous beginning. Every command has
// --help and -h. Nothing here prints. Not re-entrant (getopt is not): for the start of a program.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define KILN_CLI_OPTIONS_MAX 24
#define KILN_CLI_DEPTH_MAX 4

// Exit codes of all of Kiln's programs, except that a wrapped compiler's own are passed on.
enum kiln_cli_exit {
    KILN_EXIT_OK = 0,
    KILN_EXIT_FAILED = 1, // what was asked for could not be done; stderr says why
    KILN_EXIT_USAGE = 2,  // the command line is wrong; nothing was done
};

struct kiln_cli_option {
    const char *name;  // "show-origin"
    const char *value; // what the value is called: "DIR" and "FILE" complete as such. NULL: a flag
    const char *help;  // one sentence
};

struct kiln_cli_section { // of the manual page and the program's --help
    const char *title, *text;
};

struct kiln_cli_call;

struct kiln_cli_command {
    const char *name;
    const char *operands; // "[COMMAND]" as in a synopsis; NULL: none
    size_t operands_max;
    const char *help;     // one sentence
    const char *details;  // more sentences, or NULL
    const struct kiln_cli_option *options;
    size_t options_count;
    const struct kiln_cli_command *const *commands; // subcommands, ended by NULL; NULL: none
    const struct kiln_cli_section *sections;        // of a program, ended by an empty one; NULL: none
    int (*run)(const struct kiln_cli_call *call);   // returns the exit code; NULL: only its subcommands run
};

struct kiln_cli_call {
    const struct kiln_cli_command *path[KILN_CLI_DEPTH_MAX]; // the program, ..., the command
    size_t depth;
    const struct kiln_cli_command *command; // the last of path
    const char *values[KILN_CLI_OPTIONS_MAX]; // by index of the command's options; NULL when not given
    char **operands;
    size_t operands_count;
    bool wants_help; // --help: nothing else was checked
};

// Fills `call`, which borrows from argv. argv may be reordered. KILN_E_INVAL names what is wrong and the nearest that
// would be right.
int kiln_cli_parse(const struct kiln_cli_command *program, int argc, char **argv, struct kiln_cli_call *call,
                   struct kiln_err *err);
// These assert that the command's table has the option.
bool kiln_cli_flag(const struct kiln_cli_call *call, const char *name);
const char *kiln_cli_text(const struct kiln_cli_call *call, const char *name); // the last one given; NULL: none

// The command in `commands` that is called `name`; NULL when there is none.
const struct kiln_cli_command *kiln_cli_find(const struct kiln_cli_command *const *commands, const char *name);
// The name in `commands` that is most like `name`; NULL when none is.
const char *kiln_cli_nearest(const struct kiln_cli_command *const *commands, const char *name);

// Text of --help for the command that `call` ends at.
int kiln_cli_help(const struct kiln_cli_call *call, struct kiln_buf *out);
// man(7) source of the whole program.
int kiln_cli_man(const struct kiln_cli_command *program, struct kiln_buf *out);
// A completion function for bash.
int kiln_cli_bash(const struct kiln_cli_command *program, struct kiln_buf *out);
