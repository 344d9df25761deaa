// kiln-sim: the verifier's plan in a simulated fleet, at any size. Not installed.
//
//   kiln-sim [--seed N] [--seeds COUNT] [--jobs N] [--agents N] [--executors N] [--slots N] [--pools N] [--verifiers N]
//            [--partitions N] [--tenants N] [--load PERCENT] [--trouble PERCENT]
//   kiln-sim --backlog: what an event costs while 100, 1000, 10000, 60000 flights wait
//
// Prints one line of JSON for each run, and how many passed. Exits with 1, after the line that runs it again, at the first
// seed that fails.
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "verifier/sim/backlog.h"
#include "verifier/sim/fleet.h"

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void print(const struct kiln_fleet_options *options, const struct kiln_fleet_report *report) {
    printf("{\"seed\": %" PRIu64 ", \"jobs\": %u, \"virtual_s\": %" PRIu64 ", \"steps\": %" PRIu64 ", \"ns_per_step\": %" PRIu64
           ", \"flights_max\": %" PRIu64, options->seed, options->jobs, report->virtual_ms / 1000, report->steps,
           report->steps ? report->step_ns / report->steps : 0, report->flights_max);
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"submitted", report->submitted}, {"results", report->results}, {"locally", report->locally},
        {"refused", report->refused}, {"cancelled", report->cancelled}, {"known", report->known},
        {"again", report->again}, {"dispatches", report->dispatches}, {"executed_actions", report->executed_actions},
        {"stored", report->stored}, {"declines", report->declines}, {"discards", report->discards},
        {"demands", report->demands}, {"dead", report->dead}, {"diverged", report->diverged},
        {"dissents", report->dissents}, {"restored_waiters", report->restored_waiters},
        {"restored_runs", report->restored_runs}, {"verifier_deaths", report->verifier_deaths},
        {"executor_deaths", report->executor_deaths}, {"moves", report->moves},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf(", \"%s\": %" PRIu64, counts[i].name, counts[i].count);
    printf(", \"failure\": \"%s\"}\n", report->failure);
}

static int run(const struct kiln_fleet_options *options) {
    struct kiln_fleet_report report;
    kiln_fleet_run(options, clock_ns, &report);
    print(options, &report);
    if (!report.failure[0])
        return 0;
    fprintf(stderr, "kiln-sim: seed %" PRIu64 " failed %s\nagain: kiln-sim --seed %" PRIu64 " --jobs %u --agents %u --executors %u "
            "--slots %u --pools %u --verifiers %u --partitions %u --tenants %u --load %u --trouble %u\n", options->seed,
            report.failure, options->seed, options->jobs, options->agents, options->executors, options->slots, options->pools,
            options->verifiers, options->partitions, options->tenants, options->load, options->trouble);
    return 1;
}

static int measure_backlogs(void) {
    static const uint32_t sizes[] = {100, 1000, 10000, 60000};
    struct kiln_backlog_report report = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !report.failure[0]; i++) {
        kiln_backlog_run(sizes[i], 50000, clock_ns, &report);
        printf("{\"waiting\": %u, \"ns_per_submission\": %" PRIu64 ", \"ns_per_event\": %" PRIu64 ", \"failure\": \"%s\"}\n",
               sizes[i], report.enter_ns / sizes[i], report.events ? report.ns / report.events : 0, report.failure);
    }
    return report.failure[0] != 0;
}

int main(int argc, char **argv) {
    struct kiln_fleet_options options = kiln_fleet_default(1, 10000);
    uint32_t seeds = 1;
    const struct {
        const char *name;
        uint32_t *value, min, max;
    } numbers[] = {
        {"jobs", &options.jobs, 1, 10000000}, {"agents", &options.agents, 1, 60000}, {"executors", &options.executors, 1, 1000},
        {"slots", &options.slots, 1, 64}, {"pools", &options.pools, 1, 100}, {"verifiers", &options.verifiers, 1, 32},
        {"partitions", &options.partitions, 1, 256}, {"tenants", &options.tenants, 1, 60000}, {"load", &options.load, 1, 1000},
        {"trouble", &options.trouble, 0, 1000}, {"seeds", &seeds, 1, 1000000},
    };
    enum { COUNT = sizeof numbers / sizeof *numbers, SEED = COUNT, BACKLOG };
    struct option known[COUNT + 3] = {{"seed", required_argument, NULL, SEED}, {"backlog", no_argument, NULL, BACKLOG}};
    for (int i = 0; i < COUNT; i++)
        known[i + 2] = (struct option){numbers[i].name, required_argument, NULL, i};
    for (int which; (which = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (which == BACKLOG)
            return measure_backlogs();
        char *end = NULL;
        unsigned long long value = which == '?' ? 0 : strtoull(optarg, &end, 10);
        if (which == '?' || *end || (which < COUNT && (value < numbers[which].min || value > numbers[which].max))) {
            fprintf(stderr, "kiln-sim: see the head of verifier/sim/main.c\n");
            return 2;
        }
        if (which == SEED)
            options.seed = value;
        else
            *numbers[which].value = (uint32_t)value;
    }
    uint32_t passed = 0;
    while (passed < seeds && run(&options) == 0) {
        passed++;
        options.seed++;
    }
    printf("%u passed, %d failed\n", passed, passed < seeds);
    return passed < seeds;
}
