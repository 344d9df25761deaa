// Finding an input's bytes in the store, wherever they lie there.
//
// Where content lies: in the embedded store, packages and lists come from submitters (inputs) and libraries mostly from
// earlier jobs (vault); on S3 all that jobs need lies in inputs, in the job's scope or, as part of a tenant's job, in `public`.
#pragma once

#include "lib/blob/store.h"
#include "lib/wire/records.h"

struct kiln_content_want {
    enum kiln_content_kind kind;
    struct kiln_digest digest;
    uint64_t size;
    int fd; // result; -1 with the reason in err
    struct kiln_err err;
};

// A descriptor on an object that still has to be checked.
int kiln_content_open(struct kiln_store *store, enum kiln_content_kind kind, const char *scope,
                      const struct kiln_digest *digest, int *fd, struct kiln_err *err);
// All at once, in parallel. Blobs and lists are checked; a pack is when it is unpacked. The descriptors are the caller's.
int kiln_content_fetch(struct kiln_store *store, const char *scope, struct kiln_content_want *wants, size_t count,
                       struct kiln_err *err);
