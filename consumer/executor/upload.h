// Outputs of one job on their way to quarantine, below out/EXECUTOR/JOB/ATTEMPT/: each one by its digest; with a store that wants
// bundles all of them in one (lib/blob/bundle.h) (KILN_BUNDLE_NAME), which is one request instead of many, and compressed.
// Thread: a struct is one thread's.
#pragma once

#include "lib/blob/bundle.h"
#include "lib/blob/store.h"
#include "lib/wire/records.h"

struct kiln_upload {
    struct kiln_bundle_member *members;
    size_t count;
};

struct kiln_upload_place {
    struct kiln_store *store; // role EXECUTOR
    const char *executor;
    const struct kiln_work *work;
    int scratch_dir; // where bundles are made
};

// A descriptor (borrowed until kiln_upload_send) and what is in it. Equal bytes are sent once.
int kiln_upload_add(struct kiln_upload *upload, int fd, uint64_t size, const struct kiln_digest *digest, struct kiln_err *err);
// KILN_E_CORRUPT: a descriptor has other bytes than was said.
int kiln_upload_send(const struct kiln_upload *upload, const struct kiln_upload_place *place, struct kiln_err *err);
void kiln_upload_release(struct kiln_upload *upload); // zeroed ones too
