#include "verifier/plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "lib/core/list.h"
#include "verifier/plan_pool.h"

struct waiter {
    TAILQ_ENTRY(waiter) link;
    struct kiln_job_id job;
    uint64_t deadline_ms;
    bool asked; // has been asked for the content
};

struct flight {
    TAILQ_ENTRY(flight) link;
    struct kiln_plan_key key;
    enum kiln_plan_state state;
    struct kiln_job_id job; // of the execution
    TAILQ_HEAD(, waiter) waiters;
    size_t waiters_count;
    struct kiln_job_id provider; // WANTED: who was asked last
    uint64_t until_ms;           // WANTED: for the upload. RUNNING: the lease
    uint64_t ready_number;       // READY: its place in the queue
    uint32_t attempt, troubles;
    char executor[KILN_PLAN_NAME_MAX + 1];
    struct kiln_job_id incarnation; // RUNNING, JUDGING
};

struct kiln_plan {
    struct kiln_plan_config config;
    TAILQ_HEAD(, flight) flights;
    size_t flights_count;
    uint64_t ready_number;
    struct kiln_pool pool;
};

// One step: what the helpers work on. `failed` is exhausted memory.
struct step {
    struct kiln_plan *plan;
    uint64_t now_ms;
    struct kiln_plan_actions *actions;
    bool failed;
};

#define TO(state) (1u << KILN_PLAN_##state)
static const unsigned allowed[] = {
    [KILN_PLAN_GONE] = TO(WANTED) | TO(READY),
    [KILN_PLAN_WANTED] = TO(READY) | TO(GONE),
    [KILN_PLAN_READY] = TO(RUNNING) | TO(GONE),
    [KILN_PLAN_RUNNING] = TO(JUDGING) | TO(READY) | TO(GONE),
    [KILN_PLAN_JUDGING] = TO(CHECKING) | TO(STORING) | TO(GONE),
    [KILN_PLAN_STORING] = TO(CHECKING) | TO(GONE),
    [KILN_PLAN_CHECKING] = TO(READY) | TO(WANTED) | TO(GONE),
};
#undef TO

static void move(struct flight *flight, enum kiln_plan_state state) {
    assert(allowed[flight->state] >> state & 1);
    flight->state = state;
}

