// Acks in order, whatever the order in which records are done with: the bus acks a record and all before it, so a record that
// is still worked on holds back those behind it, and is given again after a crash.
//
// One due per record: begun when it was taken, done once. Those of a partition that was lost are void. One thread.
#pragma once

#include <sys/queue.h>

#include "lib/bus/bus.h"

struct kiln_ack {
    TAILQ_ENTRY(kiln_ack) link;
    enum kiln_topic topic;
    uint32_t partition;
    uint64_t offset;
    bool done, lost;
};

struct kiln_acks {
    struct kiln_bus *bus;
    TAILQ_HEAD(, kiln_ack) due; // in the order of taking
};

void kiln_acks_init(struct kiln_acks *acks, struct kiln_bus *bus);
void kiln_acks_release(struct kiln_acks *acks);
struct kiln_ack *kiln_acks_begin(struct kiln_acks *acks, const struct kiln_record *record); // NULL: no memory
// Frees it. Acks as far as everything before is done too.
int kiln_acks_done(struct kiln_acks *acks, struct kiln_ack *ack, struct kiln_err *err);
void kiln_acks_lose(struct kiln_acks *acks, uint32_t partition);
