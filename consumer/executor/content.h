// Finding an input's bytes in the store, wherever it lies there.
#pragma once

#include "lib/blob/store.h"
#include "lib/wire/records.h"

// A descriptor on an object that still has to be checked. Packages and lists come from submitters (inputs), libraries
// mostly from earlier jobs (vault): each is looked for in its likelier place first.
int kiln_content_open(struct kiln_store *store, enum kiln_content_kind kind, const char *scope,
                      const struct kiln_digest *digest, int *fd, struct kiln_err *err);
