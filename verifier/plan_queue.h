// Whose turn it is: flights that wait for an executor, queued by tenant, tenants in a ring.
//
// Each dispatch is one turn, and the tenant goes to the end of the ring. A tenant whose flights cannot use what is offered
// keeps its turn. So a tenant with one flight waits at most for one dispatch of each other tenant, however many they have.
// A declined dispatch gives its tenant the turn back. Within a tenant flights that must not go everywhere (another attempt,
// agreement) come first, since most of them have cost something already; they stand in lanes, one for each filter, so that
// one look tells whether any of a lane can use an offer. Part of the plan: pure.
#pragma once

#include "verifier/plan_flight.h"

struct kiln_lane {
    TAILQ_ENTRY(kiln_lane) link;
    struct kiln_filter filter;
    struct kiln_queue_list waiting;
};

struct kiln_queue {
    TAILQ_HEAD(kiln_ring, kiln_tenant) ring;
    size_t flights_count;
    uint32_t by_partition[KILN_PLAN_PARTITIONS_MAX]; // flights
    bool stirred; // something came since nothing fitted: kiln_queue_next may find something
};

enum kiln_queue_place { KILN_QUEUE_LAST, KILN_QUEUE_FIRST };

void kiln_queue_init(struct kiln_queue *queue);
// Puts the flight into the queue of each tenant that waits for it. false without memory.
bool kiln_queue_put(struct kiln_queue *queue, struct kiln_flight *flight, const struct kiln_filter *filter,
                    enum kiln_queue_place place);
// A tenant has come to wait for a flight that is queued already.
bool kiln_queue_join(struct kiln_queue *queue, struct kiln_interest *interest, const struct kiln_filter *filter);
void kiln_queue_leave(struct kiln_queue *queue, struct kiln_interest *interest); // also one that is not queued
void kiln_queue_remove(struct kiln_queue *queue, struct kiln_flight *flight);
// The tenant whose turn was in vain comes first again.
void kiln_queue_refund(struct kiln_queue *queue, struct kiln_flight *flight);
// The next flight that can use what the pool offers, and by whom; its tenant's turn is over. It stays queued. NULL: none, or
// none among as many as one step looks at: `stirred` is set then.
struct kiln_flight *kiln_queue_next(struct kiln_queue *queue, struct kiln_pool *pool, uint64_t now_ms,
                                    struct kiln_pool_executor **executor, struct kiln_job_id *credit);
