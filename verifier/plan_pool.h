// The executors that a plan knows and the credits they have given: each credit is used once, before it expires.
//
// An executor is known by its name; one *incarnation* of it is current, and a new one ends the former for good. An incarnation
// whose lease ran out in silence is suspected: its credits rest until it is heard of again. Part of the plan: pure.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "verifier/plan.h"

#define KILN_POOL_FORMER_MAX 8u
#define KILN_POOL_SPENT_MAX 4096u // credits in all, used ones included until they expire

struct kiln_pool_executor {
    char name[KILN_PLAN_NAME_MAX + 1]; // "": a free place
    struct kiln_job_id incarnation, former[KILN_POOL_FORMER_MAX];
    unsigned former_count; // ever; the ring holds the newest
    uint64_t heard_ms;
    bool suspected;
};

struct kiln_pool_credit {
    char executor[KILN_PLAN_NAME_MAX + 1];
    struct kiln_job_id incarnation, credit;
    uint64_t until_ms;
    bool spent;
};

struct kiln_pool {
    struct kiln_pool_executor executors[KILN_PLAN_EXECUTORS_MAX];
    struct kiln_pool_credit credits[KILN_POOL_SPENT_MAX]; // in the order they came
    size_t credits_count;
};

// An incarnation announces itself. true when it ends another one, which *former then names.
bool kiln_pool_meet(struct kiln_pool *pool, const char *name, const struct kiln_job_id *incarnation, uint64_t now_ms,
                    struct kiln_job_id *former);
void kiln_pool_hear(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms);
// Its lease ran out: suspected, unless something was heard of it within quiet_ms.
void kiln_pool_suspect(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms, uint64_t quiet_ms);
// Ignores a credit that is known, expired, or of an incarnation that is not current.
void kiln_pool_add(struct kiln_pool *pool, const char *name, const struct kiln_job_id *incarnation,
                   const struct kiln_job_id *credit, uint64_t until_ms, uint64_t now_ms);
bool kiln_pool_take(struct kiln_pool *pool, uint64_t now_ms, struct kiln_pool_credit *credit);
void kiln_pool_expire(struct kiln_pool *pool, uint64_t now_ms);
