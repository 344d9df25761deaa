// The outputs of a candidate, with a store that wants bundles: fetched once, checked byte by byte, and kept from the judgement until
// they are stored, so that what is stored is what was checked. Thread: one task's at a time.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/result.h"

#define KILN_HARVEST_BYTES_MAX (8ull << 30) // of all outputs unpacked: as much as a job may leave

struct kiln_harvested {
    struct kiln_digest digest;
    int fd; // read-only, its bytes have that digest
};

struct kiln_harvest {
    struct kiln_harvested *members; // NULL: nothing fetched
    size_t count;
    int bundle; // as it was uploaded, in a copy of our own
    struct kiln_digest digest;
    uint64_t size;
};

// The object under `key` in quarantine holds the outputs of `result` (which need not be finished) and nothing else. *harvest
// zeroed. KILN_E_CORRUPT: it is not there, or not what was said of it; KILN_E_LIMIT: more than is ever taken.
int kiln_harvest_fetch(struct kiln_store *store, int scratch_dir, const char *key, const struct kiln_result *result,
                       struct kiln_harvest *harvest, struct kiln_err *err);
// A borrowed descriptor; -1: no member has that digest.
int kiln_harvest_find(const struct kiln_harvest *harvest, const struct kiln_digest *digest);
void kiln_harvest_release(struct kiln_harvest *harvest); // zeroed ones too
