// A whole fleet around the plan, at any size: agents of several tenants that submit builds, executors in pools with slots and
// credits, several verifiers that share partitions and may die, a log of jobs for each partition, and what kiln.state holds.
// Virtual time, one seed. Records to and from executors get lost, come twice and out of order; those of jobs come at least
// once and in order, again from the last commit when a partition changes hands; tombstones may be lost with their verifier.
//
// Checked while it runs, by the verifier's incarnation: a waiter is answered at most once after each time it was entered; a
// credit is used once; STORE names as many runs of different pools as were asked for, with equal results; who is named as alone with its result is
// the liar; nothing runs without its content. At the end: every job was answered or cancelled (0 lost), no job heard of two
// different results (0 double), no wrong result was stored where two pools had to agree, all plans are empty.
#pragma once

#include <stdint.h>

struct kiln_fleet_options {
    uint64_t seed;
    uint32_t jobs, agents, executors, slots, pools, verifiers, partitions, tenants;
    uint32_t load;    // percent of what the executors can do, over the whole run
    uint32_t trouble; // percent: of records lost, twice, late; how often processes die
};
struct kiln_fleet_options kiln_fleet_default(uint64_t seed, uint32_t jobs);

struct kiln_fleet_report {
    char failure[240]; // "" when every check held
    uint64_t virtual_ms, steps, step_ns; // step_ns: spent in kiln_plan_step, in all
    uint64_t flights_max;                // of one plan at a time
    uint64_t submitted, results, locally, refused, cancelled, known; // how jobs ended; known: the vault had it
    uint64_t dispatches, declines, discards, demands, dead, diverged, dissents, stored, restored_waiters, restored_runs;
    uint64_t verifier_deaths, executor_deaths, moves, again; // again: answers that came twice to an agent, all the same
    uint64_t executed_actions;           // that ran at least once
};

// The same options give the same run. `clock_ns` measures the steps; NULL: they are not.
void kiln_fleet_run(const struct kiln_fleet_options *options, uint64_t (*clock_ns)(void), struct kiln_fleet_report *report);
