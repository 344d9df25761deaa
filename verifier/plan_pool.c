#include "verifier/plan_pool.h"

#include <stdlib.h>
#include <string.h>

#define FORGET_TRIES_MAX 64u  // how many of the longest silent are looked at for one that has nothing to do
#define OTHERS_LOOKED_AT 64u
#define ALIVE_MS (10ull * 60 * 1000) // silent for longer: not counted on

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static uint64_t hash_id(const struct kiln_table *table, const struct kiln_job_id *id) {
    return kiln_table_hash(table, id->bytes, sizeof id->bytes, 0);
}

int kiln_pool_init(struct kiln_pool *pool, uint64_t seed) {
    *pool = (struct kiln_pool){0};
    TAILQ_INIT(&pool->heard);
    TAILQ_INIT(&pool->groups);
    TAILQ_INIT(&pool->offering);
    if (kiln_table_init(&pool->by_name, seed) || kiln_table_init(&pool->by_incarnation, seed) ||
        kiln_table_init(&pool->credits, seed)) {
        kiln_pool_release(pool);
        return -1;
    }
    return 0;
}

struct kiln_pool_executor *kiln_pool_find(const struct kiln_pool *pool, const char *name) {
    uint64_t hash = kiln_table_hash(&pool->by_name, name, strlen(name), 0);
    for (struct kiln_table_link *at = kiln_table_first(&pool->by_name, hash); at; at = kiln_table_next(at)) {
        struct kiln_pool_executor *executor = kiln_member_of(at, struct kiln_pool_executor, by_name);
        if (strcmp(executor->name, name) == 0)
            return executor;
    }
    return NULL;
}

static struct kiln_pool_executor *find_current(const struct kiln_pool *pool, const struct kiln_job_id *incarnation) {
    uint64_t hash = hash_id(&pool->by_incarnation, incarnation);
    for (struct kiln_table_link *at = kiln_table_first(&pool->by_incarnation, hash); at; at = kiln_table_next(at)) {
        struct kiln_pool_executor *executor = kiln_member_of(at, struct kiln_pool_executor, by_incarnation);
        if (same_id(&executor->incarnation, incarnation))
            return executor;
    }
    return NULL;
}

static bool is_former(const struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation) {
    for (unsigned i = 0; i < KILN_POOL_FORMER_MAX && i < executor->former_count; i++) {
        if (same_id(&executor->former[i], incarnation))
            return true;
    }
    return false;
}

static void set_offering(struct kiln_pool *pool, struct kiln_pool_executor *executor, bool offering) {
    struct kiln_pool_group *group = executor->group;
    if (executor->offering == offering)
        return;
    executor->offering = offering;
    if (offering) {
        if (TAILQ_EMPTY(&group->offering))
            TAILQ_INSERT_TAIL(&pool->offering, group, offering_link);
        TAILQ_INSERT_TAIL(&group->offering, executor, offering_link);
    } else {
        TAILQ_REMOVE(&group->offering, executor, offering_link);
        if (TAILQ_EMPTY(&group->offering))
            TAILQ_REMOVE(&pool->offering, group, offering_link);
    }
}

static void drop_credit(struct kiln_pool *pool, struct kiln_pool_executor *executor, struct kiln_pool_credit *credit) {
    TAILQ_REMOVE(credit->spent ? &executor->spent : &executor->unspent, credit, of_executor);
    *(credit->spent ? &executor->spent_count : &executor->unspent_count) -= 1;
    kiln_table_remove(&pool->credits, &credit->by_id);
    free(credit);
    if (TAILQ_EMPTY(&executor->unspent))
        set_offering(pool, executor, false);
}

static void drop_oldest(struct kiln_pool *pool, struct kiln_pool_executor *executor, struct kiln_pool_credits *credits,
                        unsigned count, uint64_t now_ms) {
    for (struct kiln_pool_credit *last; (last = TAILQ_LAST(credits, kiln_pool_credits));) {
        if (last->until_ms > now_ms && count < KILN_POOL_CREDITS_MAX)
            return;
        drop_credit(pool, executor, last);
        count--;
    }
}

