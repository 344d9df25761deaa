#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bus/bus_topics.h"

#define BIT(topic) ((uint16_t)(1u << (topic)))

static struct kiln_bus_topics topics;

static int setup(void **state) {
    (void)state;
    kiln_bus_topics_init(&topics);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    kiln_bus_topics_release(&topics);
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        assert_int_equal(topics.queues[topic].records, 0);
        assert_int_equal(topics.queues[topic].bytes, 0);
    }
    return 0;
}

static int put(enum kiln_topic topic, uint32_t partition, const char *key, const char *value) {
    struct kiln_bus_frame frame = {.topic = (uint8_t)topic, .partition = partition, .key_len = (uint16_t)strlen(key),
                                   .value_len = (uint32_t)strlen(value)};
    memcpy(frame.key, key, strlen(key));
    struct kiln_bus_item *item = kiln_bus_item_new(&frame);
    assert_non_null(item);
    memcpy(item->value, value, strlen(value));
    return kiln_bus_topics_append(&topics, item);
}

static int put_size(enum kiln_topic topic, uint32_t value_len) {
    struct kiln_bus_frame frame = {.topic = (uint8_t)topic, .value_len = value_len};
    struct kiln_bus_item *item = kiln_bus_item_new(&frame);
    assert_non_null(item);
    memset(item->value, 'x', value_len);
    return kiln_bus_topics_append(&topics, item);
}

static void join(struct kiln_bus_reader *reader, uint16_t mask, uint16_t from_end) {
    assert_int_equal(kiln_bus_topics_subscribe(&topics, reader, mask, from_end), 0);
}

// The value of the next record; NULL when there is none.
static const char *take(struct kiln_bus_reader *reader, uint64_t *offset) {
    static char value[64];
    struct kiln_bus_item *item = kiln_bus_topics_next(&topics, reader);
    if (!item)
        return NULL;
    size_t len = item->frame.value_len < sizeof value ? item->frame.value_len : sizeof value - 1;
    memcpy(value, item->value, len);
    value[len] = 0;
    if (offset)
        *offset = item->frame.offset;
    kiln_bus_item_unref(item);
    return value;
}

static void assert_takes(struct kiln_bus_reader *reader, const char *expected) {
    const char *value = take(reader, NULL);
    assert_non_null(value);
    assert_string_equal(value, expected);
}

static void assert_takes_nothing(struct kiln_bus_reader *reader) { assert_null(take(reader, NULL)); }

static int ack(struct kiln_bus_reader *reader, enum kiln_topic topic, uint64_t offset) {
    return kiln_bus_topics_ack(&topics, reader, topic, 0, offset);
}

static size_t kept(enum kiln_topic topic) { return topics.queues[topic].records; }

