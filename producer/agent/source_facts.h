// Lexical facts of a package's Rust sources (lib/rustc/scan.h), remembered by the tree's digest.
#pragma once

#include "lib/rustc/scan.h"
#include "producer/agent/dir_input.h"

// Scans every *.rs file beneath the package directory `dir` unless the facts of `tree` are remembered. *facts zeroed at
// first. KILN_E_UNSUPPORTED when the directory is not `tree` any more after the scan.
int kiln_source_facts(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, const struct kiln_digest *tree,
                      struct kiln_scan_facts *facts, struct kiln_err *err);
