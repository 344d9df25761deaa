#include "verifier/plan_pool.h"

#include <string.h>

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static struct kiln_pool_executor *find_by_name(struct kiln_pool *pool, const char *name) {
    for (size_t i = 0; i < KILN_PLAN_EXECUTORS_MAX; i++) {
        if (pool->executors[i].name[0] && strcmp(pool->executors[i].name, name) == 0)
            return &pool->executors[i];
    }
    return NULL;
}

static struct kiln_pool_executor *find_current(struct kiln_pool *pool, const struct kiln_job_id *incarnation) {
    for (size_t i = 0; i < KILN_PLAN_EXECUTORS_MAX; i++) {
        if (pool->executors[i].name[0] && same_id(&pool->executors[i].incarnation, incarnation))
            return &pool->executors[i];
    }
    return NULL;
}

// A free place, or that of whoever was not heard of for longest.
static struct kiln_pool_executor *place_for_new(struct kiln_pool *pool) {
    struct kiln_pool_executor *oldest = &pool->executors[0];
    for (size_t i = 0; i < KILN_PLAN_EXECUTORS_MAX; i++) {
        if (!pool->executors[i].name[0])
            return &pool->executors[i];
        if (pool->executors[i].heard_ms < oldest->heard_ms)
            oldest = &pool->executors[i];
    }
    return oldest;
}

static bool is_former(const struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation) {
    for (unsigned i = 0; i < KILN_POOL_FORMER_MAX && i < executor->former_count; i++) {
        if (same_id(&executor->former[i], incarnation))
            return true;
    }
    return false;
}

static void drop_credits(struct kiln_pool *pool, bool (*unwanted)(const struct kiln_pool_credit *, const void *),
                         const void *context) {
    size_t kept = 0;
    for (size_t i = 0; i < pool->credits_count; i++) {
        if (!unwanted(&pool->credits[i], context))
            pool->credits[kept++] = pool->credits[i];
    }
    pool->credits_count = kept;
}

static bool is_of_incarnation(const struct kiln_pool_credit *credit, const void *incarnation) {
    return same_id(&credit->incarnation, incarnation);
}

static bool is_expired(const struct kiln_pool_credit *credit, const void *now_ms) {
    return credit->until_ms <= *(const uint64_t *)now_ms;
}

bool kiln_pool_meet(struct kiln_pool *pool, const char *name, const struct kiln_job_id *incarnation, uint64_t now_ms,
                    struct kiln_job_id *former) {
    struct kiln_pool_executor *executor = find_by_name(pool, name);
    if (!executor) {
        if (strlen(name) > KILN_PLAN_NAME_MAX || !*name)
            return false;
        executor = place_for_new(pool);
        *executor = (struct kiln_pool_executor){.incarnation = *incarnation, .heard_ms = now_ms};
        memcpy(executor->name, name, strlen(name) + 1); // its length was checked above
        return false;
    }
    if (is_former(executor, incarnation))
        return false; // an old announcement that comes late
    executor->heard_ms = now_ms;
    executor->suspected = false;
    if (same_id(&executor->incarnation, incarnation))
        return false;
    *former = executor->incarnation;
    executor->former[executor->former_count++ % KILN_POOL_FORMER_MAX] = executor->incarnation;
    executor->incarnation = *incarnation;
    drop_credits(pool, is_of_incarnation, former);
    return true;
}

void kiln_pool_hear(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms) {
    struct kiln_pool_executor *executor = find_current(pool, incarnation);
    if (!executor)
        return;
    executor->heard_ms = now_ms;
    executor->suspected = false;
}

void kiln_pool_suspect(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms,
                       uint64_t quiet_ms) {
    struct kiln_pool_executor *executor = find_current(pool, incarnation);
    if (executor && now_ms - executor->heard_ms >= quiet_ms)
        executor->suspected = true;
}

// Room for one more: expired ones go, then the used one that would expire first.
static bool make_room(struct kiln_pool *pool, uint64_t now_ms) {
    if (pool->credits_count < KILN_POOL_SPENT_MAX)
        return true;
    drop_credits(pool, is_expired, &now_ms);
    if (pool->credits_count < KILN_POOL_SPENT_MAX)
        return true;
    size_t victim = SIZE_MAX;
    for (size_t i = 0; i < pool->credits_count; i++) {
        if (pool->credits[i].spent && (victim == SIZE_MAX || pool->credits[i].until_ms < pool->credits[victim].until_ms))
            victim = i;
    }
    if (victim == SIZE_MAX)
        return false;
    memmove(&pool->credits[victim], &pool->credits[victim + 1],
            (pool->credits_count - victim - 1) * sizeof *pool->credits);
    pool->credits_count--;
    return true;
}

void kiln_pool_add(struct kiln_pool *pool, const char *name, const struct kiln_job_id *incarnation,
                   const struct kiln_job_id *credit, uint64_t until_ms, uint64_t now_ms) {
    const struct kiln_pool_executor *executor = find_by_name(pool, name);
    if (!executor || !same_id(&executor->incarnation, incarnation) || until_ms <= now_ms)
        return;
    for (size_t i = 0; i < pool->credits_count; i++) {
        if (same_id(&pool->credits[i].credit, credit))
            return;
    }
    if (!make_room(pool, now_ms))
        return;
    struct kiln_pool_credit *added = &pool->credits[pool->credits_count++];
    *added = (struct kiln_pool_credit){.incarnation = *incarnation, .credit = *credit, .until_ms = until_ms};
    memcpy(added->executor, executor->name, sizeof added->executor);
}

bool kiln_pool_take(struct kiln_pool *pool, uint64_t now_ms, struct kiln_pool_credit *credit) {
    for (size_t i = 0; i < pool->credits_count; i++) {
        struct kiln_pool_credit *candidate = &pool->credits[i];
        if (candidate->spent || candidate->until_ms <= now_ms)
            continue;
        const struct kiln_pool_executor *executor = find_by_name(pool, candidate->executor);
        if (!executor || executor->suspected || !same_id(&executor->incarnation, &candidate->incarnation))
            continue;
        candidate->spent = true;
        *credit = *candidate;
        return true;
    }
    return false;
}

void kiln_pool_expire(struct kiln_pool *pool, uint64_t now_ms) { drop_credits(pool, is_expired, &now_ms); }
