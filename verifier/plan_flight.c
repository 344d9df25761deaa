#include "verifier/plan_flight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_job(const struct kiln_job_id *a, const struct kiln_job_id *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

int kiln_flights_init(struct kiln_flights *flights, uint64_t seed) {
    *flights = (struct kiln_flights){0};
    for (size_t i = 0; i < KILN_PLAN_PARTITIONS_MAX; i++)
        TAILQ_INIT(&flights->partitions[i]);
    struct kiln_table *tables[] = {&flights->by_key, &flights->by_job, &flights->interests,
                                   &flights->parties, &flights->tenants, &flights->runs};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (kiln_table_init(tables[i], seed)) {
            kiln_flights_release(flights);
            return -1;
        }
    }
    return 0;
}

void kiln_flights_release(struct kiln_flights *flights) {
    for (size_t i = 0; i < KILN_PLAN_PARTITIONS_MAX; i++) {
        for (struct kiln_flight *flight; (flight = TAILQ_FIRST(&flights->partitions[i]));)
            kiln_flights_drop(flights, flight);
    }
    kiln_table_release(&flights->by_key);
    kiln_table_release(&flights->by_job);
    kiln_table_release(&flights->interests);
    kiln_table_release(&flights->parties);
    kiln_table_release(&flights->tenants);
    kiln_table_release(&flights->runs);
    kiln_timers_release(&flights->timers);
}

static uint64_t hash_key(const struct kiln_table *table, const struct kiln_plan_key *key) {
    return kiln_table_hash(table, key->action.bytes, sizeof key->action.bytes,
                           kiln_table_hash(table, key->scope, strlen(key->scope), 0));
}

struct kiln_flight *kiln_flights_find(const struct kiln_flights *flights, const struct kiln_plan_key *key) {
    struct kiln_table_link *at = kiln_table_first(&flights->by_key, hash_key(&flights->by_key, key));
    for (; at; at = kiln_table_next(at)) {
        struct kiln_flight *flight = kiln_member_of(at, struct kiln_flight, by_key);
        if (kiln_digest_equal(&flight->key.action, &key->action) && strcmp(flight->key.scope, key->scope) == 0)
            return flight;
    }
    return NULL;
}

struct kiln_flight *kiln_flights_add(struct kiln_flights *flights, const struct kiln_plan_key *key, uint32_t partition) {
    struct kiln_flight *flight = calloc(1, sizeof *flight);
    if (!flight)
        return NULL;
    flight->key = *key;
    flight->partition = partition;
    flight->upload.kind = KILN_TIMER_UPLOAD;
    flight->elsewhere.kind = KILN_TIMER_ELSEWHERE;
    flight->patience.kind = KILN_TIMER_AGREEMENT;
    TAILQ_INIT(&flight->interests);
    TAILQ_INIT(&flight->parties);
    TAILQ_INIT(&flight->asking);
    TAILQ_INIT(&flight->waiters);
    TAILQ_INIT(&flight->runs);
    kiln_table_add(&flights->by_key, &flight->by_key, hash_key(&flights->by_key, key));
    TAILQ_INSERT_TAIL(&flights->partitions[partition], flight, partition_link);
    flights->count++;
    return flight;
}

static void ignore(void *context, struct kiln_interest *interest) {
    (void)context;
    (void)interest;
}

void kiln_flights_drop(struct kiln_flights *flights, struct kiln_flight *flight) {
    for (struct kiln_waiter *waiter; (waiter = TAILQ_FIRST(&flight->waiters));)
        kiln_waiter_drop(flights, waiter, ignore, NULL);
    for (struct kiln_run *run; (run = TAILQ_FIRST(&flight->runs));)
        kiln_run_drop(flights, run);
    kiln_timers_clear(&flights->timers, &flight->upload);
    kiln_timers_clear(&flights->timers, &flight->elsewhere);
    kiln_timers_clear(&flights->timers, &flight->patience);
    kiln_table_remove(&flights->by_key, &flight->by_key);
    TAILQ_REMOVE(&flights->partitions[flight->partition], flight, partition_link);
    flights->count--;
    free(flight);
}

static struct kiln_tenant *find_tenant(const struct kiln_flights *flights, const char *name) {
    uint64_t hash = kiln_table_hash(&flights->tenants, name, strlen(name), 0);
    for (struct kiln_table_link *at = kiln_table_first(&flights->tenants, hash); at; at = kiln_table_next(at)) {
        struct kiln_tenant *tenant = kiln_member_of(at, struct kiln_tenant, by_name);
        if (strcmp(tenant->name, name) == 0)
            return tenant;
    }
    return NULL;
}

const struct kiln_tenant *kiln_flights_tenant(const struct kiln_flights *flights, const char *name) {
    return find_tenant(flights, name);
}

