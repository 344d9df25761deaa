// Verified inputs of one job as directories to bind: unpacked packages (kept between jobs) and lists of libraries.
//
// From a store that is far away, all missing packages and lists are fetched at once, then all missing libraries.
// DIR/executor/trees/HEX/{root,tree}: a pack, unpacked once by a temporary directory and rename, and hashed once by each
// later process that uses it; the longest unused go beyond a bound. DIR/executor/blobs/HEX: a library whose bytes were hashed
// by this process, a hard link into the store where that is possible, else a copy. DIR/executor/jobs/N: a job's list
// directories, hard links of blobs. kiln_stages_open clears blobs, jobs and what a killed predecessor left.
// Thread-safe; a stage belongs to one thread.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "lib/core/tree.h"

struct kiln_stages;

struct kiln_stage_input {
    const char *mount; // borrowed from the action
    int fd;            // of the directory
    struct kiln_tree tree;
    const struct kiln_digest *package; // a kept tree that is in use; borrowed from the action; NULL: a list
};

struct kiln_stage {
    struct kiln_stage_input *inputs; // in the action's order: parents before children
    size_t count;
    char *job_dir; // removed by release
    struct kiln_stages *stages;
};

// One executor per `dir` at a time (the caller holds the lock). cache_bytes: what packages and libraries may take on the disk
// together, what is in use apart; 0: the embedded default, where the store is on the same disk and only their numbers count.
int kiln_stages_open(const char *dir, struct kiln_store *store, uint64_t cache_bytes, struct kiln_stages **stages,
                     struct kiln_err *err);
void kiln_stages_close(struct kiln_stages *stages);
// KILN_E_NOTFOUND, KILN_E_DENIED, KILN_E_IO: content cannot be had from the store. The stage must outlive neither the action nor the stages.
int kiln_stage_make(struct kiln_stages *stages, const struct kiln_action *action, const char *scope, struct kiln_stage *stage,
                    struct kiln_err *err);
void kiln_stage_release(struct kiln_stage *stage);