static bool same_job(const struct kiln_job_id *a, const struct kiln_job_id *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void kiln_plan_actions_release(struct kiln_plan_actions *actions) {
    for (size_t i = 0; i < actions->count; i++) {
        free(actions->list[i].jobs);
        free(actions->list[i].runs);
        free(actions->list[i].reason);
    }
    free(actions->list);
    *actions = (struct kiln_plan_actions){0};
}

// Appends a zeroed action; NULL when memory is exhausted.
static struct kiln_plan_action *emit(struct step *step, enum kiln_plan_action_kind kind,
                                     const struct kiln_plan_key *key) {
    struct kiln_plan_actions *actions = step->actions;
    struct kiln_plan_action *list = kiln_list_grow(actions->list, actions->count, sizeof *list);
    if (!list) {
        step->failed = true;
        return NULL;
    }
    actions->list = list;
    struct kiln_plan_action *action = &list[actions->count++];
    *action = (struct kiln_plan_action){.kind = kind};
    if (key)
        action->key = *key;
    return action;
}

static void emit_for_job(struct step *step, enum kiln_plan_action_kind kind, const struct kiln_plan_key *key,
                         const struct kiln_job_id *job, enum kiln_plan_verdict verdict, const char *reason) {
    struct kiln_plan_action *action = emit(step, kind, key);
    if (!action)
        return;
    action->verdict = verdict;
    action->jobs = malloc(sizeof *action->jobs);
    action->reason = reason ? strdup(reason) : NULL;
    if (!action->jobs || (reason && !action->reason)) {
        step->failed = true;
        return;
    }
    action->jobs[0] = *job;
    action->jobs_count = 1;
}

static struct flight *find_flight(const struct kiln_plan *plan, const struct kiln_plan_key *key) {
    struct flight *flight;
    TAILQ_FOREACH(flight, &plan->flights, link) {
        if (kiln_digest_equal(&flight->key.action, &key->action) && strcmp(flight->key.scope, key->scope) == 0)
            return flight;
    }
    return NULL;
}

static struct waiter *find_waiter(const struct flight *flight, const struct kiln_job_id *job) {
    struct waiter *waiter;
    TAILQ_FOREACH(waiter, &flight->waiters, link) {
        if (same_job(&waiter->job, job))
            return waiter;
    }
    return NULL;
}

static void remove_waiter(struct flight *flight, struct waiter *waiter) {
    TAILQ_REMOVE(&flight->waiters, waiter, link);
    flight->waiters_count--;
    free(waiter);
}

static void free_flight(struct kiln_plan *plan, struct flight *flight) {
    for (struct waiter *waiter; (waiter = TAILQ_FIRST(&flight->waiters));)
        remove_waiter(flight, waiter);
    TAILQ_REMOVE(&plan->flights, flight, link);
    plan->flights_count--;
    free(flight);
}

static void let_go(struct step *step, struct flight *flight) {
    move(flight, KILN_PLAN_GONE);
    emit(step, KILN_PLAN_RELEASE, &flight->key);
    free_flight(step->plan, flight);
}

// Answers all that wait, and ends the flight.
static void conclude(struct step *step, struct flight *flight, enum kiln_plan_verdict verdict, const char *reason) {
    struct kiln_plan_action *action = flight->waiters_count ? emit(step, KILN_PLAN_ANSWER, &flight->key) : NULL;
    if (action) {
        action->verdict = verdict;
        action->reason = reason ? strdup(reason) : NULL;
        action->jobs = calloc(flight->waiters_count, sizeof *action->jobs);
        step->failed |= !action->jobs || (reason && !action->reason);
        struct waiter *waiter;
        TAILQ_FOREACH(waiter, &flight->waiters, link) {
            if (action->jobs)
                action->jobs[action->jobs_count++] = waiter->job;
        }
    }
    let_go(step, flight);
}

static void make_ready(struct step *step, struct flight *flight) {
    move(flight, KILN_PLAN_READY);
    flight->ready_number = step->plan->ready_number++;
}

// Asks the next waiter that was not asked yet. Ends the flight when there is none.
static void ask_next(struct step *step, struct flight *flight) {
    struct waiter *waiter;
    TAILQ_FOREACH(waiter, &flight->waiters, link) {
        if (!waiter->asked)
            break;
    }
    if (!waiter) {
        conclude(step, flight, KILN_PLAN_LOCALLY, "not_uploaded: the inputs did not come in time");
        return;
    }
    waiter->asked = true;
    flight->provider = waiter->job;
    flight->until_ms = step->now_ms + step->plan->config.upload_ms;
    emit_for_job(step, KILN_PLAN_WANT, &flight->key, &waiter->job, KILN_PLAN_LOCALLY, NULL);
}

static void want(struct step *step, struct flight *flight) {
    struct waiter *waiter;
    move(flight, KILN_PLAN_WANTED);
    TAILQ_FOREACH(waiter, &flight->waiters, link)
        waiter->asked = false;
    ask_next(step, flight);
}

// After a waiter has gone: what its going means. The flight may be gone afterwards.
static void after_removal(struct step *step, struct flight *flight, const struct kiln_job_id *gone) {
    bool works = flight->state == KILN_PLAN_RUNNING || flight->state == KILN_PLAN_JUDGING ||
                 flight->state == KILN_PLAN_CHECKING; // CHECKING: the answer to the check finds it empty
    if (flight->waiters_count == 0 && !works)
        let_go(step, flight);
    else if (flight->state == KILN_PLAN_WANTED && same_job(&flight->provider, gone))
        ask_next(step, flight);
}

static void dispatch(struct step *step, struct flight *flight, const struct kiln_pool_credit *credit) {
    move(flight, KILN_PLAN_RUNNING);
    flight->attempt++;
    flight->incarnation = credit->incarnation;
    memcpy(flight->executor, credit->executor, sizeof flight->executor);
    flight->until_ms = step->now_ms + step->plan->config.lease_ms;
    struct kiln_plan_action *action = emit(step, KILN_PLAN_DISPATCH, &flight->key);
    if (!action)
        return;
    action->job = flight->job;
    action->attempt = flight->attempt;
    action->incarnation = credit->incarnation;
    action->credit = credit->credit;
    memcpy(action->executor, credit->executor, sizeof action->executor);
    action->lease_ms = step->plan->config.lease_ms;
}

static void schedule(struct step *step) {
    for (;;) {
        struct flight *flight, *first = NULL;
        TAILQ_FOREACH(flight, &step->plan->flights, link) {
            if (flight->state == KILN_PLAN_READY && (!first || flight->ready_number < first->ready_number))
                first = flight;
        }
        struct kiln_pool_credit credit;
        if (!first || !kiln_pool_take(&step->plan->pool, step->now_ms, &credit))
            return;
        dispatch(step, first, &credit);
    }
}

static struct flight *new_flight(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = calloc(1, sizeof *flight);
    if (!flight) {
        step->failed = true;
        return NULL;
    }
    flight->key = event->key;
    flight->job = event->job;
    TAILQ_INIT(&flight->waiters);
    TAILQ_INSERT_TAIL(&step->plan->flights, flight, link);
    step->plan->flights_count++;
    return flight;
}

static void add_waiter(struct step *step, struct flight *flight, const struct kiln_plan_event *event) {
    struct waiter *waiter = calloc(1, sizeof *waiter);
    if (!waiter) {
        step->failed = true;
        return;
    }
    waiter->job = event->job;
    waiter->deadline_ms = event->until_ms;
    TAILQ_INSERT_TAIL(&flight->waiters, waiter, link);
    flight->waiters_count++;
}

// The same submission again: the submitter did not hear of what was asked, or asks anew.
static void submitted_again(struct step *step, struct flight *flight, struct waiter *waiter,
                            const struct kiln_plan_event *event) {
    waiter->deadline_ms = event->until_ms;
    if (flight->state == KILN_PLAN_WANTED && same_job(&flight->provider, &event->job))
        emit_for_job(step, KILN_PLAN_WANT, &flight->key, &event->job, KILN_PLAN_LOCALLY, NULL);
}

static void on_submitted(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    struct waiter *waiter = flight ? find_waiter(flight, &event->job) : NULL;
    bool full = flight ? flight->waiters_count >= KILN_PLAN_WAITERS_MAX
                       : step->plan->flights_count >= KILN_PLAN_FLIGHTS_MAX;
    if (!waiter && full) {
        emit_for_job(step, KILN_PLAN_ANSWER, &event->key, &event->job, KILN_PLAN_LOCALLY, "busy: too many jobs wait");
        return;
    }
    bool is_new = !flight;
    if (is_new)
        flight = new_flight(step, event);
    if (!flight)
        return;
    if (waiter)
        submitted_again(step, flight, waiter, event);
    else
        add_waiter(step, flight, event);
    if (is_new && event->lacking)
        want(step, flight);
    else if (!event->lacking && (is_new || flight->state == KILN_PLAN_WANTED))
        make_ready(step, flight);
}

// From whoever was asked, also from one that was slow: the content is there now.
static void on_uploaded(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    if (flight && flight->state == KILN_PLAN_WANTED && find_waiter(flight, &event->job))
        make_ready(step, flight);
}

static void on_refused(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    struct waiter *waiter = flight ? find_waiter(flight, &event->job) : NULL;
    if (!waiter)
        return;
    remove_waiter(flight, waiter);
    emit_for_job(step, KILN_PLAN_REFUSE, &flight->key, &event->job, KILN_PLAN_LOCALLY, event->reason);
    after_removal(step, flight, &event->job);
}

static void on_cancelled(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    struct waiter *waiter = flight ? find_waiter(flight, &event->job) : NULL;
    if (!waiter)
        return;
    remove_waiter(flight, waiter);
    after_removal(step, flight, &event->job);
}

// The attempt of a RUNNING flight came to nothing.
static void lost(struct step *step, struct flight *flight) {
    if (flight->waiters_count == 0)
        let_go(step, flight);
    else if (flight->attempt >= KILN_PLAN_ATTEMPTS_MAX)
        conclude(step, flight, KILN_PLAN_LOCALLY, "executor_lost: no executor finished the job");
    else
        make_ready(step, flight);
}

static void on_credit(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_pool *pool = &step->plan->pool;
    struct kiln_job_id former;
    bool replaced = kiln_pool_meet(pool, event->executor, &event->incarnation, step->now_ms, &former);
    if (replaced) {
        struct flight *flight, *next;
        for (flight = TAILQ_FIRST(&step->plan->flights); flight; flight = next) {
            next = TAILQ_NEXT(flight, link);
            if (flight->state == KILN_PLAN_RUNNING && same_job(&flight->incarnation, &former) &&
                strcmp(flight->executor, event->executor) == 0)
                lost(step, flight);
        }
    }
    kiln_pool_add(pool, event->executor, &event->incarnation, &event->credit, event->until_ms, step->now_ms);
}

static bool is_attempt_of(const struct flight *flight, const struct kiln_plan_event *event) {
    return flight->state == KILN_PLAN_RUNNING && flight->attempt == event->attempt &&
           same_job(&flight->job, &event->job) && same_job(&flight->incarnation, &event->incarnation);
}

static void on_lease(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight;
    kiln_pool_hear(&step->plan->pool, &event->incarnation, step->now_ms);
    TAILQ_FOREACH(flight, &step->plan->flights, link) {
        if (is_attempt_of(flight, event))
            flight->until_ms = step->now_ms + step->plan->config.lease_ms;
    }
}

static void on_candidate(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight;
    kiln_pool_hear(&step->plan->pool, &event->incarnation, step->now_ms);
    TAILQ_FOREACH(flight, &step->plan->flights, link) {
        if (is_attempt_of(flight, event) && kiln_digest_equal(&flight->key.action, &event->key.action) &&
            strcmp(flight->executor, event->executor) == 0)
            break;
    }
    struct kiln_plan_action *action =
        emit(step, flight ? KILN_PLAN_JUDGE : KILN_PLAN_DISCARD, flight ? &flight->key : &event->key);
    if (action) {
        action->job = event->job;
        action->attempt = event->attempt;
    }
    if (flight)
        move(flight, KILN_PLAN_JUDGING);
}

static void settle(struct step *step, struct flight *flight, const struct kiln_plan_event *event) {
    if (event->verdict != KILN_PLAN_AGAIN) {
        conclude(step, flight, event->verdict, event->verdict == KILN_PLAN_STORED ? NULL : event->reason);
        return;
    }
    flight->troubles++;
    if (flight->waiters_count == 0 || flight->attempt >= KILN_PLAN_ATTEMPTS_MAX ||
        flight->troubles >= KILN_PLAN_TROUBLES_MAX) {
        conclude(step, flight, KILN_PLAN_LOCALLY, event->reason);
        return;
    }
    move(flight, KILN_PLAN_CHECKING);
    emit(step, KILN_PLAN_CHECK, &flight->key);
}

static void on_judged(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    if (!flight || flight->state != KILN_PLAN_JUDGING || flight->attempt != event->attempt)
        return;
    if (event->verdict != KILN_PLAN_STORED) {
        settle(step, flight, event);
        return;
    }
    move(flight, KILN_PLAN_STORING);
    struct kiln_plan_action *action = emit(step, KILN_PLAN_STORE, &flight->key);
    if (action)
        action->attempt = flight->attempt;
}

static void on_filed(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    if (flight && flight->state == KILN_PLAN_STORING)
        settle(step, flight, event);
}

static void on_checked(struct step *step, const struct kiln_plan_event *event) {
    struct flight *flight = find_flight(step->plan, &event->key);
    if (!flight || flight->state != KILN_PLAN_CHECKING)
        return;
    if (flight->waiters_count == 0)
        let_go(step, flight);
    else if (event->lacking)
        want(step, flight);
    else
        make_ready(step, flight);
}

static void expire_waiters(struct step *step, struct flight *flight) {
    struct waiter *waiter, *next;
    for (waiter = TAILQ_FIRST(&flight->waiters); waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, link);
        if (waiter->deadline_ms > step->now_ms)
            continue;
        struct kiln_job_id job = waiter->job;
        bool last = flight->waiters_count == 1;
        remove_waiter(flight, waiter);
        emit_for_job(step, KILN_PLAN_ANSWER, &flight->key, &job, KILN_PLAN_LOCALLY, "timeout: no result in time");
        size_t flights = step->plan->flights_count;
        after_removal(step, flight, &job);
        if (last || step->plan->flights_count < flights)
            return; // nobody left, or the flight itself has gone
    }
}

