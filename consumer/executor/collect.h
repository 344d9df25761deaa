// Takes a finished job's outputs from the descriptor of its out directory. Everything in there is hostile.
//
// Only names that the canonical command line lets expect (lib/rustc/argv.h) are looked at: opened beneath the directory without
// following links, they must be regular files with one name, owned by whoever owns the directory, within the bounds. An expected
// name that is anything else is KILN_E_DENIED, a missing required one KILN_E_NOTFOUND: both are the job's failure.
// Everything else in the directory is ignored. Call only after every process of the job is gone.
#pragma once

#include "lib/core/action.h"
#include "lib/wire/records.h"

#define KILN_COLLECT_BYTES_MAX (8ull << 30)
#define KILN_COLLECT_FILES_MAX 2048u

struct kiln_collected {
    char *name;
    int fd; // read-only, at its start
    bool executable;
    uint64_t size;
    struct kiln_digest digest;
    bool holds_sandbox_path; // a path became a value (never set for dep-info, which names the sources by design)
};

struct kiln_collection {
    struct kiln_collected *files;
    size_t count;
};

int kiln_collect(int out_dir, const struct kiln_action *action, struct kiln_collection *collection, struct kiln_err *err);
void kiln_collection_release(struct kiln_collection *collection);
