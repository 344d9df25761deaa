// Content of one result that was brought from the fleet for one request: open descriptors by digest, so that what was just
// checked is neither read nor hashed again. Belongs to one request; not thread-safe while it grows.
#pragma once

#include "lib/core/digest.h"

struct kiln_fetched_one {
    struct kiln_digest digest;
    uint64_t size;
    int fd;
};

struct kiln_fetched {
    struct kiln_fetched_one *all;
    size_t count;
};

void kiln_fetched_release(struct kiln_fetched *fetched);
// Takes ownership of fd, also on failure.
int kiln_fetched_add(struct kiln_fetched *fetched, const struct kiln_digest *digest, uint64_t size, int fd, struct kiln_err *err);
bool kiln_fetched_has(const struct kiln_fetched *fetched, const struct kiln_digest *digest);
// A read-only descriptor of its own at offset 0. KILN_E_NOTFOUND when it is not there with that size.
int kiln_fetched_open(const struct kiln_fetched *fetched, const struct kiln_digest *digest, uint64_t size, int *fd,
                      struct kiln_err *err);
