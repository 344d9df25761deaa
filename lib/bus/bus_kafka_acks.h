// When an offset may be committed: once every record that this handle published before its ack has its delivery report.
//
// Publishes are numbered from 1 on. An ack remembers the number of the last publish before it; it counts when all up to that
// number are settled. A publish that fails for good voids the acks behind it: `kiln_kafka_acks_broken` says so until
// kiln_kafka_acks_rewind, after which the records are read again from the last committed offset.
// Pure bookkeeping: no I/O, no clock. Thread: all functions lock.
#pragma once

#include <pthread.h>

#include "lib/bus/bus.h"

#define KILN_KAFKA_UNSETTLED_MAX 65536u // publishes without a report; a power of two

struct kiln_kafka_progress { // of one topic and partition
    bool owned;
    uint64_t taken_end;                // after the last record given to the caller
    uint64_t acked_end;                // after the last acked
    uint64_t ready_end, committed_end; // may be committed; handed to a commit
    struct kiln_kafka_ack {
        uint64_t end, after;
    } *waiting;
    size_t waiting_count, waiting_cap;
};

struct kiln_kafka_acks {
    pthread_mutex_t lock;
    pthread_cond_t all_settled;
    uint64_t begun, settled; // numbers given out; all up to here have their report
    uint64_t broken;         // the lowest number that failed since the last rewind; 0: none
    uint64_t rewound;        // failures up to here do not count any more
    uint8_t *reports;        // ring of bits for the numbers above `settled`
    unsigned new_acks;       // since the last collection
    struct kiln_kafka_progress *progress[KILN_TOPIC_COUNT]; // arrays of KILN_BUS_KAFKA_PARTITIONS_MAX; group topics only
};

int kiln_kafka_acks_init(struct kiln_kafka_acks *acks, struct kiln_err *err);
void kiln_kafka_acks_release(struct kiln_kafka_acks *acks);

// The number of the next publish; 0 when too many are without a report.
uint64_t kiln_kafka_acks_begin(struct kiln_kafka_acks *acks);
void kiln_kafka_acks_settle(struct kiln_kafka_acks *acks, uint64_t number, bool failed);
// Nobody will report on those up to `number` any more: what has no report yet failed.
void kiln_kafka_acks_abandon(struct kiln_kafka_acks *acks, uint64_t number);
uint64_t kiln_kafka_acks_last(struct kiln_kafka_acks *acks); // the last number given
void kiln_kafka_acks_wait_settled(struct kiln_kafka_acks *acks, uint64_t deadline_ms); // until nothing is without its report

void kiln_kafka_acks_gain(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition);
void kiln_kafka_acks_lose(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition);
bool kiln_kafka_acks_owned(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition);
void kiln_kafka_acks_take(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t offset);
// Of what is not owned, or was not given since it is owned, nothing is remembered: that record comes again.
int kiln_kafka_acks_ack(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t offset,
                        struct kiln_err *err);
// Calls `commit` with the end of each partition that has more to commit than was handed to it before.
size_t kiln_kafka_acks_collect(struct kiln_kafka_acks *acks,
                               void (*commit)(void *context, enum kiln_topic topic, uint32_t partition, uint64_t end),
                               void *context);
// A commit up to `end` failed: it is collected again.
void kiln_kafka_acks_uncommitted(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t end);
unsigned kiln_kafka_acks_new(struct kiln_kafka_acks *acks);
bool kiln_kafka_acks_broken(struct kiln_kafka_acks *acks);
void kiln_kafka_acks_rewind(struct kiln_kafka_acks *acks); // after all partitions were lost
