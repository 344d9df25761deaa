// Libraries that this process has hashed, ready to be linked into a job's directory: DIR/blobs/HEX. See stage.h.
#pragma once

#include "lib/blob/store.h"

struct kiln_libraries;

// `dir` is the executor's own directory. kept_bytes 0: what an earlier process left there is removed (it links into the store);
// else it stays within that many bytes, the longest unused go first, and is hashed again when it is first used.
int kiln_libraries_open(const char *dir, struct kiln_store *store, uint64_t kept_bytes, struct kiln_libraries **libraries,
                        struct kiln_err *err);
void kiln_libraries_close(struct kiln_libraries *libraries);
// Whether a link can be made without asking the store.
bool kiln_libraries_has(struct kiln_libraries *libraries, const struct kiln_digest *digest, uint64_t size);
// Takes in what was fetched.
int kiln_libraries_add(struct kiln_libraries *libraries, int fd, const struct kiln_digest *digest, uint64_t size,
                       struct kiln_err *err);
// A hard link to the library as `name` in the directory `to`, on the same file system.
int kiln_libraries_link(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest,
                        uint64_t size, int to, const char *name, struct kiln_err *err);