void kiln_pool_void(struct kiln_pool *pool, struct kiln_pool_executor *executor) {
    for (struct kiln_pool_credit *credit; (credit = TAILQ_FIRST(&executor->unspent));)
        drop_credit(pool, executor, credit);
    for (struct kiln_pool_credit *credit; (credit = TAILQ_FIRST(&executor->spent));)
        drop_credit(pool, executor, credit);
}

static void forget(struct kiln_pool *pool, struct kiln_pool_executor *executor) {
    kiln_pool_void(pool, executor);
    kiln_table_remove(&pool->by_name, &executor->by_name);
    kiln_table_remove(&pool->by_incarnation, &executor->by_incarnation);
    TAILQ_REMOVE(&pool->heard, executor, heard_link);
    pool->executors_count--;
    free(executor);
}

void kiln_pool_release(struct kiln_pool *pool) {
    for (struct kiln_pool_executor *executor; (executor = TAILQ_FIRST(&pool->heard));)
        forget(pool, executor);
    for (struct kiln_pool_group *group; (group = TAILQ_FIRST(&pool->groups));) {
        TAILQ_REMOVE(&pool->groups, group, link);
        free(group);
    }
    kiln_table_release(&pool->by_name);
    kiln_table_release(&pool->by_incarnation);
    kiln_table_release(&pool->credits);
}

// Makes place by forgetting whoever was silent for longest and has nothing to do.
static bool make_place(struct kiln_pool *pool) {
    if (pool->executors_count < KILN_PLAN_EXECUTORS_MAX)
        return true;
    struct kiln_pool_executor *executor = TAILQ_FIRST(&pool->heard);
    for (unsigned i = 0; executor && i < FORGET_TRIES_MAX; i++, executor = TAILQ_NEXT(executor, heard_link)) {
        if (!LIST_EMPTY(&executor->runs))
            continue;
        forget(pool, executor);
        return true;
    }
    return false;
}

static struct kiln_pool_group *find_group(struct kiln_pool *pool, const char *name) {
    struct kiln_pool_group *group;
    TAILQ_FOREACH(group, &pool->groups, link) {
        if (strcmp(group->name, name) == 0)
            return group;
    }
    if (pool->groups_count >= KILN_PLAN_EXECUTORS_MAX || !(group = calloc(1, sizeof *group)))
        return NULL;
    memcpy(group->name, name, strlen(name) + 1);
    TAILQ_INIT(&group->offering);
    TAILQ_INSERT_TAIL(&pool->groups, group, link);
    pool->groups_count++;
    return group;
}

static void be_heard(struct kiln_pool *pool, struct kiln_pool_executor *executor, uint64_t now_ms) {
    TAILQ_REMOVE(&pool->heard, executor, heard_link);
    TAILQ_INSERT_TAIL(&pool->heard, executor, heard_link);
    executor->heard_ms = now_ms;
    executor->suspected = false;
    set_offering(pool, executor, !TAILQ_EMPTY(&executor->unspent));
}

static void become(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation) {
    executor->incarnation = *incarnation;
    kiln_table_add(&pool->by_incarnation, &executor->by_incarnation, hash_id(&pool->by_incarnation, incarnation));
}

static struct kiln_pool_executor *introduce(struct kiln_pool *pool, const char *name, struct kiln_pool_group *group,
                                            const struct kiln_job_id *incarnation) {
    struct kiln_pool_executor *executor = make_place(pool) ? calloc(1, sizeof *executor) : NULL;
    if (!executor)
        return NULL;
    memcpy(executor->name, name, strlen(name) + 1);
    executor->group = group;
    TAILQ_INIT(&executor->unspent);
    TAILQ_INIT(&executor->spent);
    LIST_INIT(&executor->runs);
    kiln_table_add(&pool->by_name, &executor->by_name, kiln_table_hash(&pool->by_name, name, strlen(name), 0));
    become(pool, executor, incarnation);
    TAILQ_INSERT_TAIL(&pool->heard, executor, heard_link);
    pool->executors_count++;
    return executor;
}

