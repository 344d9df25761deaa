// A directory of the client as an input tree: which of its entries go in, its digest, and its pack.
//
// Package directories go in whole, except: dot entries and `target` directly below the root (they differ between
// checkouts and are never given: asking for one is undeclared, see consumer/run/witness.h), and, at any depth, version
// control directories and cargo target directories (CACHEDIR.TAG), symlinks that leave the tree and special files, which
// are WITHHELD entries. OUT_DIR goes in whole except top-level *.d files, which hold absolute paths. A native library
// directory contributes its regular files named lib*.
// Limits: KILN_DIR_ENTRIES_MAX entries and KILN_DIR_BYTES_MAX; more is KILN_E_LIMIT (the unit is local).
// The digest of an unchanged directory is remembered by the stat of all its entries. Thread-safe.
#pragma once

#include "lib/core/tree.h"
#include "producer/agent/memo.h"

#define KILN_DIR_ENTRIES_MAX 60000u
#define KILN_DIR_BYTES_MAX (1ull << 30)

enum kiln_dir_rule { KILN_DIR_PACKAGE, KILN_DIR_GENERATED, KILN_DIR_LIBRARIES };

// Digest of the tree, without reading files that are remembered.
int kiln_dir_digest(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule,
                    struct kiln_digest *digest, struct kiln_err *err);
// The tree itself (zeroed at first), for the upload.
int kiln_dir_tree(struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule, struct kiln_tree *tree,
                  struct kiln_err *err);
