// Which environment variables a job sees, and which of them are the same for everybody.
//
// Three classes. *Fixed* variables have one value (or none) in every sandbox whatever the client has: a job must not
// read them as inputs, so asking for one is treated as undeclared. *Unit* variables are those cargo documents for the
// crate being compiled. *Carried* variables are an allow-list that rustc itself reads. All others reach a job only
// because cargo set them for this unit (a build script's rustc-env, [env]) or because its sources name them.
// Source: the Cargo book, "Environment variables Cargo sets for crates"; rustc 1.95's std::env reads.
// Pure; re-entrant.
#pragma once

#include <stdbool.h>

// The value every job sees: set with *value (heap, caller frees) and true; true with *value NULL: always absent.
bool kiln_environment_fixed(const char *name, char **value);
bool kiln_environment_is_fixed(const char *name);
bool kiln_environment_is_unit(const char *name);    // CARGO_PKG_*, CARGO_MANIFEST_DIR, OUT_DIR, CARGO_BIN_EXE_* ...
bool kiln_environment_is_carried(const char *name); // RUSTC_BOOTSTRAP, SOURCE_DATE_EPOCH ...
// A variable that changes what rustc or the linker do in ways the sandbox does not reproduce: its presence on the
// client makes the unit local ("linker" ones only for jobs that link).
bool kiln_environment_forbids(const char *name, bool links);
// The fixed names in order, NULL at the end.
const char *kiln_environment_fixed_name(unsigned index);
