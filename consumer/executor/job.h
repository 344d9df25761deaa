// One piece of work from its inputs to its candidate: stage, run in the sandbox, collect, look at the observer's log, upload.
#pragma once

#include "consumer/executor/macros.h"
#include "consumer/executor/stage.h"
#include "consumer/executor/toolchain_root.h"
#include "lib/blob/store.h"
#include "lib/core/sign.h"
#include "lib/wire/records.h"

struct kiln_job_limits {
    uint64_t wall_ms, memory_bytes, out_bytes, tmp_bytes, file_bytes, text_bytes, inodes;
    uint32_t processes;
};

struct kiln_job_context {
    const char *run_program;    // kiln-run, or kiln-run-docker
    const char *const *run_arguments; // its own, as in consumer/run/client.h; NULL: none
    const char *backend;        // as candidates name it
    const char *observer;       // libkiln-observe.so
    const char *executor, *pool;
    struct kiln_job_id incarnation;
    const struct kiln_sign_key *record_key; // signs attestations; NULL in the embedded default: nobody to tell from
    struct kiln_store *store;   // role EXECUTOR
    int scratch_dir;            // for bundles; not needed with a store that wants none
    struct kiln_stages *stages;
    struct kiln_toolchain_roots *toolchains;
    struct kiln_macros *macros;
    bool watch_all;             // watch every job, not only those with macros that need it
    const struct kiln_job_limits *limits; // NULL: those of job.c, which is what executors have
};

// Fills *candidate (zeroed; kiln_candidate_release): never fails but for memory; what went wrong is in its status and reasons.
int kiln_job_run(const struct kiln_job_context *context, const struct kiln_work *work, struct kiln_candidate *candidate,
                 struct kiln_err *err);
