// The trust record while an operator changes it: the one in force (from the vault or a file), changed, numbered, signed, and
// pushed or written to a file for further signatures.
//
// Options that every command with a draft has: KILN_DRAFT_OPTIONS.
#pragma once

#include "lib/core/trust_record.h"
#include "ops/admin/settings.h"

#define KILN_DRAFT_OPTIONS                                                                                                       \
    {"config", "FILE", "The operator's kiln.conf (default /etc/kiln/kiln.conf)."},                                               \
    {"roots", "FILE,FILE", "Key files of the roots that sign here."},                                                            \
    {"in", "FILE", "Start from the record in this file instead of the one in the vault."},                                       \
    {"out", "FILE", "Write the signed record to this file instead of the vault: the roots that are elsewhere sign it, then push."}, \
    {"days", "COUNT", "How long the new record is good (default 30)."},                                                          \
    {"json", NULL, "Print JSON."}

struct kiln_draft {
    struct kiln_admin_settings settings;
    struct kiln_trust_record record;
    struct kiln_buf envelope; // the record as it was read
};
void kiln_draft_release(struct kiln_draft *draft);
#define kiln_autodraft __attribute__((cleanup(kiln_draft_release)))

// A new one, without anybody in it. KILN_DRAFT_OPTIONS are those of the call.
int kiln_draft_begin(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err);
// Reads the record; fewer signatures than the threshold are enough only for one from a file.
int kiln_draft_read(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err);
// Version + 1, issued now; signs; pushes or writes. The record is checked by its own reader first.
int kiln_draft_issue(const struct kiln_cli_call *call, struct kiln_draft *draft, struct kiln_err *err);
// Puts a record into the vault unless one that is not older lies there.
int kiln_draft_push(const struct kiln_admin_settings *settings, const struct kiln_trust_record *record, const struct kiln_buf *envelope,
                    struct kiln_err *err);
// What was issued, on stdout; returns the exit code.
int kiln_draft_print_issued(const struct kiln_cli_call *call, const struct kiln_draft *draft);
// A command that reads, changes and issues; returns the exit code.
int kiln_draft_change(const struct kiln_cli_call *call,
                      int (*change)(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err));
// An option that is a number from 1 to `max`.
int kiln_admin_number(const struct kiln_cli_call *call, const char *name, uint32_t fallback, uint32_t max, uint32_t *value,
                      struct kiln_err *err);
