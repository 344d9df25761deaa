// Some thousand seeded worlds around the verifier's plan, and some hundred small fleets with everything that goes wrong in
// them. A failing seed is printed and can be run alone: test_verifier_sim SEED, or as the message says. At full size: kiln-sim.
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "verifier/plan.h"
#include "verifier/sim/backlog.h"
#include "verifier/sim/fleet.h"
#include "verifier/sim/world.h"

#define SEEDS 3000u
#define FLEETS 400u

static uint64_t only_seed;

static void worlds(void **state) {
    (void)state;
    struct kiln_sim_report sum = {0};
    for (uint64_t seed = only_seed ? only_seed : 1; seed <= (only_seed ? only_seed : SEEDS); seed++) {
        struct kiln_sim_report report;
        kiln_sim_run(seed, &report);
        if (report.failure[0])
            fail_msg("seed %" PRIu64 " %s", seed, report.failure);
        sum.steps += report.steps;
        sum.dispatches += report.dispatches;
        sum.stored += report.stored;
        sum.answered += report.answered;
        sum.refused += report.refused;
        sum.cancelled += report.cancelled;
        sum.lost += report.lost;
        sum.discarded += report.discarded;
        sum.wants += report.wants;
        sum.checks += report.checks;
    }
    printf("steps %u dispatches %u answered %u stored %u refused %u cancelled %u lost %u discarded %u wants %u checks %u\n",
           sum.steps, sum.dispatches, sum.answered, sum.stored, sum.refused, sum.cancelled, sum.lost, sum.discarded,
           sum.wants, sum.checks);
    // A world in which nothing goes wrong would prove nothing.
    if (!only_seed) {
        assert_true(sum.dispatches > SEEDS && sum.stored > SEEDS && sum.refused > SEEDS / 2);
        assert_true(sum.cancelled > SEEDS && sum.lost > SEEDS && sum.discarded > SEEDS && sum.checks > SEEDS / 2);
    }
}

static void same_seed_same_run(void **state) {
    (void)state;
    struct kiln_sim_report one, other;
    kiln_sim_run(42, &one);
    kiln_sim_run(42, &other);
    assert_memory_equal(&one, &other, sizeof one);
    kiln_sim_run(43, &other);
    assert_memory_not_equal(&one, &other, sizeof one);
}

static struct kiln_fleet_options small_fleet(uint64_t seed) {
    struct kiln_fleet_options options = kiln_fleet_default(seed, 400);
    options.agents = 20;
    options.executors = 5;
    options.slots = 2;
    options.pools = 2 + (uint32_t)(seed % 2);
    options.verifiers = 2 + (uint32_t)(seed % 3);
    options.partitions = 6;
    options.tenants = 4;
    options.trouble = 100 + 100 * (uint32_t)(seed % 7);
    return options;
}

static void add_up(struct kiln_fleet_report *sum, const struct kiln_fleet_report *report) {
    sum->results += report->results;
    sum->restored_runs += report->restored_runs;
    sum->restored_waiters += report->restored_waiters;
    sum->verifier_deaths += report->verifier_deaths;
    sum->executor_deaths += report->executor_deaths;
    sum->moves += report->moves;
    sum->declines += report->declines;
    sum->discards += report->discards;
    sum->dissents += report->dissents;
    sum->again += report->again;
    sum->dead += report->dead;
}

static void fleets(void **state) {
    (void)state;
    struct kiln_fleet_report sum = {0};
    for (uint64_t seed = 1; !only_seed && seed <= FLEETS; seed++) {
        const struct kiln_fleet_options options = small_fleet(seed);
        struct kiln_fleet_report report;
        kiln_fleet_run(&options, NULL, &report);
        if (report.failure[0])
            fail_msg("kiln-sim --seed %" PRIu64 " --jobs 400 --agents 20 --executors 5 --slots 2 --pools %u --verifiers %u "
                     "--partitions 6 --tenants 4 --trouble %u: %s", seed, options.pools, options.verifiers, options.trouble,
                     report.failure);
        add_up(&sum, &report);
    }
    if (only_seed)
        return;
    // Each thing that may go wrong has gone wrong often.
    assert_true(sum.results > FLEETS * 200 && sum.restored_waiters > FLEETS * 100 && sum.restored_runs > FLEETS * 10);
    assert_true(sum.verifier_deaths > FLEETS && sum.executor_deaths > FLEETS && sum.moves > FLEETS * 8);
    assert_true(sum.declines > FLEETS && sum.discards > FLEETS && sum.dissents > FLEETS / 4 && sum.again > FLEETS);
    assert_true(sum.dead > FLEETS);
}

// Nothing goes wrong: everybody gets a result.
static void a_quiet_fleet(void **state) {
    (void)state;
    struct kiln_fleet_options options = kiln_fleet_default(7, 5000);
    struct kiln_fleet_report report, again;
    options.trouble = 0;
    options.agents = 200;
    options.pools = 5;
    kiln_fleet_run(&options, NULL, &report);
    assert_string_equal(report.failure, "");
    assert_int_equal(report.results + report.locally, 5000);
    assert_true(report.locally <= report.dead * 20); // of fickle actions two pools do not agree
    assert_true(report.locally < 50);
    kiln_fleet_run(&options, NULL, &again);
    assert_memory_equal(&report, &again, sizeof report); // and the same seed is the same run
}

static uint64_t clock_ns(void) { return kiln_clock_us() * 1000; }

// What an event costs does not grow with what waits: a look at each flight would cost hundreds of times as much.
static void the_cost_stays_flat(void **state) {
    (void)state;
    struct kiln_backlog_report few, many;
    uint64_t few_ns = UINT64_MAX, many_ns = UINT64_MAX;
    for (unsigned i = 0; i < 3; i++) { // the best of some: others use the machine too
        kiln_backlog_run(100, 20000, clock_ns, &few);
        kiln_backlog_run(KILN_PLAN_FLIGHTS_MAX - 100, 20000, clock_ns, &many);
        assert_string_equal(few.failure, "");
        assert_string_equal(many.failure, "");
        few_ns = few.ns / few.events < few_ns ? few.ns / few.events : few_ns;
        many_ns = many.ns / many.events < many_ns ? many.ns / many.events : many_ns;
    }
    printf("%" PRIu64 " ns for an event while 100 flights wait, %" PRIu64 " ns while %u do\n", few_ns, many_ns,
           KILN_PLAN_FLIGHTS_MAX - 100);
    assert_true(many_ns < 20 * few_ns + 1000);
}

int main(int argc, char **argv) {
    only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worlds), cmocka_unit_test(same_seed_same_run), cmocka_unit_test(fleets),
        cmocka_unit_test(a_quiet_fleet), cmocka_unit_test(the_cost_stays_flat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