bool kiln_pool_meet(struct kiln_pool *pool, const char *name, const char *group_name,
                    const struct kiln_job_id *incarnation, uint64_t now_ms, struct kiln_job_id *former,
                    struct kiln_pool_executor **met) {
    struct kiln_pool_executor *executor = kiln_pool_find(pool, name);
    *met = NULL;
    if (!*name || strlen(name) > KILN_PLAN_NAME_MAX || strlen(group_name) > KILN_PLAN_NAME_MAX)
        return false;
    if (executor && is_former(executor, incarnation))
        return false; // an old announcement that comes late
    struct kiln_pool_group *group =
        executor && strcmp(executor->group->name, group_name) == 0 ? executor->group : find_group(pool, group_name);
    if (!group || (!executor && !(executor = introduce(pool, name, group, incarnation))))
        return false;
    *met = executor;
    bool replaces = !same_id(&executor->incarnation, incarnation);
    if (replaces) {
        *former = executor->incarnation;
        executor->former[executor->former_count++ % KILN_POOL_FORMER_MAX] = executor->incarnation;
        kiln_pool_void(pool, executor);
        kiln_table_remove(&pool->by_incarnation, &executor->by_incarnation);
        become(pool, executor, incarnation);
    }
    if (group != executor->group) {
        set_offering(pool, executor, false);
        executor->group = group;
    }
    be_heard(pool, executor, now_ms);
    return replaces;
}

bool kiln_pool_hear(struct kiln_pool *pool, const struct kiln_job_id *incarnation, uint64_t now_ms) {
    struct kiln_pool_executor *executor = find_current(pool, incarnation);
    if (!executor)
        return false;
    bool rested = executor->suspected;
    be_heard(pool, executor, now_ms);
    return rested && executor->offering;
}

void kiln_pool_suspect(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation,
                       uint64_t now_ms, uint64_t quiet_ms) {
    if (!same_id(&executor->incarnation, incarnation) || now_ms - executor->heard_ms < quiet_ms)
        return;
    executor->suspected = true;
    set_offering(pool, executor, false);
}

static struct kiln_pool_credit *find_credit(const struct kiln_pool *pool, const struct kiln_job_id *credit) {
    struct kiln_table_link *at = kiln_table_first(&pool->credits, hash_id(&pool->credits, credit));
    for (; at; at = kiln_table_next(at)) {
        struct kiln_pool_credit *found = kiln_member_of(at, struct kiln_pool_credit, by_id);
        if (same_id(&found->credit, credit))
            return found;
    }
    return NULL;
}

void kiln_pool_distrust(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *credit) {
    const struct kiln_pool_credit *declined = find_credit(pool, credit);
    for (struct kiln_pool_credit *oldest; declined && (oldest = TAILQ_LAST(&executor->unspent, kiln_pool_credits));) {
        if (oldest->number > declined->number)
            return;
        drop_credit(pool, executor, oldest);
    }
}

bool kiln_pool_add(struct kiln_pool *pool, struct kiln_pool_executor *executor, const struct kiln_job_id *credit,
                   uint64_t until_ms, uint64_t now_ms) {
    if (until_ms <= now_ms)
        return true;
    if (find_credit(pool, credit))
        return true;
    struct kiln_pool_credit *added = calloc(1, sizeof *added);
    if (!added)
        return false;
    drop_oldest(pool, executor, &executor->unspent, executor->unspent_count, now_ms);
    drop_oldest(pool, executor, &executor->spent, executor->spent_count, now_ms);
    added->credit = *credit;
    added->until_ms = until_ms;
    added->number = pool->credits_number++;
    kiln_table_add(&pool->credits, &added->by_id, hash_id(&pool->credits, credit));
    TAILQ_INSERT_HEAD(&executor->unspent, added, of_executor);
    executor->unspent_count++;
    set_offering(pool, executor, !executor->suspected);
    return true;
}

