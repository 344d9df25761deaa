#include "lib/bus/bus_topics.h"

#include <stdlib.h>
#include <string.h>

enum keeping {
    UNTIL_GROUP_ACKED,
    UNTIL_ALL_ACKED,
    LAST_OF_KEY,
    NEWEST,
};

#define AGENT (1u << KILN_BUS_AGENT)
#define VERIFIER (1u << KILN_BUS_VERIFIER)
#define EXECUTOR (1u << KILN_BUS_EXECUTOR)

static const struct {
    unsigned writers, readers;
    enum keeping keeping;
} rules[KILN_TOPIC_COUNT] = {
    [KILN_TOPIC_JOBS] = {AGENT, VERIFIER, UNTIL_GROUP_ACKED},
    [KILN_TOPIC_WORK] = {VERIFIER, EXECUTOR, UNTIL_GROUP_ACKED},
    [KILN_TOPIC_CREDITS] = {EXECUTOR, VERIFIER, UNTIL_GROUP_ACKED},
    [KILN_TOPIC_LEASES] = {EXECUTOR, VERIFIER, UNTIL_GROUP_ACKED},
    [KILN_TOPIC_CANDIDATES] = {EXECUTOR, VERIFIER, UNTIL_GROUP_ACKED},
    [KILN_TOPIC_RESULTS] = {VERIFIER, AGENT, UNTIL_ALL_ACKED},
    [KILN_TOPIC_STATE] = {VERIFIER, VERIFIER, LAST_OF_KEY},
    // The agent reads these for the user's commands.
    [KILN_TOPIC_LEDGER] = {VERIFIER, AGENT, NEWEST},
    [KILN_TOPIC_EVENTS] = {AGENT | VERIFIER | EXECUTOR, AGENT, NEWEST},
    [KILN_TOPIC_DLQ] = {VERIFIER, AGENT, NEWEST},
};

bool kiln_bus_may_write(enum kiln_topic topic, enum kiln_bus_role role) { return rules[topic].writers >> role & 1; }
bool kiln_bus_may_read(enum kiln_topic topic, enum kiln_bus_role role) { return rules[topic].readers >> role & 1; }

struct kiln_bus_item *kiln_bus_item_new(const struct kiln_bus_frame *frame) {
    struct kiln_bus_item *item = malloc(sizeof *item + frame->value_len);
    if (!item)
        return NULL;
    *item = (struct kiln_bus_item){.refs = 1, .frame = *frame};
    return item;
}

void kiln_bus_item_unref(struct kiln_bus_item *item) {
    if (item && --item->refs == 0)
        free(item);
}

static size_t item_bytes(const struct kiln_bus_item *item) { return sizeof *item + item->frame.value_len; }

static struct kiln_bus_partition *partition_of(struct kiln_bus_topics *topics, const struct kiln_bus_item *item) {
    return &topics->queues[item->frame.topic].partitions[item->frame.partition];
}

static struct kiln_bus_cursor *cursor_of(struct kiln_bus_reader *reader, const struct kiln_bus_item *item) {
    return &reader->cursors[item->frame.topic][item->frame.partition];
}

static bool subscribed(const struct kiln_bus_reader *reader, unsigned topic) { return reader->topics >> topic & 1; }

void kiln_bus_topics_init(struct kiln_bus_topics *topics) {
    *topics = (struct kiln_bus_topics){0};
    LIST_INIT(&topics->readers);
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++)
        for (unsigned i = 0; i < KILN_BUS_PARTITIONS_MAX; i++)
            TAILQ_INIT(&topics->queues[topic].partitions[i].items);
}

static void drop(struct kiln_bus_topics *topics, struct kiln_bus_item *item) {
    struct kiln_bus_reader *reader;
    LIST_FOREACH(reader, &topics->readers, link) {
        struct kiln_bus_cursor *cursor = cursor_of(reader, item);
        if (cursor->next == item)
            cursor->next = TAILQ_NEXT(item, link);
    }
    struct kiln_bus_queue *queue = &topics->queues[item->frame.topic];
    TAILQ_REMOVE(&partition_of(topics, item)->items, item, link);
    queue->records--;
    queue->bytes -= item_bytes(item);
    kiln_bus_item_unref(item);
}

static void drop_before(struct kiln_bus_topics *topics, struct kiln_bus_partition *partition, uint64_t offset) {
    struct kiln_bus_item *item;
    while ((item = TAILQ_FIRST(&partition->items)) && item->frame.offset < offset)
        drop(topics, item);
}

