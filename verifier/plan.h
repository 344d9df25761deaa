// Which job is compiled when, by whom, and who hears of it: the verifier's decisions, without I/O, clock or randomness.
//
// The caller feeds events with the monotonic time and carries out the actions that come back, in their order. Time never
// runs backwards between steps. One *flight* is one (scope, action) on its way to a result; any number of submitted jobs
// wait for it. Life of a flight:
//
//   SUBMITTED, content lacking            UPLOADED            credit              CANDIDATE             JUDGED
//        └───────────────> [WANTED] ─────────────> [READY] ──────────> [RUNNING] ──────────> [JUDGING] ────────> gone
//   SUBMITTED, complete        │  ^                 │ ^ ^                │ │                     │
//        └─────────────────────┼──┼─────────────────┘ │ └── lease over ──┘ │                     │ again
//                              │  └── lacking ── [CHECKING] <──────────────┼─────────────────────┘
//                              │                    │ └─ complete: READY   │
//   nobody left to ask, or     v                    v                      v
//   nobody waiting:           gone                 gone         attempts used up, or lease over and nobody waiting: gone
//
// WANTED asks one waiter at a time for the content, and the next one when it does not upload in time. RUNNING and JUDGING go
// on when nobody waits any more: the work is done, the result will be asked for again. A credit is good for one dispatch. A
// new incarnation of an executor ends all that its former one was doing. Every waiter is answered once: ANSWER, REFUSE, or
// never, when it cancelled.
//
// Ownership: events are borrowed; actions own what they hold. One thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/core/digest.h"
#include "lib/wire/records.h"

#define KILN_PLAN_ATTEMPTS_MAX 3u  // dispatches of one flight
#define KILN_PLAN_TROUBLES_MAX 2u  // of them, those that may end in trouble of the executor's own
#define KILN_PLAN_FLIGHTS_MAX 4096u
#define KILN_PLAN_WAITERS_MAX 4096u // of one flight: one answer lists them all
#define KILN_PLAN_EXECUTORS_MAX 256u
#define KILN_PLAN_NAME_MAX 64u

struct kiln_plan_config {
    uint64_t lease_ms;  // an executor that was not heard of for this long has lost its job
    uint64_t upload_ms; // a waiter that was asked has this long to upload
};

struct kiln_plan_key {
    char scope[KILN_PLAN_NAME_MAX + 1];
    struct kiln_digest action;
};

enum kiln_plan_state {
    KILN_PLAN_GONE,
    KILN_PLAN_WANTED,
    KILN_PLAN_READY,
    KILN_PLAN_RUNNING,
    KILN_PLAN_JUDGING,
    KILN_PLAN_CHECKING,
};

enum kiln_plan_event_kind {
    KILN_PLAN_SUBMITTED, // key, job, until_ms (the waiter's deadline), lacking
    KILN_PLAN_UPLOADED,  // key, job: all content is there now
    KILN_PLAN_REFUSED,   // key, job, reason: what it uploaded was refused
    KILN_PLAN_CANCELLED, // key, job
    KILN_PLAN_CREDIT,    // executor, incarnation, credit, until_ms (its expiry)
    KILN_PLAN_LEASE,     // incarnation, job, attempt
    KILN_PLAN_CANDIDATE, // key.action, executor, incarnation, job, attempt
    KILN_PLAN_JUDGED,    // key, attempt, verdict, reason (not for STORED)
    KILN_PLAN_CHECKED,   // key, lacking
    KILN_PLAN_TICK,      // time has passed
};

enum kiln_plan_verdict {
    KILN_PLAN_STORED,  // a signed result is in the vault
    KILN_PLAN_LOCALLY, // no result: the waiters compile for themselves
    KILN_PLAN_AGAIN,   // not the job's fault: try once more
};

struct kiln_plan_event {
    enum kiln_plan_event_kind kind;
    struct kiln_plan_key key;
    struct kiln_job_id job, incarnation, credit;
    const char *executor, *reason;
    uint64_t until_ms;
    uint32_t attempt;
    bool lacking;
    enum kiln_plan_verdict verdict;
};

enum kiln_plan_action_kind {
    KILN_PLAN_WANT,     // key, jobs[0]: ask it for what is lacking
    KILN_PLAN_REFUSE,   // key, jobs[0], reason: its submission is rejected; it waits no longer
    KILN_PLAN_DISPATCH, // key, job, attempt, executor, incarnation, credit, lease_ms
    KILN_PLAN_JUDGE,    // key, job, attempt: judge the candidate of this step, then give JUDGED
    KILN_PLAN_DISCARD,  // the candidate of this step is not for any running attempt
    KILN_PLAN_CHECK,    // key: read all content again, then give CHECKED
    KILN_PLAN_ANSWER,   // key, jobs, verdict (STORED or LOCALLY), reason; they wait no longer
    KILN_PLAN_RELEASE,  // key: the flight has gone; comes once per flight, after its other actions
};

struct kiln_plan_action {
    enum kiln_plan_action_kind kind;
    struct kiln_plan_key key;
    struct kiln_job_id *jobs;
    size_t jobs_count;
    struct kiln_job_id job; // names the execution: the first waiter's
    uint32_t attempt;
    char executor[KILN_PLAN_NAME_MAX + 1];
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