bool kiln_pool_offers(const struct kiln_pool *pool) { return !TAILQ_EMPTY(&pool->offering); }

static bool names(const struct kiln_pool_executor *const *list, unsigned count, const struct kiln_pool_executor *executor) {
    for (unsigned i = 0; i < count; i++) {
        if (list[i] == executor)
            return true;
    }
    return false;
}

static bool excludes_group(const struct kiln_filter *filter, const struct kiln_pool_group *group) {
    for (unsigned i = 0; i < filter->groups_count; i++) {
        if (filter->groups[i] == group)
            return true;
    }
    return false;
}

// Uses its newest credit that has not expired.
static bool spend(struct kiln_pool *pool, struct kiln_pool_executor *executor, uint64_t now_ms, struct kiln_job_id *credit) {
    for (struct kiln_pool_credit *newest; (newest = TAILQ_FIRST(&executor->unspent));) {
        if (newest->until_ms <= now_ms) {
            drop_credit(pool, executor, newest);
            continue;
        }
        *credit = newest->credit;
        TAILQ_REMOVE(&executor->unspent, newest, of_executor);
        executor->unspent_count--;
        newest->spent = true;
        TAILQ_INSERT_HEAD(&executor->spent, newest, of_executor);
        executor->spent_count++;
        set_offering(pool, executor, false);
        set_offering(pool, executor, !TAILQ_EMPTY(&executor->unspent)); // to the end: uses go round
        return true;
    }
    return false;
}

static struct kiln_pool_executor *take(struct kiln_pool *pool, const struct kiln_filter *filter, bool anywhere,
                                       uint64_t now_ms, struct kiln_job_id *credit) {
    struct kiln_pool_group *group, *next_group;
    for (group = TAILQ_FIRST(&pool->offering); group; group = next_group) {
        next_group = TAILQ_NEXT(group, offering_link);
        if (excludes_group(filter, group))
            continue;
        struct kiln_pool_executor *executor, *next;
        for (executor = TAILQ_FIRST(&group->offering); executor; executor = next) {
            next = TAILQ_NEXT(executor, offering_link);
            if (names(filter->never, filter->never_count, executor) ||
                (!anywhere && names(filter->rather_not, filter->rather_not_count, executor)))
                continue;
            if (!spend(pool, executor, now_ms, credit))
                continue;
            if (!TAILQ_EMPTY(&group->offering)) {
                TAILQ_REMOVE(&pool->offering, group, offering_link);
                TAILQ_INSERT_TAIL(&pool->offering, group, offering_link);
            }
            return executor;
        }
    }
    return NULL;
}

struct kiln_pool_executor *kiln_pool_take(struct kiln_pool *pool, const struct kiln_filter *filter, uint64_t now_ms,
                                          struct kiln_job_id *credit) {
    struct kiln_pool_executor *executor = take(pool, filter, false, now_ms, credit);
    return executor || !filter->anywhere || !filter->rather_not_count ? executor
                                                                      : take(pool, filter, true, now_ms, credit);
}

bool kiln_pool_has_other(const struct kiln_pool *pool, const struct kiln_filter *filter, uint64_t now_ms) {
    struct kiln_pool_executor *executor = TAILQ_LAST(&pool->heard, kiln_pool_heard);
    for (unsigned i = 0; executor && i < OTHERS_LOOKED_AT; i++, executor = TAILQ_PREV(executor, kiln_pool_heard, heard_link)) {
        if (now_ms - executor->heard_ms > ALIVE_MS)
            return false;
        if (!executor->suspected && !excludes_group(filter, executor->group) &&
            !names(filter->never, filter->never_count, executor) &&
            !names(filter->rather_not, filter->rather_not_count, executor))
            return true;
    }
    return false;
}