static void on_tick(struct step *step) {
    struct flight *flight, *next;
    for (flight = TAILQ_FIRST(&step->plan->flights); flight; flight = next) {
        next = TAILQ_NEXT(flight, link);
        if (flight->state == KILN_PLAN_RUNNING && flight->until_ms <= step->now_ms) {
            kiln_pool_suspect(&step->plan->pool, &flight->incarnation, step->now_ms, step->plan->config.lease_ms);
            lost(step, flight);
        } else if (flight->state == KILN_PLAN_WANTED && flight->until_ms <= step->now_ms) {
            ask_next(step, flight);
        }
    }
    for (flight = TAILQ_FIRST(&step->plan->flights); flight; flight = next) {
        next = TAILQ_NEXT(flight, link);
        expire_waiters(step, flight);
    }
    kiln_pool_expire(&step->plan->pool, step->now_ms);
}

int kiln_plan_step(struct kiln_plan *plan, const struct kiln_plan_event *event, uint64_t now_ms,
                   struct kiln_plan_actions *actions, struct kiln_err *err) {
    struct step step = {.plan = plan, .now_ms = now_ms, .actions = actions};
    switch (event->kind) {
    case KILN_PLAN_SUBMITTED: on_submitted(&step, event); break;
    case KILN_PLAN_UPLOADED: on_uploaded(&step, event); break;
    case KILN_PLAN_REFUSED: on_refused(&step, event); break;
    case KILN_PLAN_CANCELLED: on_cancelled(&step, event); break;
    case KILN_PLAN_CREDIT: on_credit(&step, event); break;
    case KILN_PLAN_LEASE: on_lease(&step, event); break;
    case KILN_PLAN_CANDIDATE: on_candidate(&step, event); break;
    case KILN_PLAN_JUDGED: on_judged(&step, event); break;
    case KILN_PLAN_CHECKED: on_checked(&step, event); break;
    case KILN_PLAN_FILED: on_filed(&step, event); break;
    case KILN_PLAN_TICK: on_tick(&step); break;
    default: break;
    }
    schedule(&step);
    return step.failed ? kiln_fail(err, KILN_E_NOMEM, "no memory for the plan") : 0;
}

