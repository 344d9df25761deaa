// The topics of the embedded bus in memory: what is kept for whom. No I/O, no lock, no clock; the server calls it from
// under its mutex. Semantics of each topic: bus.h.
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "lib/bus/bus_frames.h"

#define KILN_BUS_TOPIC_RECORDS_MAX 4096u
#define KILN_BUS_TOPIC_BYTES_MAX (64u << 20)

// One record; referenced by its topic and by each connection that is sending it.
struct kiln_bus_item {
    TAILQ_ENTRY(kiln_bus_item) link;
    unsigned refs;
    uint64_t sequence; // over all topics: the order of deliveries
    struct kiln_bus_frame frame;
    unsigned char value[];
};

struct kiln_bus_item *kiln_bus_item_new(const struct kiln_bus_frame *frame); // one reference; NULL on exhausted memory
void kiln_bus_item_unref(struct kiln_bus_item *item);

struct kiln_bus_cursor {
    struct kiln_bus_item *next; // to be given; NULL when all has been
    uint64_t sent_end;          // offset after the last given
    uint64_t acked_end;         // results: offset after the last acked
    uint64_t start;             // offset of the first that the reader wants
};

// The reading side of one connection.
struct kiln_bus_reader {
    LIST_ENTRY(kiln_bus_reader) link;
    uint16_t topics; // bit per subscribed topic
    uint64_t since[KILN_TOPIC_COUNT];
    struct kiln_bus_cursor cursors[KILN_TOPIC_COUNT][KILN_BUS_PARTITIONS_MAX];
};

struct kiln_bus_partition {
    TAILQ_HEAD(, kiln_bus_item) items;
    uint64_t end; // offset of the next record
};

struct kiln_bus_queue {
    struct kiln_bus_partition partitions[KILN_BUS_PARTITIONS_MAX];
    struct kiln_bus_reader *owner; // of a topic that a consumer group reads
    size_t records, bytes;
};

struct kiln_bus_topics {
    struct kiln_bus_queue queues[KILN_TOPIC_COUNT];
    LIST_HEAD(, kiln_bus_reader) readers;
    uint64_t sequence;
};

bool kiln_bus_may_write(enum kiln_topic topic, enum kiln_bus_role role);
bool kiln_bus_may_read(enum kiln_topic topic, enum kiln_bus_role role);

void kiln_bus_topics_init(struct kiln_bus_topics *topics);
void kiln_bus_topics_release(struct kiln_bus_topics *topics); // readers have left before

// Takes the caller's reference, also on failure (KILN_E_LIMIT: the topic is full).
int kiln_bus_topics_append(struct kiln_bus_topics *topics, struct kiln_bus_item *item);
// KILN_E_EXISTS when the reader has one of the topics already.
int kiln_bus_topics_subscribe(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader, uint16_t mask,
                              uint16_t from_end);
// Ends all subscriptions of the reader; what it has not acked goes to the next in its group.
void kiln_bus_topics_leave(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader);
// The next record for the reader with a reference for the caller, or NULL.
struct kiln_bus_item *kiln_bus_topics_next(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader);
// KILN_E_INVAL when the reader was never given that record.
int kiln_bus_topics_ack(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader, enum kiln_topic topic,
                        uint32_t partition, uint64_t offset);