static struct kiln_tenant *need_tenant(struct kiln_flights *flights, const char *name) {
    struct kiln_tenant *tenant = find_tenant(flights, name);
    if (tenant || !(tenant = calloc(1, sizeof *tenant)))
        return tenant;
    snprintf(tenant->name, sizeof tenant->name, "%s", name);
    TAILQ_INIT(&tenant->lanes);
    TAILQ_INIT(&tenant->fresh);
    kiln_table_add(&flights->tenants, &tenant->by_name, kiln_table_hash(&flights->tenants, name, strlen(name), 0));
    return tenant;
}

static void drop_unneeded_tenant(struct kiln_flights *flights, struct kiln_tenant *tenant) {
    if (tenant->interests_count)
        return;
    kiln_table_remove(&flights->tenants, &tenant->by_name);
    free(tenant);
}

static uint64_t hash_pair(const struct kiln_table *table, const struct kiln_flight *flight, const char *name, uint64_t more) {
    return kiln_table_hash(table, name, strlen(name), flight->by_key.hash ^ more);
}

static struct kiln_interest *find_interest(const struct kiln_flights *flights, const struct kiln_flight *flight,
                                           const char *tenant) {
    uint64_t hash = hash_pair(&flights->interests, flight, tenant, 0);
    for (struct kiln_table_link *at = kiln_table_first(&flights->interests, hash); at; at = kiln_table_next(at)) {
        struct kiln_interest *interest = kiln_member_of(at, struct kiln_interest, by_pair);
        if (interest->flight == flight && strcmp(interest->tenant->name, tenant) == 0)
            return interest;
    }
    return NULL;
}

static struct kiln_interest *need_interest(struct kiln_flights *flights, struct kiln_flight *flight, const char *name) {
    struct kiln_interest *interest = find_interest(flights, flight, name);
    if (interest)
        return interest;
    struct kiln_tenant *tenant = need_tenant(flights, name);
    if (!tenant)
        return NULL;
    if (!(interest = calloc(1, sizeof *interest))) {
        drop_unneeded_tenant(flights, tenant);
        return NULL;
    }
    interest->flight = flight;
    interest->tenant = tenant;
    tenant->interests_count++;
    kiln_table_add(&flights->interests, &interest->by_pair, hash_pair(&flights->interests, flight, name, 0));
    TAILQ_INSERT_TAIL(&flight->interests, interest, flight_link);
    return interest;
}

static void drop_unneeded_interest(struct kiln_flights *flights, struct kiln_interest *interest) {
    if (interest->waiters_count)
        return;
    TAILQ_REMOVE(&interest->flight->interests, interest, flight_link);
    kiln_table_remove(&flights->interests, &interest->by_pair);
    interest->tenant->interests_count--;
    drop_unneeded_tenant(flights, interest->tenant);
    free(interest);
}

static struct kiln_party *find_party(const struct kiln_flights *flights, const struct kiln_interest *interest,
                                     const char *agent) {
    uint64_t hash = hash_pair(&flights->parties, interest->flight, agent, interest->by_pair.hash);
    for (struct kiln_table_link *at = kiln_table_first(&flights->parties, hash); at; at = kiln_table_next(at)) {
        struct kiln_party *party = kiln_member_of(at, struct kiln_party, by_name);
        if (party->interest == interest && strcmp(party->agent, agent) == 0)
            return party;
    }
    return NULL;
}

static struct kiln_party *need_party(struct kiln_flights *flights, struct kiln_interest *interest, const char *agent) {
    struct kiln_party *party = find_party(flights, interest, agent);
    if (party || !(party = calloc(1, sizeof *party)))
        return party;
    party->flight = interest->flight;
    party->interest = interest;
    snprintf(party->agent, sizeof party->agent, "%s", agent);
    TAILQ_INIT(&party->waiters);
    kiln_table_add(&flights->parties, &party->by_name,
                   hash_pair(&flights->parties, interest->flight, agent, interest->by_pair.hash));
    TAILQ_INSERT_TAIL(&party->flight->parties, party, flight_link);
    return party;
}

static void drop_unneeded_party(struct kiln_flights *flights, struct kiln_party *party) {
    if (!TAILQ_EMPTY(&party->waiters))
        return;
    TAILQ_REMOVE(&party->flight->parties, party, flight_link);
    kiln_table_remove(&flights->parties, &party->by_name);
    free(party);
}

static uint64_t hash_job(const struct kiln_table *table, const struct kiln_job_id *job, uint64_t more) {
    return kiln_table_hash(table, job->bytes, sizeof job->bytes, more);
}

struct kiln_waiter *kiln_waiter_find(const struct kiln_flights *flights, const struct kiln_flight *flight,
                                     const struct kiln_job_id *job) {
    struct kiln_table_link *at = kiln_table_first(&flights->by_job, hash_job(&flights->by_job, job, 0));
    for (; at; at = kiln_table_next(at)) {
        struct kiln_waiter *waiter = kiln_member_of(at, struct kiln_waiter, by_job);
        if (waiter->flight == flight && same_job(&waiter->job, job))
            return waiter;
    }
    return NULL;
}

