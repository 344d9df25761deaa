// Some thousand seeded worlds around the verifier's plan; a failing seed is printed and can be run alone: test_verifier_sim SEED
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verifier/sim/world.h"

#define SEEDS 3000u

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

int main(int argc, char **argv) {
    only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(worlds), cmocka_unit_test(same_seed_same_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
