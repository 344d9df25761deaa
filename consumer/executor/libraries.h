// Libraries that this process has hashed, ready to be linked into a job's directory: DIR/blobs/HEX. See stage.h.
#pragma once

#include "lib/blob/store.h"

struct kiln_libraries;

// `dir` is the executor's own directory; what an earlier process left there is removed.
int kiln_libraries_open(const char *dir, struct kiln_store *store, struct kiln_libraries **libraries, struct kiln_err *err);
void kiln_libraries_close(struct kiln_libraries *libraries);
// A hard link to the library as `name` in the directory `to`, on the same file system.
int kiln_libraries_link(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest,
                        uint64_t size, int to, const char *name, struct kiln_err *err);