void kiln_bus_topics_release(struct kiln_bus_topics *topics) {
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++)
        for (unsigned i = 0; i < KILN_BUS_PARTITIONS_MAX; i++)
            drop_before(topics, &topics->queues[topic].partitions[i], UINT64_MAX);
}

static bool fits(const struct kiln_bus_queue *queue, const struct kiln_bus_item *item) {
    return queue->records < KILN_BUS_TOPIC_RECORDS_MAX && queue->bytes + item_bytes(item) <= KILN_BUS_TOPIC_BYTES_MAX;
}

static struct kiln_bus_item *oldest(struct kiln_bus_queue *queue, bool only_deletions) {
    struct kiln_bus_item *found = NULL, *item;
    for (unsigned i = 0; i < KILN_BUS_PARTITIONS_MAX; i++) {
        TAILQ_FOREACH(item, &queue->partitions[i].items, link) {
            if (only_deletions && item->frame.value_len)
                continue;
            if (!found || item->sequence < found->sequence)
                found = item;
            break;
        }
    }
    return found;
}

static void drop_same_key(struct kiln_bus_topics *topics, const struct kiln_bus_item *newer) {
    struct kiln_bus_item *item;
    TAILQ_FOREACH(item, &partition_of(topics, newer)->items, link) {
        if (item->frame.key_len == newer->frame.key_len &&
            memcmp(item->frame.key, newer->frame.key, newer->frame.key_len) == 0) {
            drop(topics, item);
            return;
        }
    }
}

static int make_room(struct kiln_bus_topics *topics, const struct kiln_bus_item *item) {
    struct kiln_bus_queue *queue = &topics->queues[item->frame.topic];
    enum keeping keeping = rules[item->frame.topic].keeping;
    struct kiln_bus_item *victim;
    while (!fits(queue, item)) {
        if (keeping != NEWEST && keeping != LAST_OF_KEY)
            return KILN_E_LIMIT;
        victim = oldest(queue, keeping == LAST_OF_KEY);
        if (!victim)
            return KILN_E_LIMIT;
        drop(topics, victim);
    }
    return 0;
}

static bool anybody_reads(const struct kiln_bus_topics *topics, unsigned topic) {
    const struct kiln_bus_reader *reader;
    LIST_FOREACH(reader, &topics->readers, link) if (subscribed(reader, topic)) return true;
    return false;
}

int kiln_bus_topics_append(struct kiln_bus_topics *topics, struct kiln_bus_item *item) {
    struct kiln_bus_queue *queue = &topics->queues[item->frame.topic];
    struct kiln_bus_partition *partition = partition_of(topics, item);
    enum keeping keeping = rules[item->frame.topic].keeping;
    if (keeping == LAST_OF_KEY)
        drop_same_key(topics, item);
    if (make_room(topics, item)) {
        kiln_bus_item_unref(item);
        return KILN_E_LIMIT;
    }
    item->frame.op = KILN_BUS_OP_DELIVER;
    item->frame.offset = partition->end++;
    item->sequence = topics->sequence++;
    if (keeping == UNTIL_ALL_ACKED && !anybody_reads(topics, item->frame.topic)) {
        kiln_bus_item_unref(item);
        return 0;
    }
    TAILQ_INSERT_TAIL(&partition->items, item, link);
    queue->records++;
    queue->bytes += item_bytes(item);
    struct kiln_bus_reader *reader;
    LIST_FOREACH(reader, &topics->readers, link) {
        struct kiln_bus_cursor *cursor = cursor_of(reader, item);
        if (subscribed(reader, item->frame.topic) && !cursor->next)
            cursor->next = item;
    }
    return 0;
}

static void place_cursor(struct kiln_bus_reader *reader, unsigned topic, unsigned index,
                         struct kiln_bus_partition *partition, bool from_end) {
    bool at_end = from_end || rules[topic].keeping == UNTIL_ALL_ACKED;
    reader->cursors[topic][index] = (struct kiln_bus_cursor){
        .next = at_end ? NULL : TAILQ_FIRST(&partition->items),
        .start = at_end ? partition->end : 0,
        .acked_end = partition->end,
    };
}

