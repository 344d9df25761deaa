// The records that travel on the topics: Avro bodies of schemas/*.avsc in Confluent framing (0x00, be32 schema id, body).
//
// Decoding is strict and bounded before avro-c sees a byte: known id for the topic, minimal varints, one block per
// array, counts and lengths within the caps of schemas/README.md, UTF-8 without NUL, exact end; accepting implies that
// encoding the decoded record gives the same bytes. Content never travels in records; 256 KiB at most.
// Encoding is held to the same caps: what decode would refuse, encode refuses (KILN_E_LIMIT past a cap, KILN_E_INVAL for a
// text that is NULL or not what its field takes). Texts are never NULL; bytes and arrays may be NULL when their count is 0,
// and are when decoded.
// Ownership: decoded records own their fields (kiln_*_release; zeroed records may be released too). Thread: any;
// avro-c is used from one thread at a time per process, so these functions serialise themselves.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

struct kiln_job_id {
    uint8_t bytes[16];
};

enum kiln_content_kind { KILN_CONTENT_BLOB = 0, KILN_CONTENT_PACK = 1, KILN_CONTENT_LIST = 2 };
struct kiln_content_ref {
    enum kiln_content_kind kind;
    struct kiln_digest digest; // of a file, or of a tree
    uint64_t size;             // of the object, bytes; 0 in a submission: a pack that the client has not made yet
};

struct kiln_attestation_bytes {
    uint8_t bytes[64];
};

// kiln.jobs
struct kiln_job_submitted {
    struct kiln_job_id job;
    char *tenant, *agent;      // names for keys in the store; identity comes from the connection or signature
    uint32_t waiter_partition; // of the results topic
    uint64_t submitted_ms;     // wall clock
    uint64_t deadline_ms;      // how long the waiter waits at most, relative
    struct kiln_digest action_digest;
    unsigned char *action;     // canonical encoding (lib/core/action.h)
    size_t action_len;
    struct kiln_content_ref *contents; // all content that the action needs, packs, lists and the lists' blobs
    size_t contents_count;
    char **closure;            // stems of the extern closure, for the result (at most 16384)
    size_t closure_count;
    char *build_id;            // "" when not set
    char *scope;               // where the submitter looks for the result: its tenant, or "public"; computed again
};
struct kiln_job_uploaded { // the wanted content lies in quarantine under in/TENANT/AGENT/JOB/KIND-HEX
    struct kiln_job_id job;
    struct kiln_digest action_digest;
};
struct kiln_job_cancelled {
    struct kiln_job_id job;
    struct kiln_digest action_digest;
};

// kiln.results.TENANT
enum kiln_answer_status {
    KILN_ANSWER_WANTED = 0,        // upload `contents`
    KILN_ANSWER_REJECTED = 1,      // the submission is refused; reasons
    KILN_ANSWER_RESULT = 2,        // `envelope` is the stored, signed result (SUCCESS or LOCAL)
    KILN_ANSWER_COMPILE_LOCALLY = 3, // no result: the job failed, or infrastructure did; reasons
    KILN_ANSWER_ACCEPTED = 4,        // the submission is in hand (in a fleet: written down); another answer follows
};
struct kiln_answer {
    struct kiln_job_id *jobs; // the waiters this is for
    size_t jobs_count;
    struct kiln_digest action_digest;
    enum kiln_answer_status status;
    struct kiln_content_ref *contents;
    size_t contents_count;
    char **reasons;
    size_t reasons_count;
    unsigned char *envelope;
    size_t envelope_len;
    struct kiln_job_id executed; // the submission for which the job was run to come to this; zero: it was not run
};

// kiln.credits
struct kiln_credit {
    char *executor, *pool;
    struct kiln_job_id incarnation, credit; // credit is single-use
    uint64_t expires_ms;                    // wall clock
};
// kiln.work
struct kiln_work {
    struct kiln_job_id job, incarnation, credit;
    uint32_t attempt;
    uint64_t lease_ms;
    struct kiln_digest action_digest;
    unsigned char *action;
    size_t action_len;
    struct kiln_content_ref *contents;
    size_t contents_count;
    char *scope;
};
// kiln.leases: heartbeat of a running job
struct kiln_lease {
    struct kiln_job_id job, incarnation;
    uint32_t attempt;
    uint64_t at_ms;
};
// kiln.candidates
enum kiln_run_status {
    KILN_RUN_EXITED = 0,  // exit_code says how
    KILN_RUN_SIGNALED = 1,
    KILN_RUN_LIMIT = 2,   // a limit was hit; reasons name it
    KILN_RUN_INFRA = 3,   // could not be run or collected: not the job's fault; reasons
};
struct kiln_candidate_output {
    uint32_t kind; // enum kiln_output_kind
    bool executable;
    char *name;
    uint64_t size;
    struct kiln_digest digest; // lies in quarantine below out/EXECUTOR/JOB/ATTEMPT/, see consumer/executor/upload.h
};
struct kiln_candidate {
    struct kiln_job_id job, incarnation;
    uint32_t attempt;
    char *executor, *pool, *backend;
    struct kiln_digest action_digest;
    enum kiln_run_status status;
    int32_t exit_code;
    struct kiln_candidate_output *outputs;
    size_t outputs_count;
    char **observations; // "kind: what" of what was asked for and not declared; bounded
    size_t observations_count;
    char **reasons;
    size_t reasons_count;
    uint64_t wall_ms;
    uint64_t at_ms;         // of the attestation, wall clock
    struct kiln_attestation_bytes signature; // of the attestation (lib/core/result.h); zero on the embedded bus
};