static void group_goes_on_at_the_first_unacked(void **state) {
    (void)state;
    struct kiln_bus_reader first = {0}, second = {0};
    const char *values[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(put(KILN_TOPIC_JOBS, 0, "", values[i]), 0);
    join(&first, BIT(KILN_TOPIC_JOBS), 0);
    join(&second, BIT(KILN_TOPIC_JOBS), 0);
    assert_takes(&first, "a");
    assert_takes(&first, "b");
    assert_takes(&first, "c");
    assert_takes_nothing(&second);
    assert_int_equal(ack(&first, KILN_TOPIC_JOBS, 1), 0);
    assert_int_equal(kept(KILN_TOPIC_JOBS), 2);
    kiln_bus_topics_leave(&topics, &first);
    assert_takes(&second, "c");
    assert_takes(&second, "d");
    assert_takes_nothing(&second);
    kiln_bus_topics_leave(&topics, &second);
}

static void group_owner_is_who_waited_longest(void **state) {
    (void)state;
    struct kiln_bus_reader readers[3] = {0};
    for (size_t i = 0; i < 3; i++)
        join(&readers[i], BIT(KILN_TOPIC_CREDITS) | BIT(KILN_TOPIC_JOBS), 0);
    kiln_bus_topics_leave(&topics, &readers[0]);
    put(KILN_TOPIC_CREDITS, 3, "", "x");
    put(KILN_TOPIC_JOBS, 0, "", "y");
    assert_takes_nothing(&readers[2]);
    assert_takes(&readers[1], "x");
    assert_takes(&readers[1], "y");
    kiln_bus_topics_leave(&topics, &readers[1]);
    assert_takes(&readers[2], "x");
    assert_takes(&readers[2], "y");
    kiln_bus_topics_leave(&topics, &readers[2]);
}

static void from_end_gives_up_what_is_there(void **state) {
    (void)state;
    struct kiln_bus_reader reader = {0};
    put(KILN_TOPIC_LEASES, 0, "", "old");
    put(KILN_TOPIC_JOBS, 0, "", "job");
    join(&reader, BIT(KILN_TOPIC_LEASES) | BIT(KILN_TOPIC_JOBS), BIT(KILN_TOPIC_LEASES));
    assert_int_equal(kept(KILN_TOPIC_LEASES), 0);
    put(KILN_TOPIC_LEASES, 0, "", "new");
    assert_takes(&reader, "job");
    assert_takes(&reader, "new");
    kiln_bus_topics_leave(&topics, &reader);
}

static void order_is_over_topics_and_partitions(void **state) {
    (void)state;
    struct kiln_bus_reader reader = {0};
    put(KILN_TOPIC_CANDIDATES, 5, "", "1");
    put(KILN_TOPIC_JOBS, 1, "", "2");
    put(KILN_TOPIC_CREDITS, 0, "", "3");
    put(KILN_TOPIC_CANDIDATES, 0, "", "4");
    put(KILN_TOPIC_JOBS, 0, "", "5");
    join(&reader, BIT(KILN_TOPIC_JOBS) | BIT(KILN_TOPIC_CREDITS) | BIT(KILN_TOPIC_CANDIDATES), 0);
    const char *order[] = {"1", "2", "3", "4", "5"};
    for (size_t i = 0; i < 5; i++)
        assert_takes(&reader, order[i]);
    kiln_bus_topics_leave(&topics, &reader);
}

static void results_stay_until_all_acked(void **state) {
    (void)state;
    struct kiln_bus_reader early = {0}, late = {0};
    put(KILN_TOPIC_RESULTS, 0, "", "nobody");
    assert_int_equal(kept(KILN_TOPIC_RESULTS), 0);
    join(&early, BIT(KILN_TOPIC_RESULTS), 0);
    put(KILN_TOPIC_RESULTS, 0, "", "one");
    join(&late, BIT(KILN_TOPIC_RESULTS), 0);
    put(KILN_TOPIC_RESULTS, 0, "", "two");
    uint64_t offset = 0;
    assert_string_equal(take(&late, &offset), "two");
    assert_int_equal(ack(&late, KILN_TOPIC_RESULTS, offset), 0);
    assert_int_equal(kept(KILN_TOPIC_RESULTS), 2);
    assert_string_equal(take(&early, &offset), "one");
    assert_int_equal(ack(&early, KILN_TOPIC_RESULTS, offset), 0);
    assert_int_equal(kept(KILN_TOPIC_RESULTS), 1);
    kiln_bus_topics_leave(&topics, &early);
    assert_int_equal(kept(KILN_TOPIC_RESULTS), 0);
    kiln_bus_topics_leave(&topics, &late);
}

static void ack_of_what_was_not_given_is_refused(void **state) {
    (void)state;
    struct kiln_bus_reader owner = {0}, standby = {0};
    put(KILN_TOPIC_JOBS, 0, "", "a");
    put(KILN_TOPIC_JOBS, 0, "", "b");
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, 0), KILN_E_INVAL);
    join(&owner, BIT(KILN_TOPIC_JOBS), 0);
    join(&standby, BIT(KILN_TOPIC_JOBS), 0);
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, 0), KILN_E_INVAL);
    assert_takes(&owner, "a");
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, 1), KILN_E_INVAL);
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, UINT64_MAX), KILN_E_INVAL);
    assert_int_equal(ack(&standby, KILN_TOPIC_JOBS, 0), KILN_E_INVAL);
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, 0), 0);
    assert_int_equal(ack(&owner, KILN_TOPIC_JOBS, 0), 0); // again is harmless
    assert_int_equal(kept(KILN_TOPIC_JOBS), 1);
    assert_int_equal(kiln_bus_topics_subscribe(&topics, &owner, BIT(KILN_TOPIC_JOBS), 0), KILN_E_EXISTS);
    kiln_bus_topics_leave(&topics, &owner);
    kiln_bus_topics_leave(&topics, &standby);
}

