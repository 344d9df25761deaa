// Unpacked packages, kept between jobs: DIR/trees/HEX/{root,tree}. See stage.h.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/tree.h"

struct kiln_trees;

// `dir` is the executor's own directory. Removes half-made trees and those beyond the bound.
int kiln_trees_open(const char *dir, struct kiln_store *store, struct kiln_trees **trees, struct kiln_err *err);
void kiln_trees_close(struct kiln_trees *trees);
// The directory and the listing of a pack of the store; unpacked first when it is not there, or not right any more.
int kiln_trees_get(struct kiln_trees *trees, const char *scope, const struct kiln_digest *digest, int *root,
                   struct kiln_tree *tree, struct kiln_err *err);
