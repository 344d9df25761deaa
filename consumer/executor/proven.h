// What this process has itself hashed and found right: digests in a table of fixed size, where a newer one may push out an
// older one (which then is hashed once more). Thread-safe.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/core/digest.h"
#include "lib/core/tree.h"

struct kiln_proven;

int kiln_proven_new(size_t max_count, struct kiln_proven **proven, struct kiln_err *err);
void kiln_proven_free(struct kiln_proven *proven);
bool kiln_proven_has(struct kiln_proven *proven, const struct kiln_digest *digest);
// True when another digest had to go for it: that one in *pushed_out (may be NULL).
bool kiln_proven_add(struct kiln_proven *proven, const struct kiln_digest *digest, struct kiln_digest *pushed_out);
void kiln_proven_forget(struct kiln_proven *proven, const struct kiln_digest *digest);

// Hashes every file of the tree below `dir`, and looks at its links. KILN_E_CORRUPT names the first that is not as the tree
// says. Directories and files that the tree does not know are not looked for.
int kiln_proven_check_tree(int dir, const struct kiln_tree *tree, struct kiln_err *err);
