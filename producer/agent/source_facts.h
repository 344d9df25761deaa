// Lexical facts of a package's Rust sources (lib/rustc/scan.h), remembered by the tree's digest.
#pragma once

#include "lib/rustc/scan.h"
#include "producer/agent/l0.h"

// Scans every *.rs file beneath `dir` unless the facts of `tree` are remembered. *facts zeroed at first.
int kiln_source_facts(struct kiln_l0 *l0, const char *dir, const struct kiln_digest *tree, struct kiln_scan_facts *facts,
                      struct kiln_err *err);
