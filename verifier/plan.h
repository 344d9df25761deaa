// Which job is compiled when, by whom, and who hears of it: the verifier's decisions, without I/O, clock or randomness.
//
// The caller feeds events with the monotonic time and carries out the actions that come back, in their order. Time never
// runs backwards between steps. One *flight* is one (scope, action) on its way to a result; any number of submitted jobs
// wait for it. Each dispatch of it is a *run*. Life of a flight:
//
//   SUBMITTED, content lacking            UPLOADED            credit              CANDIDATE             JUDGED, k agree      FILED
//        └───────────────> [WANTED] ─────────────> [READY] ──────────> [RUNNING] ──────────> [JUDGING] ──────────> [STORING] ──> gone
//   SUBMITTED, complete        │  ^                 │ ^ ^                │ │ ^                │ │
//        └─────────────────────┼──┼─────────────────┘ │ └── runs over ───┘ │ └ another runs ──┘ │ again
//                              │  └── lacking ── [CHECKING] <──────────────┼────────────────────┘
//                              │                    │ └─ complete: READY   │
//   nobody left to ask, or     v                    v                      v
//   nobody waiting:           gone                 gone         attempts used up, or runs over and nobody waiting: gone
//
// WANTED asks one waiter at a time for the content, each submitter in turn, and the next one when it does not upload in time.
// RUNNING and JUDGING go on when nobody waits any more: the work is done, the result will be asked for again. A credit is
// good for one dispatch. A new incarnation of an executor ends all that its former one was doing. Every waiter is answered
// once: ANSWER, REFUSE, or never, when it cancelled or its partition went to another verifier.
//
// Fairness: dispatches go round the tenants that have READY flights, one at a time; a flight that several tenants wait for
// stands in the queue of each. Within a tenant: first come, first served, what was begun already before what was not.
//
// Agreement k: a flight has as many runs at once as could still make k equal ones, each on an executor and in a pool that no
// other run of it has that is going on or has given a result. STORE comes when results of k pools are equal. Different results
// give DIVERGED, once undecided, and once more when k agree, then naming who was alone with its own.
// Another attempt after a lost or troubled one goes to an executor that had none, when there is one within elsewhere_ms.
//
// Partitions: GAINED holds the flights of a partition while RESTORE_* rebuild them, in any order; RESTORED lets them go on,
// and drops those that nobody waits for. The runs of one whose content has gone end then, and it is asked for. Candidates that
// come in between are the caller's to keep until RESTORED: held flights take none. LOST drops all flights of a partition, without a word to anybody: the next owner
// speaks. Credits stay: they are good for any flight, and a void one costs a DECLINED.
//
// The cost of an event does not grow with the number of flights, waiters, tenants or executors.
// Ownership: events are borrowed; actions own what they hold. One thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/digest.h"
#include "lib/wire/records.h"

#define KILN_PLAN_ATTEMPTS_MAX 3u  // dispatches of one flight with agreement 1; one more for each further pool that must agree
#define KILN_PLAN_TROUBLES_MAX 2u  // of them, those that may end in trouble of the executor's own
#define KILN_PLAN_DECLINES_MAX 16u // dispatches that were not begun before they count as one attempt
#define KILN_PLAN_AGREEMENT_MAX 5u
#define KILN_PLAN_FLIGHTS_MAX 65536u
#define KILN_PLAN_JOBS_MAX 262144u  // waiters of all flights
#define KILN_PLAN_WAITERS_MAX 4096u // of one flight: one answer lists them all
#define KILN_PLAN_EXECUTORS_MAX 1024u
#define KILN_PLAN_PARTITIONS_MAX 256u
#define KILN_PLAN_NAME_MAX 64u
#define KILN_PLAN_DEMAND_MS 100u // between two DEMANDs; more while they bring nothing

struct kiln_plan_config {
    uint64_t lease_ms;     // an executor that was not heard of for this long has lost its job
    uint64_t upload_ms;    // a waiter that was asked has this long to upload
    uint64_t elsewhere_ms; // how long a further attempt waits for another executor than those before
    uint64_t agreement_ms; // how long a flight waits for a further pool; 0: as long as its waiters do
    uint32_t quota_jobs;   // waiters of one tenant; 0: no quota
    uint64_t hash_seed;    // random: so that nobody can choose keys that fall together
};

struct kiln_plan_key {
    char scope[KILN_PLAN_NAME_MAX + 1];
    struct kiln_digest action;
};

enum kiln_plan_state {
    KILN_PLAN_GONE,
    KILN_PLAN_HELD, // its partition is being restored
    KILN_PLAN_WANTED,
    KILN_PLAN_READY,
    KILN_PLAN_RUNNING, // at least one run is going on; agreement may wait for credits for more
    KILN_PLAN_JUDGING, // all runs that are left are being judged
    KILN_PLAN_CHECKING,
    KILN_PLAN_STORING,
};

