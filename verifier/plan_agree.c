#include "verifier/plan_agree.h"

#include <string.h>

// Pools that gave this result: two runs in one pool count once.
static unsigned count_pools(const struct kiln_flight *flight, const struct kiln_digest *digest) {
    const struct kiln_pool_group *seen[KILN_FILTER_MAX];
    unsigned count = 0;
    const struct kiln_run *run;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        bool counts = run->state == KILN_RUN_GAVE && kiln_digest_equal(&run->digest, digest) && count < KILN_FILTER_MAX;
        for (unsigned i = 0; counts && i < count; i++)
            counts = seen[i] != run->group;
        if (counts)
            seen[count++] = run->group;
    }
    return count;
}

void kiln_agreement_of(const struct kiln_flight *flight, struct kiln_agreement *agreement) {
    const struct kiln_run *run;
    *agreement = (struct kiln_agreement){0};
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        agreement->running += run->state == KILN_RUN_GOING;
        agreement->going += run->state == KILN_RUN_GOING || run->state == KILN_RUN_JUDGED;
        if (run->state != KILN_RUN_GAVE)
            continue;
        agreement->differ |= agreement->gave && !kiln_digest_equal(&run->digest, &agreement->digest);
        agreement->gave++;
        unsigned equal = count_pools(flight, &run->digest);
        if (equal > agreement->equal) {
            agreement->equal = equal;
            agreement->digest = run->digest;
        }
    }
}

unsigned kiln_agreement_needs(const struct kiln_flight *flight, const struct kiln_agreement *agreement) {
    unsigned hoped = agreement->equal + agreement->going;
    return hoped < flight->agreement ? flight->agreement - hoped : 0;
}

unsigned kiln_agreement_attempts_max(const struct kiln_flight *flight) {
    return KILN_PLAN_ATTEMPTS_MAX + flight->agreement - 1;
}

unsigned kiln_agreement_attempts_left(const struct kiln_flight *flight) {
    unsigned used = (unsigned)__builtin_popcount(flight->attempts), max = kiln_agreement_attempts_max(flight);
    return used < max ? max - used : 0;
}

uint32_t kiln_agreement_next_attempt(const struct kiln_flight *flight) {
    uint32_t attempt = 1;
    while (flight->attempts >> attempt & 1)
        attempt++;
    return attempt;
}

void kiln_agreement_filter(const struct kiln_flight *flight, struct kiln_filter *filter) {
    const struct kiln_run *run;
    memset(filter, 0, sizeof *filter); // padding too: filters are compared as bytes
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        if (run->state == KILN_RUN_OVER && filter->rather_not_count < KILN_FILTER_MAX) {
            filter->rather_not[filter->rather_not_count++] = run->executor;
        } else if (run->state != KILN_RUN_OVER && filter->groups_count < KILN_FILTER_MAX) {
            filter->groups[filter->groups_count++] = run->group;
            if (run->executor->group != run->group) // it went to another pool since
                filter->never[filter->never_count++] = run->executor;
        }
    }
    filter->anywhere = flight->anywhere && filter->rather_not_count;
}
