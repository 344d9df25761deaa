#include "verifier/plan_actions.h"

#include <stdlib.h>
#include <string.h>

#include "lib/core/list.h"

void kiln_plan_actions_release(struct kiln_plan_actions *actions) {
    for (size_t i = 0; i < actions->count; i++) {
        free(actions->list[i].jobs);
        free(actions->list[i].runs);
        free(actions->list[i].reason);
    }
    free(actions->list);
    *actions = (struct kiln_plan_actions){0};
}

struct kiln_plan_action *kiln_plan_emit(struct kiln_plan_out *out, enum kiln_plan_action_kind kind,
                                        const struct kiln_plan_key *key) {
    struct kiln_plan_actions *actions = out->actions;
    struct kiln_plan_action *list = kiln_list_grow(actions->list, actions->count, sizeof *list);
    if (!list) {
        out->failed = true;
        return NULL;
    }
    actions->list = list;
    struct kiln_plan_action *action = &list[actions->count++];
    *action = (struct kiln_plan_action){.kind = kind};
    if (key)
        action->key = *key;
    return action;
}

void kiln_plan_emit_reason(struct kiln_plan_out *out, struct kiln_plan_action *action, const char *reason) {
    action->reason = reason ? strdup(reason) : NULL;
    out->failed |= reason && !action->reason;
}

void kiln_plan_emit_to_job(struct kiln_plan_out *out, enum kiln_plan_action_kind kind, const struct kiln_plan_key *key,
                           const struct kiln_job_id *job, const char *reason) {
    struct kiln_plan_action *action = kiln_plan_emit(out, kind, key);
    if (!action)
        return;
    action->verdict = KILN_PLAN_LOCALLY;
    kiln_plan_emit_reason(out, action, reason);
    if (!(action->jobs = malloc(sizeof *action->jobs))) {
        out->failed = true;
        return;
    }
    action->jobs[action->jobs_count++] = *job;
}

void kiln_plan_emit_answer(struct kiln_plan_out *out, const struct kiln_flight *flight, enum kiln_plan_verdict verdict,
                           const char *reason) {
    struct kiln_plan_action *action = flight->waiters_count ? kiln_plan_emit(out, KILN_PLAN_ANSWER, &flight->key) : NULL;
    if (!action)
        return;
    action->verdict = verdict;
    kiln_plan_emit_reason(out, action, reason);
    if (!(action->jobs = calloc(flight->waiters_count, sizeof *action->jobs))) {
        out->failed = true;
        return;
    }
    const struct kiln_waiter *waiter;
    TAILQ_FOREACH(waiter, &flight->waiters, flight_link)
        action->jobs[action->jobs_count++] = waiter->job;
}

void kiln_plan_emit_dispatch(struct kiln_plan_out *out, const struct kiln_run *run, uint64_t lease_ms) {
    struct kiln_plan_action *action = kiln_plan_emit(out, KILN_PLAN_DISPATCH, &run->flight->key);
    if (!action)
        return;
    action->partition = run->flight->partition;
    action->job = run->job;
    action->attempt = run->attempt;
    action->troubles = run->flight->troubles;
    action->incarnation = run->incarnation;
    action->credit = run->credit;
    action->lease_ms = lease_ms;
    memcpy(action->executor, run->executor->name, sizeof action->executor);
    memcpy(action->pool, run->group->name, sizeof action->pool);
}

static void add_run(struct kiln_plan_out *out, struct kiln_plan_action *action, const struct kiln_run *run,
                    enum kiln_plan_part part) {
    struct kiln_plan_run *runs = kiln_list_grow(action->runs, action->runs_count, sizeof *runs);
    if (!runs) {
        out->failed = true;
        return;
    }
    action->runs = runs;
    struct kiln_plan_run *added = &runs[action->runs_count++];
    *added = (struct kiln_plan_run){.attempt = run->attempt, .incarnation = run->incarnation, .part = part};
    if (run->state == KILN_RUN_GAVE)
        added->digest = run->digest;
    memcpy(added->executor, run->executor->name, sizeof added->executor);
    memcpy(added->pool, run->group->name, sizeof added->pool);
}

static bool has_pool(const struct kiln_plan_action *action, const char *pool) {
    for (size_t i = 0; i < action->runs_count; i++) {
        if (strcmp(action->runs[i].pool, pool) == 0)
            return true;
    }
    return false;
}

void kiln_plan_emit_store(struct kiln_plan_out *out, const struct kiln_flight *flight,
                          const struct kiln_agreement *agreement) {
    struct kiln_plan_action *action = kiln_plan_emit(out, KILN_PLAN_STORE, &flight->key);
    const struct kiln_run *run;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        if (!action || run->state != KILN_RUN_GAVE || !kiln_digest_equal(&run->digest, &agreement->digest) ||
            has_pool(action, run->group->name))
            continue;
        if (!action->runs_count) {
            action->attempt = run->attempt;
            action->job = run->job;
        }
        add_run(out, action, run, KILN_PLAN_AGREES);
    }
}

void kiln_plan_emit_diverged(struct kiln_plan_out *out, const struct kiln_flight *flight,
                             const struct kiln_agreement *agreement, const struct kiln_run *denies) {
    struct kiln_plan_action *action = kiln_plan_emit(out, KILN_PLAN_DIVERGED, &flight->key);
    bool decided = !denies && agreement->equal >= flight->agreement;
    const struct kiln_run *run;
    if (!action)
        return;
    action->job = flight->job;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        if (run->state != KILN_RUN_GAVE && run != denies)
            continue;
        bool agrees = run != denies && kiln_digest_equal(&run->digest, &agreement->digest);
        add_run(out, action, run, !decided ? KILN_PLAN_UNDECIDED : agrees ? KILN_PLAN_AGREES : KILN_PLAN_DISSENTS);
    }
}
