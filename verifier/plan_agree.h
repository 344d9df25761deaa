// What the runs of a flight say together: how many more it needs, whether k pools agree, and who was alone. Pure.
#pragma once

#include "verifier/plan_flight.h"

struct kiln_agreement {
    unsigned going;   // runs whose result is awaited or being judged
    unsigned running; // of them, those that are at work
    unsigned gave;    // runs that gave a result
    unsigned equal;   // pools that gave the most frequent one
    bool differ;      // more than one result was given
    struct kiln_digest digest; // the most frequent; of equally frequent ones, that of the earlier run
};

void kiln_agreement_of(const struct kiln_flight *flight, struct kiln_agreement *agreement);
// Dispatches that are still needed, at once, when all that is going agrees with the most frequent result.
unsigned kiln_agreement_needs(const struct kiln_flight *flight, const struct kiln_agreement *agreement);
unsigned kiln_agreement_attempts_max(const struct kiln_flight *flight);
unsigned kiln_agreement_attempts_left(const struct kiln_flight *flight);
uint32_t kiln_agreement_next_attempt(const struct kiln_flight *flight); // the lowest number that is not used
// Whom the next dispatch must not, and should not, go to.
void kiln_agreement_filter(const struct kiln_flight *flight, struct kiln_filter *filter);
