// Credits of an executor: how they spread, where they go, and what work may be begun on them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "consumer/executor/credits.h"

#define START_MS 1000u

// Offers all that is due; how many went out.
static unsigned offer_all(struct kiln_credits *credits, uint64_t now_ms) {
    static uint8_t next;
    unsigned offered = 0;
    for (int at; (at = kiln_credits_due(credits, now_ms)) >= 0; offered++) {
        struct kiln_job_id credit = {{++next}};
        kiln_credits_offered(credits, (unsigned)at, &credit, now_ms);
    }
    return offered;
}

static struct kiln_work work_for(const struct kiln_credits *credits, unsigned slot, uint8_t job, uint32_t attempt) {
    return (struct kiln_work){.job = {{job}}, .credit = credits->slots[slot].credit, .attempt = attempt};
}

static unsigned count_at(const struct kiln_credits *credits, uint32_t partition) {
    unsigned count = 0;
    for (unsigned i = 0; i < credits->count; i++)
        count += credits->slots[i].state == KILN_SLOT_OFFERED && credits->slots[i].partition == partition;
    return count;
}

static void free_slots_spread_over_the_partitions(void **state) {
    (void)state;
    struct kiln_credits credits;
    kiln_credits_init(&credits, 8, 4, 6);
    assert_int_equal(credits.slots[0].partition, 2);
    assert_int_equal(offer_all(&credits, START_MS), 8);
    for (uint32_t partition = 0; partition < 4; partition++)
        assert_int_equal(count_at(&credits, partition), 2);
    assert_int_equal(offer_all(&credits, START_MS + KILN_CREDIT_LIFE_MS - 1), 0);
}

static void an_expired_credit_moves_on(void **state) {
    (void)state;
    struct kiln_credits credits;
    kiln_credits_init(&credits, 1, 3, 0);
    for (uint32_t round = 0; round < 6; round++) {
        uint64_t now_ms = START_MS + round * KILN_CREDIT_LIFE_MS;
        assert_int_equal(offer_all(&credits, now_ms), 1);
        assert_int_equal(credits.slots[0].partition, round % 3);
    }
}

static void work_takes_a_credit_once(void **state) {
    (void)state;
    struct kiln_credits credits;
    unsigned slot;
    kiln_credits_init(&credits, 2, 1, 0);
    offer_all(&credits, START_MS);
    struct kiln_work work = work_for(&credits, 1, 7, 1);
    assert_int_equal(kiln_credits_claim(&credits, &work, &slot), KILN_CLAIM_TAKEN);
    assert_int_equal(slot, 1);
    assert_int_equal(kiln_credits_busy(&credits), 1);
    // The same record again is no new work, and must not send the job to somebody else while it runs, nor after.
    assert_int_equal(kiln_credits_claim(&credits, &work, &slot), KILN_CLAIM_REPEATED);
    // Another job on the spent credit is declined.
    struct kiln_work second = work;
    second.job.bytes[0]++;
    assert_int_equal(kiln_credits_claim(&credits, &second, &slot), KILN_CLAIM_DECLINED);
    kiln_credits_ended(&credits, 1, 0);
    assert_int_equal(kiln_credits_claim(&credits, &work, &slot), KILN_CLAIM_REPEATED);
    // A new attempt of the same job is new work.
    assert_int_equal(offer_all(&credits, START_MS), 1);
    struct kiln_work again = work_for(&credits, 1, 7, 2);
    assert_int_equal(kiln_credits_claim(&credits, &again, &slot), KILN_CLAIM_TAKEN);
}

static void a_slot_goes_back_to_the_partition_of_its_job(void **state) {
    (void)state;
    struct kiln_credits credits;
    unsigned slot;
    kiln_credits_init(&credits, 1, 8, 1);
    offer_all(&credits, START_MS);
    struct kiln_work work = work_for(&credits, 0, 1, 1);
    assert_int_equal(kiln_credits_claim(&credits, &work, &slot), KILN_CLAIM_TAKEN);
    kiln_credits_ended(&credits, 0, 5);
    assert_int_equal(offer_all(&credits, START_MS), 1);
    assert_int_equal(count_at(&credits, 5), 1);
}

