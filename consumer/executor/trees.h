// Unpacked packages, kept between jobs: DIR/trees/HEX/{root,tree}. See stage.h.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/tree.h"

struct kiln_trees;

// `dir` is the executor's own directory. Removes half-made trees and those beyond the bound: 3000 trees, and max_bytes when
// it is not 0.
int kiln_trees_open(const char *dir, struct kiln_store *store, uint64_t max_bytes, struct kiln_trees **trees,
                    struct kiln_err *err);
void kiln_trees_close(struct kiln_trees *trees);
bool kiln_trees_has(struct kiln_trees *trees, const struct kiln_digest *digest);
// Unpacks a pack that was fetched.
int kiln_trees_add(struct kiln_trees *trees, int pack, const struct kiln_digest *digest, struct kiln_err *err);
// The directory and the listing of a pack of the store; unpacked first when it is not there, or not right any more. It stays
// until it is given back as often as it was got.
int kiln_trees_get(struct kiln_trees *trees, const char *scope, const struct kiln_digest *digest, int *root,
                   struct kiln_tree *tree, struct kiln_err *err);
void kiln_trees_give_back(struct kiln_trees *trees, const struct kiln_digest *digest);