static void set_unasked(struct kiln_party *party, struct kiln_waiter *waiter) {
    if (!party->unasked && waiter)
        TAILQ_INSERT_TAIL(&party->flight->asking, party, asking_link);
    else if (party->unasked && !waiter)
        TAILQ_REMOVE(&party->flight->asking, party, asking_link);
    party->unasked = waiter;
}

struct kiln_waiter *kiln_waiter_add(struct kiln_flights *flights, struct kiln_flight *flight,
                                    const struct kiln_plan_event *event) {
    struct kiln_waiter *waiter = calloc(1, sizeof *waiter);
    struct kiln_interest *interest = waiter ? need_interest(flights, flight, event->tenant ? event->tenant : "") : NULL;
    struct kiln_party *party = interest ? need_party(flights, interest, event->agent ? event->agent : "") : NULL;
    if (!party) {
        if (interest)
            drop_unneeded_interest(flights, interest);
        free(waiter);
        return NULL;
    }
    waiter->deadline.kind = KILN_TIMER_WAITER;
    waiter->flight = flight;
    waiter->party = party;
    waiter->job = event->job;
    TAILQ_INSERT_TAIL(&party->waiters, waiter, party_link);
    TAILQ_INSERT_TAIL(&flight->waiters, waiter, flight_link);
    kiln_table_add(&flights->by_job, &waiter->by_job, hash_job(&flights->by_job, &waiter->job, 0));
    if (!party->unasked)
        set_unasked(party, waiter);
    interest->waiters_count++;
    interest->tenant->waiters_count++;
    flight->waiters_count++;
    flights->waiters_count++;
    return waiter;
}

void kiln_waiter_drop(struct kiln_flights *flights, struct kiln_waiter *waiter,
                      void (*left)(void *context, struct kiln_interest *interest), void *context) {
    struct kiln_party *party = waiter->party;
    struct kiln_interest *interest = party->interest;
    if (party->unasked == waiter)
        set_unasked(party, TAILQ_NEXT(waiter, party_link));
    TAILQ_REMOVE(&party->waiters, waiter, party_link);
    TAILQ_REMOVE(&waiter->flight->waiters, waiter, flight_link);
    kiln_table_remove(&flights->by_job, &waiter->by_job);
    kiln_timers_clear(&flights->timers, &waiter->deadline);
    interest->tenant->waiters_count--;
    waiter->flight->waiters_count--;
    flights->waiters_count--;
    free(waiter);
    drop_unneeded_party(flights, party);
    if (--interest->waiters_count == 0)
        left(context, interest);
    drop_unneeded_interest(flights, interest);
}

struct kiln_waiter *kiln_waiter_ask_next(struct kiln_flight *flight) {
    struct kiln_party *party = TAILQ_FIRST(&flight->asking);
    if (!party)
        return NULL;
    struct kiln_waiter *waiter = party->unasked;
    set_unasked(party, NULL);
    set_unasked(party, TAILQ_NEXT(waiter, party_link)); // to the end: the others' turn
    return waiter;
}

void kiln_waiter_forget_asked(struct kiln_flight *flight) {
    struct kiln_party *party;
    TAILQ_FOREACH(party, &flight->parties, flight_link)
        set_unasked(party, NULL);
    TAILQ_FOREACH(party, &flight->parties, flight_link)
        set_unasked(party, TAILQ_FIRST(&party->waiters));
}

struct kiln_run *kiln_run_add(struct kiln_flights *flights, struct kiln_flight *flight,
                              struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation,
                              uint32_t attempt) {
    struct kiln_run *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->lease.kind = KILN_TIMER_LEASE;
    run->flight = flight;
    run->executor = executor;
    run->group = executor->group;
    run->job = flight->job;
    run->incarnation = *incarnation;
    run->attempt = attempt;
    flight->attempts |= 1u << attempt;
    kiln_table_add(&flights->runs, &run->by_job, hash_job(&flights->runs, &run->job, attempt));
    TAILQ_INSERT_TAIL(&flight->runs, run, flight_link);
    LIST_INSERT_HEAD(&executor->runs, run, executor_link);
    return run;
}

void kiln_run_drop(struct kiln_flights *flights, struct kiln_run *run) {
    kiln_timers_clear(&flights->timers, &run->lease);
    kiln_table_remove(&flights->runs, &run->by_job);
    TAILQ_REMOVE(&run->flight->runs, run, flight_link);
    LIST_REMOVE(run, executor_link);
    free(run);
}

struct kiln_run *kiln_run_find(const struct kiln_flights *flights, const struct kiln_job_id *job, uint32_t attempt,
                               const struct kiln_run *before) {
    struct kiln_table_link *at = before ? kiln_table_next(&before->by_job)
                                        : kiln_table_first(&flights->runs, hash_job(&flights->runs, job, attempt));
    for (; at; at = kiln_table_next(at)) {
        struct kiln_run *run = kiln_member_of(at, struct kiln_run, by_job);
        if (run->attempt == attempt && same_job(&run->job, job))
            return run;
    }
    return NULL;
}
