#include "verifier/acks.h"

#include <stdlib.h>

void kiln_acks_init(struct kiln_acks *acks, struct kiln_bus *bus) {
    acks->bus = bus;
    TAILQ_INIT(&acks->due);
}

static void drop(struct kiln_acks *acks, struct kiln_ack *ack) {
    TAILQ_REMOVE(&acks->due, ack, link);
    free(ack);
}

void kiln_acks_release(struct kiln_acks *acks) {
    for (struct kiln_ack *ack; (ack = TAILQ_FIRST(&acks->due));)
        drop(acks, ack);
}

struct kiln_ack *kiln_acks_begin(struct kiln_acks *acks, const struct kiln_record *record) {
    struct kiln_ack *ack = calloc(1, sizeof *ack);
    if (!ack)
        return NULL;
    ack->topic = record->topic;
    ack->partition = record->partition;
    ack->offset = record->offset;
    TAILQ_INSERT_TAIL(&acks->due, ack, link);
    return ack;
}

// Removes the done ones at the front of a partition; *last is what is to be acked, when there is anything.
static bool collect(struct kiln_acks *acks, enum kiln_topic topic, uint32_t partition, struct kiln_record *last) {
    bool any = false;
    struct kiln_ack *ack, *next;
    for (ack = TAILQ_FIRST(&acks->due); ack; ack = next) {
        next = TAILQ_NEXT(ack, link);
        if (ack->lost || ack->topic != topic || ack->partition != partition)
            continue;
        if (!ack->done)
            break;
        *last = (struct kiln_record){.topic = topic, .partition = partition, .offset = ack->offset};
        any = true;
        drop(acks, ack);
    }
    return any;
}

int kiln_acks_done(struct kiln_acks *acks, struct kiln_ack *ack, struct kiln_err *err) {
    ack->done = true;
    if (ack->lost) {
        drop(acks, ack);
        return 0;
    }
    struct kiln_record last;
    return collect(acks, ack->topic, ack->partition, &last) ? kiln_bus_ack(acks->bus, &last, err) : 0;
}

void kiln_acks_lose(struct kiln_acks *acks, uint32_t partition) {
    struct kiln_ack *ack;
    TAILQ_FOREACH(ack, &acks->due, link)
        ack->lost |= ack->partition == partition;
}