uint64_t kiln_plan_next_ms(const struct kiln_plan *plan) {
    uint64_t next = UINT64_MAX;
    const struct flight *flight;
    TAILQ_FOREACH(flight, &plan->flights, link) {
        bool timed = flight->state == KILN_PLAN_WANTED || flight->state == KILN_PLAN_RUNNING;
        if (timed && flight->until_ms < next)
            next = flight->until_ms;
        const struct waiter *waiter;
        TAILQ_FOREACH(waiter, &flight->waiters, link) {
            if (waiter->deadline_ms < next)
                next = waiter->deadline_ms;
        }
    }
    return next;
}

size_t kiln_plan_flights(const struct kiln_plan *plan) { return plan->flights_count; }

enum kiln_plan_state kiln_plan_state_of(const struct kiln_plan *plan, const struct kiln_plan_key *key) {
    const struct flight *flight = find_flight(plan, key);
    return flight ? flight->state : KILN_PLAN_GONE;
}

int kiln_plan_new(const struct kiln_plan_config *config, struct kiln_plan **plan, struct kiln_err *err) {
    struct kiln_plan *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the plan");
    made->config = *config;
    TAILQ_INIT(&made->flights);
    *plan = made;
    return 0;
}

void kiln_plan_free(struct kiln_plan *plan) {
    if (!plan)
        return;
    for (struct flight *flight; (flight = TAILQ_FIRST(&plan->flights));)
        free_flight(plan, flight);
    free(plan);
}
