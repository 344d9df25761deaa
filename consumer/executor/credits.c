#include "consumer/executor/credits.h"

#include <string.h>

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) { return !memcmp(a, b, sizeof *a); }

void kiln_credits_init(struct kiln_credits *credits, unsigned count, uint32_t partitions, uint32_t first) {
    *credits = (struct kiln_credits){.count = count < KILN_SLOTS_MAX ? count : KILN_SLOTS_MAX, .partitions = partitions};
    for (unsigned i = 0; i < credits->count; i++)
        credits->slots[i].partition = (first % partitions + i) % partitions;
}

static bool is_expired(const struct kiln_credit_slot *slot, uint64_t now_ms) {
    return now_ms >= slot->offered_ms + KILN_CREDIT_LIFE_MS;
}

void kiln_credits_offered(struct kiln_credits *credits, unsigned at, const struct kiln_job_id *credit, uint64_t now_ms) {
    struct kiln_credit_slot *slot = &credits->slots[at];
    slot->state = KILN_SLOT_OFFERED;
    slot->credit = *credit;
    slot->offered_ms = now_ms;
}

// The next offer of a slot whose credit expired goes to another partition.
static void move_on(struct kiln_credits *credits, uint64_t now_ms) {
    for (unsigned i = 0; i < credits->count; i++) {
        struct kiln_credit_slot *slot = &credits->slots[i];
        if (slot->state == KILN_SLOT_OFFERED && is_expired(slot, now_ms)) {
            slot->state = KILN_SLOT_IDLE;
            slot->partition = (slot->partition + credits->count) % credits->partitions;
        }
    }
}

int kiln_credits_due(struct kiln_credits *credits, uint64_t now_ms) {
    move_on(credits, now_ms);
    for (unsigned i = 0; i < credits->count && !credits->draining; i++)
        if (credits->slots[i].state == KILN_SLOT_IDLE)
            return (int)i;
    return -1;
}

static bool is_movable(const struct kiln_credit_slot *slot, uint64_t now_ms) {
    return slot->state == KILN_SLOT_IDLE ||
           (slot->state == KILN_SLOT_OFFERED && now_ms >= slot->offered_ms + KILN_CREDIT_SETTLE_MS);
}

bool kiln_credits_demand(struct kiln_credits *credits, uint32_t partition, uint32_t count, uint64_t now_ms) {
    if (credits->draining || partition >= credits->partitions)
        return false;
    move_on(credits, now_ms);
    uint32_t wanted = count;
    // A credit that went there a moment ago answers the demand, which crossed it on the way.
    for (unsigned i = 0; wanted && i < credits->count; i++) {
        const struct kiln_credit_slot *slot = &credits->slots[i];
        wanted -= slot->state == KILN_SLOT_OFFERED && slot->partition == partition && !is_movable(slot, now_ms);
    }
    bool moved = false;
    for (unsigned i = 0; wanted && i < credits->count; i++) {
        struct kiln_credit_slot *slot = &credits->slots[i];
        if (!is_movable(slot, now_ms))
            continue;
        slot->state = KILN_SLOT_IDLE;
        slot->partition = partition;
        moved = true;
        wanted--;
    }
    return moved || wanted < count;
}

static bool was_begun(const struct kiln_credits *credits, const struct kiln_work *work) {
    for (unsigned i = 0; i < credits->count; i++) {
        const struct kiln_credit_slot *slot = &credits->slots[i];
        if (slot->state == KILN_SLOT_BUSY && same_id(&slot->job, &work->job) && slot->attempt == work->attempt)
            return true;
    }
    unsigned kept = credits->ended_count < KILN_ENDED_MAX ? credits->ended_count : KILN_ENDED_MAX;
    for (unsigned i = 0; i < kept; i++)
        if (same_id(&credits->ended[i].job, &work->job) && credits->ended[i].attempt == work->attempt)
            return true;
    return false;
}

enum kiln_claim kiln_credits_claim(struct kiln_credits *credits, const struct kiln_work *work, unsigned *at) {
    if (was_begun(credits, work))
        return KILN_CLAIM_REPEATED;
    for (unsigned i = 0; i < credits->count && !credits->draining; i++) {
        struct kiln_credit_slot *slot = &credits->slots[i];
        if (slot->state != KILN_SLOT_OFFERED || !same_id(&slot->credit, &work->credit))
            continue;
        slot->state = KILN_SLOT_BUSY;
        slot->job = work->job;
        slot->attempt = work->attempt;
        *at = i;
        return KILN_CLAIM_TAKEN;
    }
    return KILN_CLAIM_DECLINED;
}

void kiln_credits_ended(struct kiln_credits *credits, unsigned at, uint32_t partition) {
    struct kiln_credit_slot *slot = &credits->slots[at];
    credits->ended[credits->ended_count++ % KILN_ENDED_MAX] = (struct kiln_begun){.job = slot->job, .attempt = slot->attempt};
    slot->state = KILN_SLOT_IDLE;
    slot->partition = partition % credits->partitions;
}

void kiln_credits_drain(struct kiln_credits *credits) { credits->draining = true; }

unsigned kiln_credits_busy(const struct kiln_credits *credits) {
    unsigned busy = 0;
    for (unsigned i = 0; i < credits->count; i++)
        busy += credits->slots[i].state == KILN_SLOT_BUSY;
    return busy;
}
