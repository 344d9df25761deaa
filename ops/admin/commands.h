// The table of kiln-admin's commands: one file each, one const entry each.
#pragma once

#include "lib/base/buf.h"
#include "lib/base/cli.h"

extern const struct kiln_cli_command kiln_admin_program; // the root; its file lists the others

extern const struct kiln_cli_command kiln_admin_init;
extern const struct kiln_cli_command kiln_admin_key;
extern const struct kiln_cli_command kiln_admin_probe;
extern const struct kiln_cli_command kiln_admin_toolchain;
extern const struct kiln_cli_command kiln_admin_public;
extern const struct kiln_cli_command kiln_admin_trust;
extern const struct kiln_cli_command kiln_admin_trust_show;
extern const struct kiln_cli_command kiln_admin_trust_enrol;
extern const struct kiln_cli_command kiln_admin_trust_rotate;
extern const struct kiln_cli_command kiln_admin_trust_revoke;
extern const struct kiln_cli_command kiln_admin_trust_renew;
extern const struct kiln_cli_command kiln_admin_trust_sign;
extern const struct kiln_cli_command kiln_admin_trust_push;

#define KILN_ADMIN_TEXT_BYTES_MAX (64u << 20)

// Says on stderr what went wrong; returns the exit code.
int kiln_admin_failed(const struct kiln_cli_call *call, const struct kiln_err *err);
int kiln_admin_usage(const struct kiln_cli_call *call, const char *what);
int kiln_admin_print(const struct kiln_buf *text); // on stdout; returns the exit code
