// The executors that a plan knows and the credits they have given: each credit is used once, before it expires.
//
// An executor is known by its name; one *incarnation* of it is current, and a new one ends the former for good. An incarnation
// whose lease ran out in silence is suspected: its credits rest until it is heard of again. Executors belong to a named pool.
// Of one executor the newest credit is used first: a slot that offers itself anew has made its former credit void. Among pools,
// and among the executors of one, uses go round. Part of the plan: pure.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "verifier/plan.h"
#include "verifier/plan_table.h"

#define KILN_POOL_FORMER_MAX 8u
#define KILN_POOL_CREDITS_MAX 256u // of one executor, unused; and as many used ones are remembered

struct kiln_run;

struct kiln_pool_credit {
    struct kiln_table_link by_id;
    TAILQ_ENTRY(kiln_pool_credit) of_executor;
    struct kiln_job_id credit;
    uint64_t until_ms, number; // number: in the order of their coming
    bool spent;
};
TAILQ_HEAD(kiln_pool_credits, kiln_pool_credit);

struct kiln_pool_group { // the executors of one pool; lives as long as the plan
    TAILQ_ENTRY(kiln_pool_group) link, offering_link;
    char name[KILN_PLAN_NAME_MAX + 1];
    TAILQ_HEAD(, kiln_pool_executor) offering; // those with a credit
};

struct kiln_pool_executor {
    struct kiln_table_link by_name, by_incarnation;
    TAILQ_ENTRY(kiln_pool_executor) heard_link, offering_link;
    char name[KILN_PLAN_NAME_MAX + 1];
    struct kiln_pool_group *group;
    struct kiln_job_id incarnation, former[KILN_POOL_FORMER_MAX];
    unsigned former_count; // ever; the ring holds the newest
    uint64_t heard_ms;
    bool suspected, offering;
    struct kiln_pool_credits unspent, spent; // newest first
    unsigned unspent_count, spent_count;
    LIST_HEAD(, kiln_run) runs; // the plan's: as long as there are any, the executor is not forgotten
};

struct kiln_pool {
    struct kiln_table by_name, by_incarnation, credits;
    TAILQ_HEAD(kiln_pool_heard, kiln_pool_executor) heard; // who was heard of last comes last
    TAILQ_HEAD(, kiln_pool_group) groups, offering;
    unsigned executors_count, groups_count;
    uint64_t credits_number;
};

// Whom a dispatch must not go to.
#define KILN_FILTER_MAX (KILN_PLAN_ATTEMPTS_MAX + KILN_PLAN_AGREEMENT_MAX)
struct kiln_filter {
    const struct kiln_pool_group *groups[KILN_FILTER_MAX];
    const struct kiln_pool_executor *never[KILN_FILTER_MAX];  // as strict as groups
    const struct kiln_pool_executor *rather_not[KILN_FILTER_MAX];
    unsigned groups_count, never_count, rather_not_count;
    bool anywhere; // rather_not is only a preference
};

int kiln_pool_init(struct kiln_pool *pool, uint64_t seed); // 0, or -1 without memory
void kiln_pool_release(struct kiln_pool *pool);
struct kiln_pool_executor *kiln_pool_find(const struct kiln_pool *pool, const char *name);
// An incarnation announces itself. true when it ends another one, which *former then names. *executor: NULL when it cannot be
// taken, or the incarnation is one that ended before.
bool kiln_pool_meet(struct kiln_pool *pool, const char *name, const char *group, const struct kiln_job_id *incarnation,
                    uint64_t now_ms, struct kiln_job_id *former, struct kiln_pool_executor **executor);
// true when one rested whose credits can be used again now.
bool kiln_pool_hear(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms);
// Its lease ran out: suspected, unless something was heard of it within quiet_ms.
void kiln_pool_suspect(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation,
                       uint64_t now_ms, uint64_t quiet_ms);
// Ignores a credit that is known or expired. false without memory.
bool kiln_pool_add(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *credit,
                   uint64_t until_ms, uint64_t now_ms);
// It did not take a job for that credit: what it gave before is not counted on either. A slot that is free offers itself
// again when it is asked to.
void kiln_pool_distrust(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *credit);
void kiln_pool_void(struct kiln_pool *pool, struct kiln_pool_executor *executor); // all its credits
bool kiln_pool_offers(const struct kiln_pool *pool); // perhaps: an expired credit is found when it is to be used
struct kiln_pool_executor *kiln_pool_take(struct kiln_pool *pool, const struct kiln_filter *filter, uint64_t now_ms,
                                          struct kiln_job_id *credit);
// Whether there is anybody beside those whom the filter names that may give a credit some time.
bool kiln_pool_has_other(const struct kiln_pool *pool, const struct kiln_filter *filter, uint64_t now_ms);