enum kiln_plan_event_kind {
    KILN_PLAN_SUBMITTED, // key, partition, tenant, agent, job, until_ms (the waiter's deadline), lacking, agreement
    KILN_PLAN_UPLOADED,  // key, job: all content is there now
    KILN_PLAN_REFUSED,   // key, job, reason: what it uploaded was refused
    KILN_PLAN_CANCELLED, // key, job
    KILN_PLAN_CREDIT,    // executor, pool, incarnation, credit, until_ms (its expiry)
    KILN_PLAN_LEASE,     // incarnation, job, attempt
    KILN_PLAN_DECLINED,  // incarnation, job, attempt, credit: it was not begun
    KILN_PLAN_CANDIDATE, // key.action, executor, incarnation, job, attempt
    KILN_PLAN_JUDGED,    // key, attempt, verdict, reason (not for STORED), digest (STORED)
    KILN_PLAN_CHECKED,   // key, lacking
    KILN_PLAN_FILED,     // key, verdict, reason (not for STORED): how STORE ended
    KILN_PLAN_REVOKED,   // executor: its runs end, its results count no more, its credits are void. Records of it that come
                         // later are the caller's to refuse
    KILN_PLAN_GAINED,    // partition: what comes until RESTORED is held
    KILN_PLAN_RESTORE_WAITER, // as SUBMITTED, past any quota
    KILN_PLAN_RESTORE_FLIGHT, // key, partition, attempt (used so far), troubles, job, agreement; executor, pool, incarnation,
                              // until_ms (lease) of the run of that attempt when it is still awaited, else executor NULL.
                              // May come once for each run
    KILN_PLAN_RESTORED,  // partition
    KILN_PLAN_LOST,      // partition
    KILN_PLAN_TICK,      // time has passed
};

enum kiln_plan_verdict {
    KILN_PLAN_STORED,  // JUDGED: a result that may be stored. FILED, ANSWER: a signed result is in the vault
    KILN_PLAN_LOCALLY, // no result: the waiters compile for themselves
    KILN_PLAN_AGAIN,   // not the job's fault: try once more
};

struct kiln_plan_event {
    enum kiln_plan_event_kind kind;
    struct kiln_plan_key key;
    struct kiln_job_id job, incarnation, credit;
    const char *executor, *pool, *reason;
    const char *tenant, *agent; // who submitted: the author's; NULL is a name of its own
    uint64_t until_ms;
    uint32_t attempt, troubles, partition;
    uint32_t agreement; // the first submission decides for the flight; 0 is 1
    bool lacking;
    enum kiln_plan_verdict verdict;
    struct kiln_digest digest; // of all that agreement is about
};

enum kiln_plan_action_kind {
    KILN_PLAN_WANT,     // key, jobs[0]: ask it for what is lacking
    KILN_PLAN_REFUSE,   // key, jobs[0], reason: its submission is rejected; it waits no longer
    KILN_PLAN_DISPATCH, // key, partition, job, attempt, troubles, executor, pool, incarnation, credit, lease_ms
    KILN_PLAN_JUDGE,    // key, job, attempt: judge the candidate of this step, keep what comes of it, then give JUDGED
    KILN_PLAN_DISCARD,  // key, job, attempt, reason: the candidate, or the lease, of this step is not of a run that goes on
    KILN_PLAN_CHECK,    // key: read all content again, then give CHECKED
    KILN_PLAN_STORE,    // key, attempt (whose outputs), runs (those that agree, one of each pool): sign and store, then give FILED
    KILN_PLAN_DIVERGED, // key, job, runs: all that gave a result, with their parts. No refusal by itself
    KILN_PLAN_DEAD,     // key, job, attempt (used), reason: for the dead letters; ANSWER follows
    KILN_PLAN_DEMAND,   // partition, count: flights wait and no credit fits; count of them
    KILN_PLAN_ANSWER,   // key, jobs, verdict (STORED or LOCALLY), reason; they wait no longer
    KILN_PLAN_RELEASE,  // key: the flight has gone; comes once per flight, after its other actions
};

enum kiln_plan_part {
    KILN_PLAN_UNDECIDED,
    KILN_PLAN_AGREES,   // one of the k
    KILN_PLAN_DISSENTS, // k others agreed on another result
};

struct kiln_plan_run {
    uint32_t attempt;
    char executor[KILN_PLAN_NAME_MAX + 1], pool[KILN_PLAN_NAME_MAX + 1];
    struct kiln_job_id incarnation;
    struct kiln_digest digest; // zero: it said that there is no result
    enum kiln_plan_part part;
};

struct kiln_plan_action {
    enum kiln_plan_action_kind kind;
    struct kiln_plan_key key;
    struct kiln_job_id *jobs;
    size_t jobs_count;
    struct kiln_plan_run *runs;
    size_t runs_count;
    struct kiln_job_id job; // names the execution: the first waiter's
    uint32_t attempt, troubles, partition, count;
    char executor[KILN_PLAN_NAME_MAX + 1], pool[KILN_PLAN_NAME_MAX + 1];
    struct kiln_job_id incarnation, credit;
    uint64_t lease_ms;
    enum kiln_plan_verdict verdict;
    char *reason;
};

struct kiln_plan_actions {
    struct kiln_plan_action *list;
    size_t count;
};
void kiln_plan_actions_release(struct kiln_plan_actions *actions);

struct kiln_plan;

int kiln_plan_new(const struct kiln_plan_config *config, struct kiln_plan **plan, struct kiln_err *err);
void kiln_plan_free(struct kiln_plan *plan);
// Appends to *actions. Fails only when memory is exhausted; the plan cannot be used after that.
int kiln_plan_step(struct kiln_plan *plan, const struct kiln_plan_event *event, uint64_t now_ms,
                   struct kiln_plan_actions *actions, struct kiln_err *err);
// When the next TICK has something to do; UINT64_MAX: not before the next event.
uint64_t kiln_plan_next_ms(const struct kiln_plan *plan);
size_t kiln_plan_flights(const struct kiln_plan *plan);
// Of one flight; KILN_PLAN_GONE when there is none.
enum kiln_plan_state kiln_plan_state_of(const struct kiln_plan *plan, const struct kiln_plan_key *key);
