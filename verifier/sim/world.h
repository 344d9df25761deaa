// A seeded world around the plan: submitters that send twice, upload late or never and cancel; executors that stall, die and
// come back; messages that are late or come twice. Virtual time. Every action of the plan is held against what the world
// knows, and at the end nothing may be left.
//
// Checked: each waiter is answered once, and not after it cancelled; one waiter at a time is asked for content; one attempt
// of an action runs at a time, unless its lease ran out or its executor was replaced; a credit is used once, before its
// expiry, and only of a current incarnation; nothing runs without its content; a result is announced only when it was
// stored; a flight is released once; when all is quiet the plan is empty.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kiln_sim_report {
    char failure[240]; // "" when every check held
    unsigned steps, dispatches, stored, answered, refused, cancelled, lost, discarded, wants, checks;
};

// The same seed gives the same run.
void kiln_sim_run(uint64_t seed, struct kiln_sim_report *report);
