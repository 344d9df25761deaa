// Records on their way from the consumer's thread to the caller's poll: bounded in count and bytes, with a descriptor that
// is readable while something is there. News of partitions are never refused.
//
// Losing a partition is a hand-shake: its records go, LOST is given first, and it counts as handled once the caller polls
// again, for until then it may still act on what it had.
#pragma once

#include <pthread.h>
#include <sys/queue.h>

#include "lib/bus/bus.h"

#define KILN_KAFKA_QUEUE_RECORDS_MAX 2048u
#define KILN_KAFKA_QUEUE_BYTES_MAX (32u << 20)

struct kiln_kafka_queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    TAILQ_HEAD(kiln_kafka_queued_list, kiln_kafka_queued) items;
    size_t records, bytes;
    int event_fd;
    unsigned lost_waiting; // LOST that were not given yet, or whose taker has not polled again
    bool lost_given;       // the last thing given was LOST
    bool closing;
    struct kiln_err failure; // code set: nothing more will come
};

int kiln_kafka_queue_init(struct kiln_kafka_queue *queue, struct kiln_err *err);
void kiln_kafka_queue_release(struct kiln_kafka_queue *queue);

int kiln_kafka_queue_put(struct kiln_kafka_queue *queue, struct kiln_record *record, struct kiln_err *err); // takes, also on failure
// Drops what is queued of that partition and puts LOST in front, unless the caller was never told that it gained it.
int kiln_kafka_queue_put_lost(struct kiln_kafka_queue *queue, uint32_t partition, struct kiln_err *err);
int kiln_kafka_queue_take(struct kiln_kafka_queue *queue, uint64_t deadline_ms, struct kiln_record *record,
                          struct kiln_err *err);
bool kiln_kafka_queue_wait_for_room(struct kiln_kafka_queue *queue, uint64_t deadline_ms); // whether there is room
void kiln_kafka_queue_wait_for_lost(struct kiln_kafka_queue *queue, uint64_t deadline_ms);
void kiln_kafka_queue_fail(struct kiln_kafka_queue *queue, const struct kiln_err *failure); // after what is queued
void kiln_kafka_queue_close(struct kiln_kafka_queue *queue); // ends all waiting of the consumer's thread
