// The jobs in hand: takes records, lets the plan decide, and carries out what it decided.
//
// A record goes through admit (what it claims is checked), then the plan (kiln_plan_step), then the actions: answers and work
// on the bus, judging and storing by judge and vault. Everything is idempotent: a record that comes again has the same
// effect once, and after a restart nothing is missing but what its submitters send again. One thread.
#pragma once

#include "lib/bus/bus.h"
#include "verifier/admit.h"
#include "verifier/plan.h"
#include "verifier/vault.h"

struct kiln_docket_options {
    struct kiln_bus *bus; // borrowed, like all here
    struct kiln_admit admit;
    struct kiln_vault vault;
    struct kiln_plan_config plan;
};

struct kiln_docket;

int kiln_docket_new(const struct kiln_docket_options *options, struct kiln_docket **docket, struct kiln_err *err);
void kiln_docket_free(struct kiln_docket *docket);
// A record of jobs, credits, leases or candidates. One that cannot be used is logged and passed over; the errors returned
// (memory, the bus has gone) end the program.
int kiln_docket_take(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_tick(struct kiln_docket *docket, struct kiln_err *err);
uint64_t kiln_docket_next_ms(const struct kiln_docket *docket); // when the next tick is due
size_t kiln_docket_flights(const struct kiln_docket *docket);
