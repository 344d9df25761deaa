// The agent as a member of a fleet (lib/fleet/fleet.h): its link to brokers and store, and what is fetched early or late.
//
// Opening waits for the store a short time at most and never for a broker: an agent whose fleet is away serves, and compiles
// locally with the reason until it is back.
#pragma once

#include "lib/fleet/fleet.h"
#include "producer/agent/compile.h"
#include "producer/agent/link.h"
#include "producer/agent/prefetch.h"

struct kiln_membership;

struct kiln_membership_options {
    const struct kiln_conf *conf;
    const char *dir; // of the agent
    struct kiln_l0 *l0;
    struct kiln_stats *stats;
    uint64_t late_ms; // how long late results are waited for
};

int kiln_membership_open(const struct kiln_membership_options *options, struct kiln_membership **membership,
                         struct kiln_err *err);
void kiln_membership_close(struct kiln_membership *membership);
// Completes the context with what a fleet has; the context must outlive the membership's threads.
void kiln_membership_equip(struct kiln_membership *membership, struct kiln_compile_context *context);
void kiln_membership_tick(struct kiln_membership *membership, uint64_t now_ms);
void kiln_membership_give_up(struct kiln_membership *membership, const char *reason);
struct kiln_link *kiln_membership_link(struct kiln_membership *membership);
struct kiln_fleet *kiln_membership_fleet(struct kiln_membership *membership);
