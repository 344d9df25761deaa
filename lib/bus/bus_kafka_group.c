// The group of verifiers: who owns which partition, what may be committed, and going back when a publish was lost.
// All of it runs in the consumer's thread.
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/bus/bus_kafka_handle.h"

enum { COMMIT_EVERY_MS = 100, COMMIT_AT_ACKS = 64, COMMIT_MS = 1000, LOST_MS = 5000, REWIND_EVERY_MS = 1000, LEAD_MS = 5000 };

static const struct kiln_kafka_source *source_of(const struct kiln_kafka *kafka, const char *name) {
    for (unsigned i = 0; i < kafka->consumer.sources_count; i++) {
        if (strcmp(kafka->consumer.sources[i].name, name) == 0)
            return &kafka->consumer.sources[i];
    }
    return NULL;
}

static const char *name_of(const struct kiln_kafka *kafka, enum kiln_topic topic) {
    for (unsigned i = 0; i < kafka->consumer.sources_count; i++) {
        if (kafka->consumer.sources[i].topic == topic)
            return kafka->consumer.sources[i].name;
    }
    return "";
}

static void add_offset(void *context, enum kiln_topic topic, uint32_t partition, uint64_t end) {
    void *const *pair = context;
    rd_kafka_topic_partition_list_t *offsets = pair[1];
    rd_kafka_topic_partition_list_add(offsets, name_of(pair[0], topic), (int32_t)partition)->offset = (int64_t)end;
}

// What may be committed now and was not handed over before; NULL when nothing.
static rd_kafka_topic_partition_list_t *collect(struct kiln_kafka *kafka) {
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(16);
    void *pair[2] = {kafka, offsets};
    if (kiln_kafka_acks_collect(&kafka->acks, add_offset, pair))
        return offsets;
    rd_kafka_topic_partition_list_destroy(offsets);
    return NULL;
}

static void not_committed(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *offsets, rd_kafka_resp_err_t error) {
    kiln_kafka_count_failure(kafka, &kafka->stats.commits_failed, "commit", rd_kafka_err2str(error));
    for (int i = 0; i < offsets->cnt; i++) {
        const struct kiln_kafka_source *source = source_of(kafka, offsets->elems[i].topic);
        if (source)
            kiln_kafka_acks_uncommitted(&kafka->acks, source->topic, (uint32_t)offsets->elems[i].partition,
                                        (uint64_t)offsets->elems[i].offset);
    }
}

void kiln_kafka_on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *offsets, void *opaque) {
    (void)rk;
    struct kiln_kafka *kafka = opaque;
    for (int i = 0; offsets && error == RD_KAFKA_RESP_ERR_NO_ERROR && i < offsets->cnt; i++)
        error = offsets->elems[i].err;
    if (error && offsets)
        not_committed(kafka, offsets, error);
    else if (!error)
        kiln_kafka_count(kafka, &kafka->stats.commits);
}

void kiln_kafka_commit_due(struct kiln_kafka *kafka) {
    uint64_t now_ms = kiln_clock_ms();
    if (now_ms - kafka->consumer.commit_ms < COMMIT_EVERY_MS && kiln_kafka_acks_new(&kafka->acks) < COMMIT_AT_ACKS)
        return;
    kafka->consumer.commit_ms = now_ms;
    rd_kafka_topic_partition_list_t *offsets = collect(kafka);
    if (!offsets)
        return;
    rd_kafka_resp_err_t error = rd_kafka_commit(kafka->consumer.rk, offsets, 1 /* async */);
    if (error)
        not_committed(kafka, offsets, error);
    rd_kafka_topic_partition_list_destroy(offsets);
}

void kiln_kafka_commit_now(struct kiln_kafka *kafka, uint64_t deadline_ms) {
    rd_kafka_topic_partition_list_t *offsets = collect(kafka);
    if (!offsets)
        return;
    rd_kafka_queue_t *answers = rd_kafka_queue_new(kafka->consumer.rk); // a synchronous commit has no end of its own
    rd_kafka_resp_err_t error = rd_kafka_commit_queue(kafka->consumer.rk, offsets, answers, NULL, NULL);
    rd_kafka_event_t *event = error ? NULL : rd_kafka_queue_poll(answers, kiln_clock_left_ms(deadline_ms));
    if (!error)
        error = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (error)
        not_committed(kafka, offsets, error);
    else
        kiln_kafka_count(kafka, &kafka->stats.commits);
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(answers);
    rd_kafka_topic_partition_list_destroy(offsets);
}

// Of its topics, those in the list that have partition p; all of them, or the fleet's topics differ in their partitions.
static unsigned topics_with(const rd_kafka_topic_partition_list_t *list, int32_t partition) {
    unsigned count = 0;
    for (int i = 0; i < list->cnt; i++)
        count += list->elems[i].partition == partition;
    return count;
}

