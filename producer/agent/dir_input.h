// A directory of the client as an input tree: which of its entries go in, its digest, and its pack.
//
// Which entries: lib/core/dir_walk.h. Past its limits: KILN_E_LIMIT (the unit is local).
// The digest of an unchanged directory is remembered by the stat of all its entries. Thread-safe.
#pragma once

#include "lib/core/dir_walk.h"
#include "producer/agent/memo.h"

// Digest of the tree, without reading files that are remembered.
int kiln_dir_digest(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule,
                    struct kiln_digest *digest, struct kiln_err *err);
// The tree itself (zeroed at first), for the upload.
int kiln_dir_tree(struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule, struct kiln_tree *tree,
                  struct kiln_err *err);