static void a_demand_draws_free_slots_and_voids_their_credits(void **state) {
    (void)state;
    struct kiln_credits credits;
    unsigned slot;
    kiln_credits_init(&credits, 4, 4, 0);
    offer_all(&credits, START_MS);
    struct kiln_work stale = work_for(&credits, 0, 9, 1);
    uint64_t later = START_MS + KILN_CREDIT_SETTLE_MS;
    assert_true(kiln_credits_demand(&credits, 3, 2, later));
    assert_int_equal(offer_all(&credits, later), 2);
    assert_int_equal(kiln_credits_claim(&credits, &stale, &slot), KILN_CLAIM_DECLINED);
    assert_true(count_at(&credits, 3) >= 2);
    // A demand that crossed those offers is answered by them: nobody is moved again at once.
    assert_true(kiln_credits_demand(&credits, 3, 2, later + 1));
    assert_int_equal(offer_all(&credits, later + 1), 0);
}

static void a_demand_meets_busy_slots_and_wrong_partitions(void **state) {
    (void)state;
    struct kiln_credits credits;
    unsigned slot;
    kiln_credits_init(&credits, 1, 2, 0);
    offer_all(&credits, START_MS);
    assert_false(kiln_credits_demand(&credits, 2, 1, START_MS + 1000));
    struct kiln_work work = work_for(&credits, 0, 1, 1);
    assert_int_equal(kiln_credits_claim(&credits, &work, &slot), KILN_CLAIM_TAKEN);
    assert_false(kiln_credits_demand(&credits, 1, 5, START_MS + 1000));
    assert_int_equal(offer_all(&credits, START_MS + 1000), 0);
}

// The owner of a partition may be new and know nothing of what its predecessor had been offered.
static void a_demand_renews_what_lies_there_already(void **state) {
    (void)state;
    struct kiln_credits credits;
    kiln_credits_init(&credits, 1, 2, 1);
    offer_all(&credits, START_MS);
    struct kiln_job_id before = credits.slots[0].credit;
    assert_true(kiln_credits_demand(&credits, 1, 1, START_MS + KILN_CREDIT_SETTLE_MS));
    assert_int_equal(offer_all(&credits, START_MS + KILN_CREDIT_SETTLE_MS), 1);
    assert_memory_not_equal(&before, &credits.slots[0].credit, sizeof before);
    assert_int_equal(credits.slots[0].partition, 1);
}

static void draining_offers_and_takes_nothing(void **state) {
    (void)state;
    struct kiln_credits credits;
    unsigned slot;
    kiln_credits_init(&credits, 2, 1, 0);
    offer_all(&credits, START_MS);
    struct kiln_work running = work_for(&credits, 0, 1, 1), late = work_for(&credits, 1, 2, 1);
    assert_int_equal(kiln_credits_claim(&credits, &running, &slot), KILN_CLAIM_TAKEN);
    kiln_credits_drain(&credits);
    assert_int_equal(kiln_credits_claim(&credits, &late, &slot), KILN_CLAIM_DECLINED);
    assert_int_equal(kiln_credits_claim(&credits, &running, &slot), KILN_CLAIM_REPEATED);
    assert_false(kiln_credits_demand(&credits, 0, 1, START_MS + 1000));
    assert_int_equal(kiln_credits_busy(&credits), 1);
    kiln_credits_ended(&credits, 0, 0);
    assert_int_equal(offer_all(&credits, START_MS + KILN_CREDIT_LIFE_MS), 0);
    assert_int_equal(kiln_credits_busy(&credits), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_slots_spread_over_the_partitions),
        cmocka_unit_test(an_expired_credit_moves_on),
        cmocka_unit_test(work_takes_a_credit_once),
        cmocka_unit_test(a_slot_goes_back_to_the_partition_of_its_job),
        cmocka_unit_test(a_demand_draws_free_slots_and_voids_their_credits),
        cmocka_unit_test(a_demand_meets_busy_slots_and_wrong_partitions),
        cmocka_unit_test(a_demand_renews_what_lies_there_already),
        cmocka_unit_test(draining_offers_and_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
