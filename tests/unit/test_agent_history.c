// How long a result is waited for, from how long such results took.
#include "tests/unit/scratch.h"

#include "producer/agent/history.h"

#define MOST_MS 840000u

static struct kiln_history history_of(const uint64_t *times_ms, size_t count) {
    struct kiln_history history = {0};
    for (size_t i = 0; i < count; i++)
        kiln_history_add(&history, times_ms[i]);
    return history;
}

static void what_nobody_has_seen_is_waited_for_as_long_as_allowed(void **state) {
    (void)state;
    const struct kiln_history none = {0};
    assert_int_equal(kiln_history_wait_ms(&none, MOST_MS), MOST_MS);
}

static void the_wait_follows_the_slow_ones(void **state) {
    (void)state;
    uint64_t times_ms[KILN_HISTORY_MAX];
    for (size_t i = 0; i < KILN_HISTORY_MAX; i++)
        times_ms[i] = 1000 * (i + 1);
    struct kiln_history history = history_of(times_ms, KILN_HISTORY_MAX);
    assert_int_equal(kiln_history_wait_ms(&history, MOST_MS), 4 * 16000);
    // One slow one among many counts, for 16 times have no finer 95th percentile.
    for (size_t i = 0; i < KILN_HISTORY_MAX; i++)
        times_ms[i] = i == 3 ? 9000 : 700;
    history = history_of(times_ms, KILN_HISTORY_MAX);
    assert_int_equal(kiln_history_wait_ms(&history, MOST_MS), 4 * 9000);
}

static void it_stays_within_its_bounds(void **state) {
    (void)state;
    struct kiln_history quick = history_of((const uint64_t[]){10, 20, 30, 40, 50}, 5);
    assert_int_equal(kiln_history_wait_ms(&quick, MOST_MS), KILN_HISTORY_LEAST_MS);
    struct kiln_history slow = history_of((const uint64_t[]){600000, 600000, 600000, 600000}, 4);
    assert_int_equal(kiln_history_wait_ms(&slow, MOST_MS), MOST_MS);
    struct kiln_history endless = history_of((const uint64_t[]){UINT64_MAX}, 1);
    assert_int_equal(kiln_history_wait_ms(&endless, MOST_MS), MOST_MS);
    assert_int_equal(kiln_history_wait_ms(&quick, 500), 500);
}

static void few_times_are_trusted_less(void **state) {
    (void)state;
    struct kiln_history one = history_of((const uint64_t[]){1000}, 1), four = history_of((const uint64_t[]){1000, 1000, 1000, 1000}, 4);
    assert_int_equal(kiln_history_wait_ms(&one, MOST_MS), 12000);
    assert_int_equal(kiln_history_wait_ms(&four, MOST_MS), 4000);
}

static void old_times_are_forgotten(void **state) {
    (void)state;
    struct kiln_history history = {0};
    kiln_history_add(&history, 100000);
    for (size_t i = 0; i < KILN_HISTORY_MAX; i++)
        kiln_history_add(&history, 1000);
    assert_int_equal(history.count, KILN_HISTORY_MAX);
    assert_int_equal(kiln_history_wait_ms(&history, MOST_MS), 4000);
}

static struct kiln_digest kind_of(const char *package, const char *crate, const char *opt) {
    struct kiln_action action = {.package = (char *)package, .crate_name = (char *)crate};
    struct kiln_digest kind;
    if (opt)
        assert_int_equal(kiln_action_add_arg(&action, opt, NULL), 0);
    kiln_history_key(&action, &kind);
    if (action.argv)
        free(action.argv[0]);
    free(action.argv);
    return kind;
}

static void versions_share_a_kind_and_profiles_do_not(void **state) {
    (void)state;
    struct kiln_digest a = kind_of("serde_json-1.0.1", "serde_json", NULL), b = kind_of("serde_json-1.2.0-rc.1", "serde_json", NULL);
    struct kiln_digest macro = kind_of("md-5-0.10.6", "md5", NULL), plain = kind_of("md-0.10.6", "md5", NULL);
    struct kiln_digest fast = kind_of("serde_json-1.0.1", "serde_json", "-Copt-level=3");
    assert_true(kiln_digest_equal(&a, &b));
    assert_false(kiln_digest_equal(&a, &fast));
    assert_false(kiln_digest_equal(&macro, &plain));
}

static void it_is_kept_with_the_cache(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0 *l0;
    struct kiln_digest kind = {{7}};
    struct kiln_history history;
    assert_int_equal(kiln_l0_open(scratch->path, 1u << 20, &l0, NULL), 0);
    kiln_history_load(l0, &kind, &history);
    assert_int_equal(history.count, 0);
    for (uint64_t i = 1; i <= 20; i++)
        kiln_history_record(l0, &kind, i);
    kiln_l0_close(l0);
    assert_int_equal(kiln_l0_open(scratch->path, 1u << 20, &l0, NULL), 0);
    kiln_history_load(l0, &kind, &history);
    assert_int_equal(history.count, KILN_HISTORY_MAX);
    assert_int_equal(history.times_ms[0], 5);
    assert_int_equal(history.times_ms[15], 20);
    kiln_l0_close(l0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_has_seen_is_waited_for_as_long_as_allowed),
        cmocka_unit_test(the_wait_follows_the_slow_ones),
        cmocka_unit_test(it_stays_within_its_bounds),
        cmocka_unit_test(few_times_are_trusted_less),
        cmocka_unit_test(old_times_are_forgotten),
        cmocka_unit_test(versions_share_a_kind_and_profiles_do_not),
        cmocka_unit_test_setup_teardown(it_is_kept_with_the_cache, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
