#include "verifier/plan_queue.h"

#include <stdlib.h>
#include <string.h>

#define LOOKS_MAX 256u // lanes that one call looks at

void kiln_queue_init(struct kiln_queue *queue) {
    *queue = (struct kiln_queue){0};
    TAILQ_INIT(&queue->ring);
}

static bool same_filter(const struct kiln_filter *a, const struct kiln_filter *b) {
    return memcmp(a, b, sizeof *a) == 0; // unused places are zero
}

static bool is_open(const struct kiln_filter *filter) {
    return !filter->groups_count && !filter->never_count && !filter->rather_not_count;
}

static struct kiln_lane *need_lane(struct kiln_tenant *tenant, const struct kiln_filter *filter) {
    struct kiln_lane *lane;
    TAILQ_FOREACH(lane, &tenant->lanes, link) {
        if (same_filter(&lane->filter, filter))
            return lane;
    }
    if (!(lane = calloc(1, sizeof *lane)))
        return NULL;
    lane->filter = *filter;
    TAILQ_INIT(&lane->waiting);
    TAILQ_INSERT_TAIL(&tenant->lanes, lane, link);
    return lane;
}

static bool enqueue(struct kiln_queue *queue, struct kiln_interest *interest, const struct kiln_filter *filter,
                    enum kiln_queue_place place) {
    struct kiln_tenant *tenant = interest->tenant;
    struct kiln_lane *lane = is_open(filter) ? NULL : need_lane(tenant, filter);
    if (!lane && !is_open(filter))
        return false;
    struct kiln_queue_list *list = lane ? &lane->waiting : &tenant->fresh;
    interest->lane = lane;
    interest->queued = true;
    if (place == KILN_QUEUE_FIRST)
        TAILQ_INSERT_HEAD(list, interest, queue_link);
    else
        TAILQ_INSERT_TAIL(list, interest, queue_link);
    if (tenant->queued_count++ == 0)
        TAILQ_INSERT_TAIL(&queue->ring, tenant, ring_link);
    queue->stirred = true;
    return true;
}

bool kiln_queue_put(struct kiln_queue *queue, struct kiln_flight *flight, const struct kiln_filter *filter,
                    enum kiln_queue_place place) {
    struct kiln_interest *interest;
    flight->queued = true;
    queue->flights_count++;
    queue->by_partition[flight->partition]++;
    TAILQ_FOREACH(interest, &flight->interests, flight_link) {
        if (!enqueue(queue, interest, filter, place))
            return false;
    }
    return true;
}

bool kiln_queue_join(struct kiln_queue *queue, struct kiln_interest *interest, const struct kiln_filter *filter) {
    return interest->queued || enqueue(queue, interest, filter, KILN_QUEUE_LAST);
}

void kiln_queue_leave(struct kiln_queue *queue, struct kiln_interest *interest) {
    if (!interest->queued)
        return;
    struct kiln_tenant *tenant = interest->tenant;
    struct kiln_lane *lane = interest->lane;
    TAILQ_REMOVE(lane ? &lane->waiting : &tenant->fresh, interest, queue_link);
    interest->queued = false;
    interest->lane = NULL;
    if (lane && TAILQ_EMPTY(&lane->waiting)) {
        TAILQ_REMOVE(&tenant->lanes, lane, link);
        free(lane);
    }
    if (--tenant->queued_count == 0)
        TAILQ_REMOVE(&queue->ring, tenant, ring_link);
}

void kiln_queue_remove(struct kiln_queue *queue, struct kiln_flight *flight) {
    struct kiln_interest *interest;
    if (!flight->queued)
        return;
    flight->queued = false;
    queue->flights_count--;
    queue->by_partition[flight->partition]--;
    TAILQ_FOREACH(interest, &flight->interests, flight_link)
        kiln_queue_leave(queue, interest);
}

void kiln_queue_refund(struct kiln_queue *queue, struct kiln_flight *flight) {
    struct kiln_interest *interest;
    TAILQ_FOREACH(interest, &flight->interests, flight_link) {
        if (!interest->charged)
            continue;
        interest->charged = false;
        if (!interest->queued)
            continue;
        TAILQ_REMOVE(&queue->ring, interest->tenant, ring_link);
        TAILQ_INSERT_HEAD(&queue->ring, interest->tenant, ring_link);
    }
}

static void to_end(struct kiln_queue *queue, struct kiln_tenant *tenant) {
    TAILQ_REMOVE(&queue->ring, tenant, ring_link);
    TAILQ_INSERT_TAIL(&queue->ring, tenant, ring_link);
}

// The first flight of the tenant that can use an offer; NULL when none can.
static struct kiln_interest *serve(struct kiln_tenant *tenant, struct kiln_pool *pool, uint64_t now_ms, unsigned *looks,
                                   struct kiln_pool_executor **executor, struct kiln_job_id *credit) {
    static const struct kiln_filter open = {0};
    struct kiln_lane *lane;
    TAILQ_FOREACH(lane, &tenant->lanes, link) {
        if ((*looks)++ >= LOOKS_MAX)
            return NULL;
        if (!(*executor = kiln_pool_take(pool, &lane->filter, now_ms, credit)))
            continue;
        TAILQ_REMOVE(&tenant->lanes, lane, link);
        TAILQ_INSERT_TAIL(&tenant->lanes, lane, link);
        return TAILQ_FIRST(&lane->waiting);
    }
    ++*looks;
    if (!TAILQ_EMPTY(&tenant->fresh) && (*executor = kiln_pool_take(pool, &open, now_ms, credit)))
        return TAILQ_FIRST(&tenant->fresh);
    return NULL;
}

static struct kiln_flight *charge(struct kiln_queue *queue, struct kiln_interest *served) {
    struct kiln_interest *interest;
    TAILQ_FOREACH(interest, &served->flight->interests, flight_link)
        interest->charged = interest == served;
    to_end(queue, served->tenant);
    return served->flight;
}

struct kiln_flight *kiln_queue_next(struct kiln_queue *queue, struct kiln_pool *pool, uint64_t now_ms,
                                    struct kiln_pool_executor **executor, struct kiln_job_id *credit) {
    unsigned looks = 0;
    struct kiln_tenant *tenant;
    TAILQ_FOREACH(tenant, &queue->ring, ring_link) {
        if (!kiln_pool_offers(pool))
            break;
        struct kiln_interest *served = serve(tenant, pool, now_ms, &looks, executor, credit);
        if (served)
            return charge(queue, served);
        if (looks < LOOKS_MAX)
            continue;
        // The rest comes with the next call: those that were looked at go behind it.
        while (TAILQ_FIRST(&queue->ring) != tenant)
            to_end(queue, TAILQ_FIRST(&queue->ring));
        to_end(queue, tenant);
        return NULL;
    }
    queue->stirred = false;
    return NULL;
}
