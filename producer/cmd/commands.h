// The table of `kiln`'s commands: one file each, one const entry each.
#pragma once

#include "lib/base/cli.h"

extern const struct kiln_cli_command kiln_program; // the root; its file lists the others

extern const struct kiln_cli_command kiln_cmd_stats;
extern const struct kiln_cli_command kiln_cmd_config;
extern const struct kiln_cli_command kiln_cmd_doctor;
extern const struct kiln_cli_command kiln_cmd_agent;
extern const struct kiln_cli_command kiln_cmd_toolchain;
extern const struct kiln_cli_command kiln_cmd_toolchain_publish; // of cmd/admin.c
extern const struct kiln_cli_command kiln_cmd_admin;
extern const struct kiln_cli_command kiln_cmd_version;
extern const struct kiln_cli_command kiln_cmd_help;

// Prints the help of the command that `call` ends at; returns the exit code.
int kiln_cmd_print_help(const struct kiln_cli_call *call);
// `kiln admin ARGUMENT...` and `kiln toolchain publish ARGUMENT...` are kiln-admin's, which reads their options itself.
bool kiln_cmd_is_admin(int argc, char **argv);
int kiln_cmd_run_admin(char **argv); // becomes kiln-admin; returns only when it cannot
