// kiln.state: who waits and what runs, kept outside this process, so that another verifier goes on after it.
//
// One record for each waiter (key: action digest, job id), written before its submission is acked and deleted (an empty value)
// when it was answered; and one for each run of a flight (key: action digest, SHA-256 of scope and attempt), written before its
// work is published and deleted when the flight has gone. The two cannot collide: the keys have different lengths. On the embedded bus nothing is written: its agents submit again.
// A waiter that is restored is looked at as if it had just come, but for its identity, which was checked by a verifier.
#pragma once

#include "lib/bus/bus.h"
#include "lib/wire/records.h"
#include "verifier/plan.h"

struct kiln_state {
    struct kiln_bus *bus;
    bool kept; // false on the embedded bus
};

struct kiln_state_flight_note {
    const struct kiln_plan_key *key;
    uint32_t attempt, troubles;
    const struct kiln_job_id *job, *incarnation;
    const char *executor, *pool;
};

// `framed`: the submission as received. KILN_E_DENIED "too_large: ..." when it cannot be kept; KILN_E_LIMIT: the topic is full.
int kiln_state_put_waiter(struct kiln_state *state, const struct kiln_author *author, const struct kiln_digest *action,
                          const struct kiln_job_id *job, const void *framed, size_t len, struct kiln_err *err);
int kiln_state_drop_waiter(struct kiln_state *state, const struct kiln_digest *action, const struct kiln_job_id *job,
                           struct kiln_err *err);
int kiln_state_put_flight(struct kiln_state *state, const struct kiln_state_flight_note *note, struct kiln_err *err);
int kiln_state_drop_flight(struct kiln_state *state, const struct kiln_plan_key *key, uint32_t attempt,
                           struct kiln_err *err);
// Deletes a record of the topic that nobody can read.
int kiln_state_forget(struct kiln_state *state, const struct kiln_record *record, struct kiln_err *err);
