// The executor's slots: each a thread that runs one job at a time, announced to verifiers by single-use credits (credits.h).
//
// The main thread polls the bus and calls kiln_slots_tick often (at least every KILN_SLOTS_TICK_MS): it publishes a credit
// for each free slot that has none, and the leases of running jobs. Work for another incarnation is not ours; work for a
// void credit is declined. Draining: no new credits, running jobs end.
#pragma once

#include "consumer/executor/credits.h"
#include "consumer/executor/job.h"
#include "lib/bus/bus.h"

#define KILN_SLOTS_TICK_MS 500u

struct kiln_slots;

int kiln_slots_new(const struct kiln_job_context *context, struct kiln_bus *bus, unsigned count, struct kiln_slots **slots,
                   struct kiln_err *err);
int kiln_slots_tick(struct kiln_slots *slots, struct kiln_err *err);
// Gives the work to the slot whose credit it spends. Takes what is in *work when it does (and zeroes it). What became of it is
// logged; a decline is published here.
void kiln_slots_give(struct kiln_slots *slots, struct kiln_work *work);
int kiln_slots_demand(struct kiln_slots *slots, const struct kiln_demand *demand, struct kiln_err *err);
void kiln_slots_drain(struct kiln_slots *slots); // no new credits from now on
unsigned kiln_slots_running(struct kiln_slots *slots);
void kiln_slots_free(struct kiln_slots *slots);  // after running jobs have ended; joins the threads
