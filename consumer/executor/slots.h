// The executor's slots: each a thread that runs one job at a time, announced to the verifier by single-use credits.
//
// The main thread polls the bus and calls kiln_slots_tick often (at least every KILN_SLOTS_TICK_MS): it publishes a credit
// for each free slot, renews expired ones, and sends the leases of running jobs. Work for another incarnation or an unknown
// credit is ignored: it was meant for a predecessor. Draining: no new credits, running jobs end.
#pragma once

#include "consumer/executor/job.h"
#include "lib/bus/bus.h"

#define KILN_SLOTS_MAX 256u
#define KILN_SLOTS_TICK_MS 500u

struct kiln_slots;

int kiln_slots_new(const struct kiln_job_context *context, struct kiln_bus *bus, unsigned count, struct kiln_slots **slots,
                   struct kiln_err *err);
int kiln_slots_tick(struct kiln_slots *slots, struct kiln_err *err);
// Gives the work to the slot whose credit it spends. Takes what is in *work when it does (and zeroes it).
bool kiln_slots_give(struct kiln_slots *slots, struct kiln_work *work);
void kiln_slots_drain(struct kiln_slots *slots); // no new credits from now on
unsigned kiln_slots_running(struct kiln_slots *slots);
void kiln_slots_free(struct kiln_slots *slots);  // after running jobs have ended; joins the threads
