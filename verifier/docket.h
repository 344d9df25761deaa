// The jobs in hand: takes records, lets the plan decide, and carries out what it decided.
//
// A record goes through identity and admit (who says it, and whether what it claims is so), then the plan (kiln_plan_step), then
// the actions: answers and work on the bus, judging and storing by judge and vault. Decisions are made in one thread, the
// caller's; what waits for the store is done by a crew of threads and comes back as an event of that thread. Everything is
// idempotent: a record that comes again has the same effect once.
//
// What is lost with the process, and how it comes back. A submission is acked when its waiter is in kiln.state, an
// `uploaded` at once (a restored flight asks again for what still lacks), a candidate when its flight has gone (it is judged again),
// credits and leases at once (executors renew them). In the embedded default there is no state: agents submit again.
//
// Refusals: an answer to the author where it can have one, and an event named by the reason's first word: wrong_role,
// wrong_tenant, wrong_agent, wrong_partition, wrong_executor, wrong_incarnation, wrong_pool, misplaced, job_taken, too_large,
// scope, contents, closure, not_uploaded, quota_bytes, attestation, not_dispatched, trust_*, and those of admit's form (action,
// action_digest, arguments, cwd, environment, mount, out_dir, profile). A record that cannot be read, or whose transport the bus
// refused, is a dead letter too. Other events: divergence, executor_revoked, dead_job, restored, shadowed_pointer; and of a
// stored result that is met and cannot be used: result_expired (it, or the key that signed it), result_revoked,
// result_untrusted (signed or attested by nobody whom the trust record names so), vault_corrupt (damaged).
// One thread.
#pragma once

#include "lib/bus/bus.h"
#include "lib/fleet/keeper.h"
#include "verifier/plan.h"
#include "verifier/vault.h"

struct kiln_docket_options {
    struct kiln_bus *bus; // borrowed, like all here
    struct kiln_store *store; // role VERIFIER
    int scratch_dir;
    struct kiln_vault vault;
    struct kiln_keeper *keeper; // NULL: the embedded default
    const char *principal;      // of this verifier
    struct kiln_plan_config plan;
    uint32_t agreement_public, agreement_tenant; // 0: 1
    uint64_t quota_bytes; // that a tenant may upload in a day; 0: no quota
    unsigned threads;     // 0: 4
};

struct kiln_docket_counts {
    uint64_t submitted, known, wanted, rejected, dispatched, declined, judged, stored, locally, answered, diverged, refused, dead_letters,
        ledger_dropped;
};

struct kiln_docket;

int kiln_docket_new(const struct kiln_docket_options *options, struct kiln_docket **docket, struct kiln_err *err);
void kiln_docket_free(struct kiln_docket *docket); // waits for the tasks that are at work
// A record of jobs, credits, leases or candidates, or news of a partition; it is acked when its time has come. One that cannot be
// used is told of and passed over; the errors returned (memory, the bus has gone) end the program.
int kiln_docket_take(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
// What tasks have done. To be called when the descriptor is readable.
int kiln_docket_finish(struct kiln_docket *docket, struct kiln_err *err);
int kiln_docket_fd(const struct kiln_docket *docket);
int kiln_docket_tick(struct kiln_docket *docket, struct kiln_err *err);
uint64_t kiln_docket_next_ms(const struct kiln_docket *docket); // when the next tick is due
size_t kiln_docket_flights(const struct kiln_docket *docket);
size_t kiln_docket_tasks(const struct kiln_docket *docket);
void kiln_docket_counts(const struct kiln_docket *docket, struct kiln_docket_counts *counts);