// Gives a topic that a group reads to the subscriber that has waited longest.
static void elect_owner(struct kiln_bus_topics *topics, unsigned topic) {
    struct kiln_bus_queue *queue = &topics->queues[topic];
    if (rules[topic].keeping != UNTIL_GROUP_ACKED || queue->owner)
        return;
    struct kiln_bus_reader *reader;
    LIST_FOREACH(reader, &topics->readers, link) {
        if (subscribed(reader, topic) && (!queue->owner || reader->since[topic] < queue->owner->since[topic]))
            queue->owner = reader;
    }
    for (unsigned i = 0; queue->owner && i < KILN_BUS_PARTITIONS_MAX; i++) {
        struct kiln_bus_cursor *cursor = &queue->owner->cursors[topic][i];
        drop_before(topics, &queue->partitions[i], cursor->start);
        cursor->next = TAILQ_FIRST(&queue->partitions[i].items);
    }
}

int kiln_bus_topics_subscribe(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader, uint16_t mask,
                              uint16_t from_end) {
    if (reader->topics & mask)
        return KILN_E_EXISTS;
    if (mask && !reader->topics)
        LIST_INSERT_HEAD(&topics->readers, reader, link);
    reader->topics |= mask;
    uint64_t since = topics->sequence++;
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        if (!(mask >> topic & 1))
            continue;
        reader->since[topic] = since;
        for (unsigned i = 0; i < KILN_BUS_PARTITIONS_MAX; i++)
            place_cursor(reader, topic, i, &topics->queues[topic].partitions[i], from_end >> topic & 1);
        elect_owner(topics, topic);
    }
    return 0;
}

static void drop_acked_by_all(struct kiln_bus_topics *topics, unsigned topic, unsigned index) {
    uint64_t end = UINT64_MAX;
    struct kiln_bus_reader *reader;
    LIST_FOREACH(reader, &topics->readers, link) {
        if (subscribed(reader, topic) && reader->cursors[topic][index].acked_end < end)
            end = reader->cursors[topic][index].acked_end;
    }
    drop_before(topics, &topics->queues[topic].partitions[index], end);
}

void kiln_bus_topics_leave(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader) {
    if (!reader->topics)
        return;
    uint16_t left = reader->topics;
    LIST_REMOVE(reader, link);
    reader->topics = 0;
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        if (!(left >> topic & 1))
            continue;
        if (topics->queues[topic].owner == reader) {
            topics->queues[topic].owner = NULL;
            elect_owner(topics, topic);
        }
        for (unsigned i = 0; rules[topic].keeping == UNTIL_ALL_ACKED && i < KILN_BUS_PARTITIONS_MAX; i++)
            drop_acked_by_all(topics, topic, i);
    }
}

static bool is_served(const struct kiln_bus_topics *topics, const struct kiln_bus_reader *reader, unsigned topic) {
    return subscribed(reader, topic) &&
           (rules[topic].keeping != UNTIL_GROUP_ACKED || topics->queues[topic].owner == reader);
}

struct kiln_bus_item *kiln_bus_topics_next(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader) {
    struct kiln_bus_item *found = NULL;
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        for (unsigned i = 0; is_served(topics, reader, topic) && i < KILN_BUS_PARTITIONS_MAX; i++) {
            struct kiln_bus_item *item = reader->cursors[topic][i].next;
            if (item && (!found || item->sequence < found->sequence))
                found = item;
        }
    }
    if (!found)
        return NULL;
    struct kiln_bus_cursor *cursor = cursor_of(reader, found);
    cursor->next = TAILQ_NEXT(found, link);
    cursor->sent_end = found->frame.offset + 1;
    found->refs++;
    return found;
}

int kiln_bus_topics_ack(struct kiln_bus_topics *topics, struct kiln_bus_reader *reader, enum kiln_topic topic,
                        uint32_t partition, uint64_t offset) {
    struct kiln_bus_cursor *cursor = &reader->cursors[topic][partition];
    if (!subscribed(reader, topic) || offset >= cursor->sent_end)
        return KILN_E_INVAL;
    if (rules[topic].keeping == UNTIL_GROUP_ACKED) {
        drop_before(topics, &topics->queues[topic].partitions[partition], offset + 1);
    } else if (rules[topic].keeping == UNTIL_ALL_ACKED && offset >= cursor->acked_end) {
        cursor->acked_end = offset + 1;
        drop_acked_by_all(topics, topic, partition);
    }
    return 0;
}
