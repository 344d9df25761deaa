// The agent as one object: what main.c builds and the commands look at.
#pragma once

#include <stdbool.h>

#include "lib/base/conf.h"
#include "producer/agent/children.h"
#include "producer/agent/compile.h"
#include "producer/agent/membership.h"

struct kiln_agent_options {
    const char *dir, *config, *libexec; // config NULL: the usual files
    bool system_mode;
};

struct kiln_agent {
    struct kiln_agent_options options;
    struct kiln_conf *conf;
    struct kiln_l0 *l0;
    struct kiln_memo *memo;
    struct kiln_toolchains *toolchains;
    struct kiln_ancestors *ancestors;
    struct kiln_stats *stats;
    struct kiln_breaker *breaker;
    struct kiln_membership *membership; // of a fleet; NULL: the embedded default, which has the following
    struct kiln_store *store;
    struct kiln_trust *trust;
    struct kiln_bus_server *bus;
    struct kiln_submitter *submitter;
    struct kiln_children *children;
    struct kiln_conversations *conversations;
    struct kiln_compile_context compile;
    int lock_fd, log_fd;
    uint64_t started_ms;
};

// Takes DIR's lock (KILN_E_EXISTS when another agent holds it), opens everything, starts the children or joins the fleet.
int kiln_agent_open(const struct kiln_agent_options *options, struct kiln_agent *agent, struct kiln_err *err);
void kiln_agent_close(struct kiln_agent *agent);
// Adds what wrappers compiled locally while no agent answered to the counters. Main thread, or a serving one.
void kiln_agent_count_missed(struct kiln_agent *agent);
void kiln_agent_give_up(struct kiln_agent *agent, const char *reason); // all units that wait for a result
size_t kiln_agent_waiting(const struct kiln_agent *agent);
void kiln_agent_tick(struct kiln_agent *agent, uint64_t now_ms); // about once a second, on the main thread