static bool is_first(const rd_kafka_topic_partition_list_t *list, int at) {
    for (int i = 0; i < at; i++) {
        if (list->elems[i].partition == list->elems[at].partition)
            return false;
    }
    return true;
}

static void put_gained(struct kiln_kafka *kafka, uint32_t partition) {
    struct kiln_record gained = {.topic = KILN_TOPIC_JOBS, .news = KILN_NEWS_GAINED, .partition = partition};
    kiln_kafka_queue_put(&kafka->queue, &gained, NULL);
}

static void gain(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *list) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *one = &list->elems[i];
        if (topics_with(list, one->partition) != consumer->sources_count || one->partition >= (int32_t)kafka->options.partitions)
            kiln_kafka_health_down(&kafka->health, "jobs, credits, leases and candidates differ in their partitions, or from fleet.partitions");
        if (is_first(list, i))
            put_gained(kafka, (uint32_t)one->partition);
        const struct kiln_kafka_source *source = source_of(kafka, one->topic);
        if (source)
            kiln_kafka_acks_gain(&kafka->acks, source->topic, (uint32_t)one->partition);
    }
}

// The caller learns that it has lost them, and has done with what it was doing there, before anything is given up.
static void tell_lost(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        if (is_first(list, i))
            kiln_kafka_queue_put_lost(&kafka->queue, (uint32_t)list->elems[i].partition, NULL);
    }
    kiln_kafka_queue_wait_for_lost(&kafka->queue, kiln_clock_ms() + LOST_MS);
}

static void disown(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        const struct kiln_kafka_source *source = source_of(kafka, list->elems[i].topic);
        if (source)
            kiln_kafka_acks_lose(&kafka->acks, source->topic, (uint32_t)list->elems[i].partition);
    }
}

static void lead_to_our_queue(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_queue_t *queue =
            rd_kafka_queue_get_partition(kafka->consumer.rk, list->elems[i].topic, list->elems[i].partition);
        if (!queue)
            continue;
        rd_kafka_queue_forward(queue, kafka->consumer.records);
        rd_kafka_queue_destroy(queue);
    }
}

// A partition that is still being stopped, from an assignment just ended, loses its way to our queue at its end, and what it
// then fetches would lie there unseen. Leading it again brings that along.
void kiln_kafka_lead_due(struct kiln_kafka *kafka) {
    if (kafka->consumer.assigned && kiln_clock_ms() - kafka->consumer.assigned_ms < LEAD_MS)
        lead_to_our_queue(kafka, kafka->consumer.assigned);
}

static void assign(struct kiln_kafka *kafka, const rd_kafka_topic_partition_list_t *list) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    gain(kafka, list);
    lead_to_our_queue(kafka, list);
    rd_kafka_resp_err_t error = rd_kafka_assign(consumer->rk, list);
    if (error)
        kiln_kafka_health_down(&kafka->health, rd_kafka_err2str(error));
    rd_kafka_topic_partition_list_t *copy = rd_kafka_topic_partition_list_copy(list);
    if (consumer->assigned)
        rd_kafka_topic_partition_list_destroy(consumer->assigned);
    consumer->assigned = copy;
    consumer->assigned_ms = kiln_clock_ms();
}

void kiln_kafka_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *partitions,
                             void *opaque) {
    struct kiln_kafka *kafka = opaque;
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !kafka->closing) {
        assign(kafka, partitions);
        return;
    }
    tell_lost(kafka, partitions);
    if (!rd_kafka_assignment_lost(rk) && !kafka->closing)
        kiln_kafka_commit_now(kafka, kiln_clock_ms() + COMMIT_MS);
    disown(kafka, partitions);
    rd_kafka_assign(rk, NULL);
    if (consumer->assigned)
        rd_kafka_topic_partition_list_destroy(consumer->assigned);
    consumer->assigned = NULL;
}

// A publish was lost, so acks behind it never count: everything not committed is read again, as by a new owner.
void kiln_kafka_rewind_due(struct kiln_kafka *kafka) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    uint64_t now_ms = kiln_clock_ms();
    if (!consumer->assigned || !kiln_kafka_acks_broken(&kafka->acks) || now_ms - consumer->rewound_ms < REWIND_EVERY_MS)
        return;
    consumer->rewound_ms = now_ms;
    kiln_kafka_count(kafka, &kafka->stats.rewinds);
    rd_kafka_topic_partition_list_t *list = consumer->assigned;
    consumer->assigned = NULL;
    tell_lost(kafka, list);
    kiln_kafka_commit_now(kafka, kiln_clock_ms() + COMMIT_MS);
    disown(kafka, list);
    kiln_kafka_acks_rewind(&kafka->acks);
    rd_kafka_assign(consumer->rk, NULL);
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_INVALID; // from the committed one
    assign(kafka, list);
    rd_kafka_topic_partition_list_destroy(list);
}
