// Where free slots offer their credits, and which work may be begun on one. Pure: time and random ids are passed in.
//
//          offered               claim: TAKEN
//   IDLE ----------> OFFERED ------------------> BUSY
//    ^ ^                | expired, or demanded     |
//    | +----------------+ by another partition     |
//    +---------------------------------------------+ ended
//
// A credit is single-use and belongs to one partition of kiln.credits. Free slots are spread over the partitions; one that
// expires unused moves on, one whose job ended goes back to that job's partition (its next jobs come from there), and one
// that is demanded elsewhere goes there: its old credit is void. Work for a void credit is declined, except work that this
// executor has begun already, which came twice.
#pragma once

#include <stdbool.h>

#include "lib/wire/records.h"

#define KILN_SLOTS_MAX 256u
#define KILN_CREDIT_LIFE_MS 30000u
#define KILN_CREDIT_SETTLE_MS 300u // a fresh offer is not moved: the demand may be older than it
#define KILN_ENDED_MAX 128u

enum kiln_slot_state { KILN_SLOT_IDLE, KILN_SLOT_OFFERED, KILN_SLOT_BUSY };

struct kiln_credit_slot {
    enum kiln_slot_state state;
    uint32_t partition; // of the offer: the next one (IDLE) or the one that is out
    struct kiln_job_id credit;
    uint64_t offered_ms;
    struct kiln_job_id job; // BUSY
    uint32_t attempt;
};

struct kiln_begun {
    struct kiln_job_id job;
    uint32_t attempt;
};

struct kiln_credits {
    struct kiln_credit_slot slots[KILN_SLOTS_MAX];
    unsigned count;
    uint32_t partitions;
    bool draining;
    struct kiln_begun ended[KILN_ENDED_MAX]; // the last ones
    unsigned ended_count;
};

enum kiln_claim {
    KILN_CLAIM_TAKEN,
    KILN_CLAIM_DECLINED, // say so: the job is to be given to somebody else
    KILN_CLAIM_REPEATED, // it runs, or has run here
};

// `first`: where the first slot offers; different for each executor, so that a fleet spreads.
void kiln_credits_init(struct kiln_credits *credits, unsigned count, uint32_t partitions, uint32_t first);
// A slot that has to offer a fresh credit now to slots[i].partition; -1: none.
int kiln_credits_due(struct kiln_credits *credits, uint64_t now_ms);
void kiln_credits_offered(struct kiln_credits *credits, unsigned slot, const struct kiln_job_id *credit, uint64_t now_ms);
// That many jobs wait at the partition's owner, and it has no credit. false: no slot is free for it.
bool kiln_credits_demand(struct kiln_credits *credits, uint32_t partition, uint32_t count, uint64_t now_ms);
enum kiln_claim kiln_credits_claim(struct kiln_credits *credits, const struct kiln_work *work, unsigned *slot);
void kiln_credits_ended(struct kiln_credits *credits, unsigned slot, uint32_t partition);
void kiln_credits_drain(struct kiln_credits *credits); // no offers; what is out is void
unsigned kiln_credits_busy(const struct kiln_credits *credits);