// kiln.work, to every executor: jobs wait at the owner of a partition, and it has no credit. Free slots offer theirs there.
struct kiln_demand {
    uint32_t partition; // of kiln.credits
    uint32_t count;     // jobs that wait
    uint64_t at_ms;
};
// kiln.leases: the slot of that credit is taken, the work was not begun. It costs no attempt.
struct kiln_decline {
    struct kiln_job_id job, incarnation, credit;
    uint32_t attempt;
};
// kiln.state: one record for each waiter (key: action digest, job id) and one for each flight that runs (key: action digest).
struct kiln_state_waiter {
    char *tenant, *principal;
    struct kiln_job_id incarnation; // of the waiter's agent
    uint64_t received_ms;           // wall clock
    unsigned char *submission;      // framed job_submitted as received
    size_t submission_len;
};
struct kiln_state_flight {
    struct kiln_digest action_digest;
    char *scope;
    uint32_t attempt, troubles;
    struct kiln_job_id job, incarnation;
    char *executor, *pool;
    uint64_t dispatched_ms;
};
// kiln.ledger: every decision about a job, for audit and replay; never read on a job's way.
struct kiln_ledger_entry {
    uint64_t at_ms;
    char *verifier;
    struct kiln_digest action_digest;
    struct kiln_job_id job;
    char *event;  // submitted, rejected, wanted, uploaded, dispatched, judged, stored, answered, diverged, ...
    char *scope, *tenant, *principal, *executor, *pool;
    uint32_t attempt;
    char *detail;
    unsigned char *envelope; // stored: the signed result
    size_t envelope_len;
};
// kiln.events: something that people should know; refusals carry their named reason.
struct kiln_event {
    uint64_t at_ms;
    char *source;   // principal that says it
    char *severity; // info, warn, alert
    char *name;     // "rejected", "divergence", "replayed", ...
    char *subject;  // principal or object it is about
    char *detail;
};
// kiln.dlq: what could not be taken, verbatim, and where it was.
struct kiln_dead_letter {
    uint64_t at_ms;
    char *verifier, *topic;
    uint32_t partition;
    uint64_t offset;
    char *reason;
    uint64_t size; // of the record; `value` may be cut
    unsigned char *value;
    size_t value_len;
};

#define KILN_WIRE_BYTES_MAX (256u << 10) // of a framed record

#define KILN_RECORD_TYPES(X) \
    X(job_submitted) X(job_uploaded) X(job_cancelled) X(answer) X(credit) X(work) X(lease) X(candidate) X(demand) \
    X(decline) X(state_waiter) X(state_flight) X(ledger_entry) X(event) X(dead_letter)

enum kiln_record_type { // schema ids, pinned in schemas/ids
    KILN_RECORD_job_submitted = 1004, KILN_RECORD_job_uploaded = 1002, KILN_RECORD_job_cancelled = 1003,
    KILN_RECORD_answer = 1012, KILN_RECORD_credit = 1021, KILN_RECORD_work = 1031, KILN_RECORD_lease = 1041,
    KILN_RECORD_candidate = 1052, KILN_RECORD_demand = 1032, KILN_RECORD_decline = 1042, KILN_RECORD_state_waiter = 1061,
    KILN_RECORD_state_flight = 1062, KILN_RECORD_ledger_entry = 1071, KILN_RECORD_event = 1081, KILN_RECORD_dead_letter = 1091,
};

// The type of a framed record, or KILN_E_CORRUPT.
int kiln_record_type_of(const void *data, size_t len, enum kiln_record_type *type, struct kiln_err *err);
#define KILN_RECORD_DECLARE(name)                                                                                      \
    int kiln_##name##_encode(const struct kiln_##name *record, struct kiln_buf *out, struct kiln_err *err);            \
    int kiln_##name##_decode(const void *data, size_t len, struct kiln_##name *record, struct kiln_err *err);          \
    void kiln_##name##_release(struct kiln_##name *record);
KILN_RECORD_TYPES(KILN_RECORD_DECLARE)
#undef KILN_RECORD_DECLARE
