// What the plan keeps of flights: who waits for each, who may be asked for its content, and its runs.
//
//   flight ─┬─ interest, one for each tenant that waits: its place in that tenant's queue
//           ├─ party, one for each submitter (tenant, agent): asked for content in turn
//           │    └─ waiter, one for each submitted job
//           └─ run, one for each dispatch that was not declined
//
// Everything is found by hash, so that a step costs the same however much there is. Part of the plan: pure.
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "verifier/plan.h"
#include "verifier/plan_pool.h"
#include "verifier/plan_table.h"
#include "verifier/plan_timer.h"

enum kiln_plan_timer {
    KILN_TIMER_WAITER,   // its deadline
    KILN_TIMER_UPLOAD,   // of a flight: of whoever was asked last
    KILN_TIMER_ELSEWHERE, // of a flight: any executor will do from then on
    KILN_TIMER_AGREEMENT, // of a flight: no further pool is waited for
    KILN_TIMER_LEASE,    // of a run
};

struct kiln_lane;

struct kiln_tenant {
    struct kiln_table_link by_name;
    TAILQ_ENTRY(kiln_tenant) ring_link;
    char name[KILN_PLAN_NAME_MAX + 1];
    size_t interests_count, waiters_count, queued_count; // it is in the ring when something is queued
    TAILQ_HEAD(, kiln_lane) lanes; // of flights that must not go everywhere
    TAILQ_HEAD(kiln_queue_list, kiln_interest) fresh;
};

struct kiln_interest {
    struct kiln_table_link by_pair;
    TAILQ_ENTRY(kiln_interest) flight_link, queue_link;
    struct kiln_flight *flight;
    struct kiln_tenant *tenant;
    struct kiln_lane *lane; // NULL: fresh, or not queued
    size_t waiters_count;
    bool queued, charged;   // charged: the flight's last dispatch was this tenant's turn
};

struct kiln_party {
    struct kiln_table_link by_name;
    TAILQ_ENTRY(kiln_party) flight_link, asking_link;
    struct kiln_flight *flight;
    struct kiln_interest *interest;
    char agent[KILN_PLAN_NAME_MAX + 1];
    TAILQ_HEAD(, kiln_waiter) waiters;
    struct kiln_waiter *unasked; // all before it were asked; not NULL: it is in the flight's asking list
};

struct kiln_waiter {
    struct kiln_table_link by_job;
    TAILQ_ENTRY(kiln_waiter) flight_link, party_link;
    struct kiln_timer deadline;
    struct kiln_flight *flight;
    struct kiln_party *party;
    struct kiln_job_id job;
};

enum kiln_run_state { KILN_RUN_GOING, KILN_RUN_JUDGED, KILN_RUN_GAVE, KILN_RUN_OVER };

struct kiln_run {
    struct kiln_table_link by_job; // job and attempt
    TAILQ_ENTRY(kiln_run) flight_link;
    LIST_ENTRY(kiln_run) executor_link;
    struct kiln_timer lease;
    struct kiln_flight *flight;
    struct kiln_pool_executor *executor;
    const struct kiln_pool_group *group;
    struct kiln_job_id job, incarnation, credit;
    uint32_t attempt;
    enum kiln_run_state state; // GOING: its lease runs. JUDGED: being judged. GAVE: `digest`. OVER: came to nothing
    struct kiln_digest digest;
};

struct kiln_flight {
    struct kiln_table_link by_key;
    TAILQ_ENTRY(kiln_flight) partition_link;
    struct kiln_plan_key key;
    uint32_t partition;
    enum kiln_plan_state state;
    struct kiln_job_id job; // of the execution
    unsigned agreement, troubles, declines;
    unsigned attempts; // numbers that are used, as bits from 1 on
    TAILQ_HEAD(, kiln_interest) interests;
    TAILQ_HEAD(, kiln_party) parties, asking;
    TAILQ_HEAD(kiln_waiters, kiln_waiter) waiters;
    TAILQ_HEAD(kiln_runs, kiln_run) runs; // in the order of their dispatch
    size_t waiters_count;
    struct kiln_job_id provider; // WANTED: who was asked last
    struct kiln_timer upload, elsewhere, patience;
    bool complete; // HELD: some waiter found the content complete
    bool unsure;   // a run had trouble: content is to be checked before another
    bool queued, anywhere;
};
TAILQ_HEAD(kiln_flight_list, kiln_flight);

struct kiln_flights {
    struct kiln_table by_key, by_job, interests, parties, tenants, runs;
    struct kiln_timers timers;
    struct kiln_flight_list partitions[KILN_PLAN_PARTITIONS_MAX];
    size_t count, waiters_count;
};

int kiln_flights_init(struct kiln_flights *flights, uint64_t seed); // 0, or -1 without memory
void kiln_flights_release(struct kiln_flights *flights);
struct kiln_flight *kiln_flights_find(const struct kiln_flights *flights, const struct kiln_plan_key *key);
struct kiln_flight *kiln_flights_add(struct kiln_flights *flights, const struct kiln_plan_key *key, uint32_t partition);
// With all that belongs to it; it must not be queued any more.
void kiln_flights_drop(struct kiln_flights *flights, struct kiln_flight *flight);
const struct kiln_tenant *kiln_flights_tenant(const struct kiln_flights *flights, const char *name); // NULL: nothing of it waits

struct kiln_waiter *kiln_waiter_find(const struct kiln_flights *flights, const struct kiln_flight *flight,
                                     const struct kiln_job_id *job);
// NULL without memory.
struct kiln_waiter *kiln_waiter_add(struct kiln_flights *flights, struct kiln_flight *flight,
                                    const struct kiln_plan_event *event);
// An interest that nothing is left of must not be queued: *left is called before it goes.
void kiln_waiter_drop(struct kiln_flights *flights, struct kiln_waiter *waiter,
                      void (*left)(void *context, struct kiln_interest *interest), void *context);
// The next one that was not asked yet, each party in turn; it counts as asked from then on. NULL: nobody is left.
struct kiln_waiter *kiln_waiter_ask_next(struct kiln_flight *flight);
void kiln_waiter_forget_asked(struct kiln_flight *flight);

struct kiln_run *kiln_run_add(struct kiln_flights *flights, struct kiln_flight *flight,
                              struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation, uint32_t attempt);
void kiln_run_drop(struct kiln_flights *flights, struct kiln_run *run);
// Of that job and attempt; NULL to begin with `run`, then the next one of another flight.
struct kiln_run *kiln_run_find(const struct kiln_flights *flights, const struct kiln_job_id *job, uint32_t attempt,
                               const struct kiln_run *before);