static void full_by_count_and_by_bytes(void **state) {
    (void)state;
    struct kiln_bus_reader reader = {0};
    for (unsigned i = 0; i < KILN_BUS_TOPIC_RECORDS_MAX; i++)
        assert_int_equal(put(KILN_TOPIC_JOBS, i % KILN_BUS_PARTITIONS_MAX, "", "x"), 0);
    assert_int_equal(put(KILN_TOPIC_JOBS, 0, "", "x"), KILN_E_LIMIT);
    join(&reader, BIT(KILN_TOPIC_JOBS), 0);
    assert_takes(&reader, "x");
    assert_int_equal(ack(&reader, KILN_TOPIC_JOBS, 0), 0);
    assert_int_equal(put(KILN_TOPIC_JOBS, 0, "", "x"), 0);
    kiln_bus_topics_leave(&topics, &reader);

    unsigned taken = 0;
    while (put_size(KILN_TOPIC_WORK, KILN_RECORD_BYTES_MAX) == 0)
        taken++;
    assert_in_range(taken, 250, 256);
    assert_true(topics.queues[KILN_TOPIC_WORK].bytes <= KILN_BUS_TOPIC_BYTES_MAX);
}

static void newest_make_room(void **state) {
    (void)state;
    struct kiln_bus_reader reader = {0};
    for (unsigned i = 0; i < KILN_BUS_TOPIC_RECORDS_MAX + 10; i++)
        assert_int_equal(put(KILN_TOPIC_EVENTS, 0, "", "x"), 0);
    assert_int_equal(kept(KILN_TOPIC_EVENTS), KILN_BUS_TOPIC_RECORDS_MAX);
    join(&reader, BIT(KILN_TOPIC_EVENTS), 0);
    uint64_t offset = 0;
    assert_non_null(take(&reader, &offset));
    assert_int_equal(offset, 10);
    kiln_bus_topics_leave(&topics, &reader);
}

static void state_keeps_the_last_of_a_key(void **state) {
    (void)state;
    struct kiln_bus_reader live = {0}, restarted = {0};
    join(&live, BIT(KILN_TOPIC_STATE), 0);
    put(KILN_TOPIC_STATE, 0, "k1", "old");
    put(KILN_TOPIC_STATE, 0, "k2", "kept");
    put(KILN_TOPIC_STATE, 0, "k1", "new"); // the live reader's next one goes away under it
    put(KILN_TOPIC_STATE, 0, "k3", "gone");
    put(KILN_TOPIC_STATE, 0, "k3", "");
    assert_takes(&live, "kept");
    join(&restarted, BIT(KILN_TOPIC_STATE), 0);
    const char *order[] = {"kept", "new", ""};
    for (size_t i = 0; i < 3; i++)
        assert_takes(&restarted, order[i]);
    assert_takes_nothing(&restarted);
    kiln_bus_topics_leave(&topics, &live);
    kiln_bus_topics_leave(&topics, &restarted);
}

static void state_gives_up_deletions_first(void **state) {
    (void)state;
    char key[16];
    for (unsigned i = 0; i < KILN_BUS_TOPIC_RECORDS_MAX; i++) {
        snprintf(key, sizeof key, "%u", i);
        assert_int_equal(put(KILN_TOPIC_STATE, 0, key, i == 7 ? "" : "x"), 0);
    }
    assert_int_equal(put(KILN_TOPIC_STATE, 0, "more", "x"), 0);
    assert_int_equal(put(KILN_TOPIC_STATE, 0, "still more", "x"), KILN_E_LIMIT);
    assert_int_equal(put(KILN_TOPIC_STATE, 0, "8", "y"), 0); // replaces
}

static void an_item_being_sent_outlives_its_topic(void **state) {
    (void)state;
    struct kiln_bus_reader reader = {0};
    put(KILN_TOPIC_JOBS, 0, "", "a");
    join(&reader, BIT(KILN_TOPIC_JOBS), 0);
    struct kiln_bus_item *item = kiln_bus_topics_next(&topics, &reader);
    assert_int_equal(ack(&reader, KILN_TOPIC_JOBS, 0), 0);
    assert_int_equal(kept(KILN_TOPIC_JOBS), 0);
    assert_int_equal(item->value[0], 'a');
    kiln_bus_item_unref(item);
    kiln_bus_topics_leave(&topics, &reader);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(group_goes_on_at_the_first_unacked), CASE(group_owner_is_who_waited_longest),
        CASE(from_end_gives_up_what_is_there),    CASE(order_is_over_topics_and_partitions),
        CASE(results_stay_until_all_acked),       CASE(ack_of_what_was_not_given_is_refused),
        CASE(full_by_count_and_by_bytes),         CASE(newest_make_room),
        CASE(state_keeps_the_last_of_a_key),      CASE(state_gives_up_deletions_first),
        CASE(an_item_being_sent_outlives_its_topic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
