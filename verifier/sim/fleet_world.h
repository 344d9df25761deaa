// What the parts of the simulated fleet share: the world, and the messages that make time pass in it.
#pragma once

#include <stdbool.h>

#include "verifier/plan.h"
#include "verifier/sim/dice.h"
#include "verifier/sim/fleet.h"

#define KILN_FLEET_LEASE_MS 1500u
#define KILN_FLEET_UPLOAD_MS 3000u
#define KILN_FLEET_NOBODY UINT32_MAX
#define KILN_FLEET_VERIFIERS_MAX 32u // bits of a job's `entered`

enum kiln_fleet_kind {
    KILN_FLEET_SUBMIT,   // job
    KILN_FLEET_RECORD,   // partition: of the jobs topic
    KILN_FLEET_TO_OWNER, // partition, event...: of an executor
    KILN_FLEET_WORK,     // executor, job, action, attempt, credit, generation
    KILN_FLEET_DEMANDED, // partition, executor, count
    KILN_FLEET_BEAT,     // executor, slot, token
    KILN_FLEET_FINISH,   // executor, slot, token
    KILN_FLEET_OFFER,    // executor, slot, token
    KILN_FLEET_DIE,      // executor
    KILN_FLEET_RISE,     // executor
    KILN_FLEET_TICK,     // verifier, token: its life
    KILN_FLEET_CRASH,    // verifier
    KILN_FLEET_START,    // verifier
    KILN_FLEET_ASSIGN,   // partition
    KILN_FLEET_YIELD,    // partition, verifier, token: it hears only now that it is not the owner any more
    KILN_FLEET_FORGET,   // job, verifier, token: the tombstone of its state arrives
    KILN_FLEET_LATER,    // verifier, token, action, released, event, attempt, verdict, digest: of what a docket does meanwhile
    KILN_FLEET_REVOKE,   // executor
};

struct kiln_fleet_message {
    uint64_t at_ms, number;
    enum kiln_fleet_kind kind;
    enum kiln_plan_event_kind event; // TO_OWNER
    uint32_t partition, verifier, executor, slot, token, job, action, attempt, credit, generation, digest,
        count, released;
    enum kiln_plan_verdict verdict;
    uint64_t until_ms;
};

enum kiln_fleet_end { KILN_FLEET_WAITS, KILN_FLEET_RESULT, KILN_FLEET_LOCALLY, KILN_FLEET_REFUSED, KILN_FLEET_CANCELLED };

struct kiln_fleet_job {
    uint32_t action, entered;      // entered: verifiers whose plan has it as a waiter
    uint32_t kept_next, kept_prev; // kiln.state of its partition; 0: end, else the job + 1
    uint32_t digest;               // of the result that it heard of
    uint64_t deadline_ms;
    uint16_t agent;
    uint8_t end;
    bool kept, answered;
};

struct kiln_fleet_action {
    uint32_t stored;         // digest in the vault; 0: none
    uint32_t job, executor, generation; // kiln.state of its flight: the newest dispatch
    uint64_t dispatched_ms;
    uint8_t released[KILN_FLEET_VERIFIERS_MAX]; // how many of its flights have gone, by verifier
    uint8_t attempt, troubles, agreement;
    bool kept, content, fickle, executed; // fickle: gives another result each time
};

struct kiln_fleet_log {
    struct kiln_fleet_entry {
        uint32_t job;
        uint8_t kind; // enum kiln_plan_event_kind
    } *entries;
    size_t count, taken, committed;
    uint32_t kept_first; // the waiters in kiln.state: job + 1
    uint32_t owner;      // a verifier, or nobody
};

struct kiln_fleet_slot {
    uint32_t token;  // of what it does now
    bool busy;
    uint32_t credit, job, action, attempt;
    uint64_t until_ms; // of the credit
};

struct kiln_fleet_executor {
    char name[16], pool[16];
    uint32_t generation, next_partition;
    bool alive, liar, revoked;
    struct kiln_fleet_slot *slots;
};

struct kiln_fleet_verifier {
    struct kiln_plan *plan; // NULL: it is dead
    uint32_t life;
    uint64_t tick_ms;       // the one that is on its way
    bool yielding;          // flights go because their partition did
};

struct kiln_fleet {
    const struct kiln_fleet_options *options;
    struct kiln_fleet_report *report;
    struct kiln_dice dice;
    uint64_t (*clock_ns)(void);
    uint64_t now_ms, numbers, calm_ms; // nothing dies after calm_ms
    struct kiln_fleet_message *heap;
    size_t heap_count;
    struct kiln_fleet_job *jobs;
    struct kiln_fleet_action *actions;
    struct kiln_fleet_log *logs;
    struct kiln_fleet_executor *executors;
    struct kiln_fleet_verifier verifiers[KILN_FLEET_VERIFIERS_MAX];
    uint16_t *credits_used; // by whom last: life and number of a verifier
    uint32_t credits_count, credits_max;
    uint32_t open_count;    // jobs that nobody has answered or cancelled
};

void kiln_fleet_fail(struct kiln_fleet *fleet, const char *what, uint64_t which);
unsigned kiln_fleet_below(struct kiln_fleet *fleet, unsigned bound);
bool kiln_fleet_chance(struct kiln_fleet *fleet, unsigned percent); // of the troubles: scaled by options->trouble
void kiln_fleet_send(struct kiln_fleet *fleet, struct kiln_fleet_message message, unsigned delay_ms);
// How long a process lives, at most: also in a short run some die.
unsigned kiln_fleet_life_ms(struct kiln_fleet *fleet, unsigned max_ms);
uint32_t kiln_fleet_partition_of(const struct kiln_fleet *fleet, uint32_t action);
// A record of the jobs topic, at least once.
void kiln_fleet_publish(struct kiln_fleet *fleet, uint32_t job, enum kiln_plan_event_kind kind, unsigned delay_ms);
// Agents: what they do with what they are told.
void kiln_fleet_told_want(struct kiln_fleet *fleet, uint32_t job);
void kiln_fleet_told(struct kiln_fleet *fleet, uint32_t job, enum kiln_fleet_end end, uint32_t digest);
// Executors.
void kiln_fleet_executor_hears(struct kiln_fleet *fleet, const struct kiln_fleet_message *message);
// Verifiers.
void kiln_fleet_verifier_hears(struct kiln_fleet *fleet, const struct kiln_fleet_message *message);
void kiln_fleet_keep(struct kiln_fleet *fleet, uint32_t job);   // kiln.state: the waiter
void kiln_fleet_forget(struct kiln_fleet *fleet, uint32_t job);
