// Commands that the agent answers: what it says is printed as it comes.
#pragma once

#include "lib/base/cli.h"

enum kiln_cmd_effort {
    KILN_ASK_RUNNING, // only an agent that runs
    KILN_ASK_START,   // starts one in the user's own directory when none runs
};

// Sends the command's name, its operands and the options that were given; returns the exit code. Without an agent: says
// why on stderr, and what was compiled locally meanwhile; with --json an object {"agent": null, "reason": ...} on stdout.
int kiln_cmd_ask(const struct kiln_cli_call *call, enum kiln_cmd_effort effort);
