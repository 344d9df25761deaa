#include "verifier/plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verifier/plan_actions.h"
#include "verifier/plan_demand.h"
#include "verifier/plan_queue.h"

#define LOST_REASON "executor_lost: no executor finished the job"

struct kiln_plan {
    struct kiln_plan_config config;
    struct kiln_flights flights;
    struct kiln_pool pool;
    struct kiln_queue queue;
    struct kiln_demand_clock demand;
    bool held[KILN_PLAN_PARTITIONS_MAX];
};

// One step: what the helpers work on.
struct step {
    struct kiln_plan *plan;
    uint64_t now_ms;
    struct kiln_plan_out out;
};

#define TO(state) (1u << KILN_PLAN_##state)
static const unsigned allowed[] = {
    [KILN_PLAN_GONE] = TO(HELD) | TO(WANTED) | TO(READY),
    [KILN_PLAN_HELD] = TO(WANTED) | TO(READY) | TO(RUNNING) | TO(GONE),
    [KILN_PLAN_WANTED] = TO(READY) | TO(GONE),
    [KILN_PLAN_READY] = TO(RUNNING) | TO(CHECKING) | TO(STORING) | TO(GONE),
    [KILN_PLAN_RUNNING] = TO(JUDGING) | TO(READY) | TO(CHECKING) | TO(STORING) | TO(GONE),
    [KILN_PLAN_JUDGING] = TO(RUNNING) | TO(READY) | TO(CHECKING) | TO(STORING) | TO(GONE),
    [KILN_PLAN_CHECKING] = TO(READY) | TO(WANTED) | TO(GONE),
    [KILN_PLAN_STORING] = TO(RUNNING) | TO(JUDGING) | TO(CHECKING) | TO(GONE),
};
#undef TO

static void move(struct kiln_flight *flight, enum kiln_plan_state state) {
    assert(flight->state == state || allowed[flight->state] >> state & 1);
    flight->state = state;
}

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static void set_timer(struct step *step, struct kiln_timer *timer, uint64_t at_ms) {
    step->out.failed |= !kiln_timers_set(&step->plan->flights.timers, timer, at_ms);
}

static void clear_timer(struct step *step, struct kiln_timer *timer) {
    kiln_timers_clear(&step->plan->flights.timers, timer);
}

static void let_go(struct step *step, struct kiln_flight *flight) {
    kiln_queue_remove(&step->plan->queue, flight);
    move(flight, KILN_PLAN_GONE);
    kiln_plan_emit(&step->out, KILN_PLAN_RELEASE, &flight->key);
    kiln_flights_drop(&step->plan->flights, flight);
}

// Answers all that wait, and ends the flight.
static void conclude(struct step *step, struct kiln_flight *flight, enum kiln_plan_verdict verdict, const char *reason) {
    kiln_plan_emit_answer(&step->out, flight, verdict, reason);
    let_go(step, flight);
}

// Its attempts are used up.
static void die(struct step *step, struct kiln_flight *flight, const struct kiln_agreement *said, const char *reason) {
    struct kiln_plan_action *action = kiln_plan_emit(&step->out, KILN_PLAN_DEAD, &flight->key);
    if (said->differ)
        reason = "agreement: executors gave different results";
    if (action) {
        action->job = flight->job;
        action->attempt = (uint32_t)__builtin_popcount(flight->attempts);
        kiln_plan_emit_reason(&step->out, action, reason);
    }
    conclude(step, flight, KILN_PLAN_LOCALLY, reason);
}

// Into the queues, for one more dispatch.
static void enqueue(struct step *step, struct kiln_flight *flight, enum kiln_queue_place place) {
    const struct kiln_plan_config *config = &step->plan->config;
    struct kiln_filter filter;
    kiln_agreement_filter(flight, &filter);
    if (filter.rather_not_count && !flight->anywhere) {
        if (config->elsewhere_ms && kiln_pool_has_other(&step->plan->pool, &filter, step->now_ms)) {
            set_timer(step, &flight->elsewhere, step->now_ms + config->elsewhere_ms);
        } else {
            flight->anywhere = true;
            kiln_agreement_filter(flight, &filter);
        }
    }
    if (filter.groups_count && config->agreement_ms && !flight->patience.place)
        set_timer(step, &flight->patience, step->now_ms + config->agreement_ms);
    step->out.failed |= !kiln_queue_put(&step->plan->queue, flight, &filter, place);
    kiln_demand_renew(&step->plan->demand);
}

// What its runs mean for the flight now: another dispatch, storing, checking, the end. `reason`, when it is the end.
static void reconsider(struct step *step, struct kiln_flight *flight, enum kiln_queue_place place, const char *reason) {
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    kiln_queue_remove(&step->plan->queue, flight);
    clear_timer(step, &flight->elsewhere);
    clear_timer(step, &flight->patience);
    unsigned left = kiln_agreement_attempts_left(flight);
    if (said.equal >= flight->agreement) {
        move(flight, KILN_PLAN_STORING);
        kiln_plan_emit_store(&step->out, flight, &said);
    } else if (said.equal + said.going + left < flight->agreement) {
        die(step, flight, &said, reason);
    } else if (!said.going && !flight->waiters_count) {
        let_go(step, flight);
    } else if (!said.going && flight->unsure) {
        move(flight, KILN_PLAN_CHECKING);
        kiln_plan_emit(&step->out, KILN_PLAN_CHECK, &flight->key);
    } else {
        move(flight, said.running ? KILN_PLAN_RUNNING : said.going ? KILN_PLAN_JUDGING : KILN_PLAN_READY);
        if (left && kiln_agreement_needs(flight, &said) && !flight->unsure && flight->waiters_count)
            enqueue(step, flight, place);
    }
}

static void make_ready(struct step *step, struct kiln_flight *flight) {
    clear_timer(step, &flight->upload);
    flight->unsure = false;
    move(flight, KILN_PLAN_READY);
    reconsider(step, flight, KILN_QUEUE_LAST, LOST_REASON);
}

// Asks the next waiter that was not asked yet. Ends the flight when there is none.
static void ask_next(struct step *step, struct kiln_flight *flight) {
    const struct kiln_waiter *waiter = kiln_waiter_ask_next(flight);
    if (!waiter) {
        conclude(step, flight, KILN_PLAN_LOCALLY, "not_uploaded: the inputs did not come in time");
        return;
    }
    flight->provider = waiter->job;
    set_timer(step, &flight->upload, step->now_ms + step->plan->config.upload_ms);
    kiln_plan_emit_to_job(&step->out, KILN_PLAN_WANT, &flight->key, &waiter->job, NULL);
}

static void want(struct step *step, struct kiln_flight *flight) {
    move(flight, KILN_PLAN_WANTED);
    kiln_waiter_forget_asked(flight);
    ask_next(step, flight);
}

static void leave_queue(void *queue, struct kiln_interest *interest) { kiln_queue_leave(queue, interest); }

// The waiter has been spoken to, or wants nothing more: what its going means. The flight may be gone afterwards.
static void remove_waiter(struct step *step, struct kiln_waiter *waiter) {
    struct kiln_flight *flight = waiter->flight;
    bool asked = flight->state == KILN_PLAN_WANTED && same_id(&flight->provider, &waiter->job);
    kiln_waiter_drop(&step->plan->flights, waiter, leave_queue, &step->plan->queue);
    if (flight->waiters_count) {
        if (asked)
            ask_next(step, flight);
    } else if (flight->state == KILN_PLAN_WANTED || flight->state == KILN_PLAN_READY) {
        let_go(step, flight);
    } else {
        kiln_queue_remove(&step->plan->queue, flight); // what goes on, goes on; what comes of it finds it empty
    }
}

static void dispatch(struct step *step, struct kiln_flight *flight, struct kiln_pool_executor *executor,
                     const struct kiln_job_id *credit) {
    struct kiln_run *run = kiln_run_add(&step->plan->flights, flight, executor, &executor->incarnation,
                                        kiln_agreement_next_attempt(flight));
    kiln_queue_remove(&step->plan->queue, flight);
    if (!run) {
        step->out.failed = true;
        return;
    }
    run->credit = *credit;
    flight->anywhere = false;
    set_timer(step, &run->lease, step->now_ms + step->plan->config.lease_ms);
    kiln_plan_emit_dispatch(&step->out, run, step->plan->config.lease_ms);
    reconsider(step, flight, KILN_QUEUE_LAST, LOST_REASON);
    kiln_demand_renew(&step->plan->demand);
}

static void schedule(struct step *step) {
    struct kiln_plan *plan = step->plan;
    while (plan->queue.stirred && !step->out.failed) {
        struct kiln_pool_executor *executor;
        struct kiln_job_id credit;
        struct kiln_flight *flight = kiln_queue_next(&plan->queue, &plan->pool, step->now_ms, &executor, &credit);
        if (!flight)
            break;
        dispatch(step, flight, executor, &credit);
    }
    kiln_demand_say(&plan->demand, &plan->queue, step->now_ms, &step->out);
}

// Why a submission that is new cannot be taken; NULL: it can.
static const char *refusal(const struct kiln_plan *plan, const struct kiln_plan_event *event) {
    const char *tenant_name = event->tenant ? event->tenant : "";
    if (strlen(tenant_name) > KILN_PLAN_NAME_MAX || strlen(event->agent ? event->agent : "") > KILN_PLAN_NAME_MAX)
        return "name: of tenant or submitter, too long";
    if (event->partition >= KILN_PLAN_PARTITIONS_MAX)
        return "partition: there is none of that number";
    const struct kiln_tenant *tenant = kiln_flights_tenant(&plan->flights, tenant_name);
    if (plan->config.quota_jobs && tenant && tenant->waiters_count >= plan->config.quota_jobs &&
        event->kind != KILN_PLAN_RESTORE_WAITER)
        return "quota: as many jobs of this tenant wait as may";
    return NULL;
}

static bool is_full(const struct kiln_plan *plan, const struct kiln_flight *flight) {
    return plan->flights.waiters_count >= KILN_PLAN_JOBS_MAX ||
           (flight ? flight->waiters_count >= KILN_PLAN_WAITERS_MAX : plan->flights.count >= KILN_PLAN_FLIGHTS_MAX);
}

static struct kiln_flight *new_flight(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_add(&step->plan->flights, &event->key, event->partition);
    if (!flight) {
        step->out.failed = true;
        return NULL;
    }
    flight->job = event->job;
    flight->agreement = event->agreement ? event->agreement : 1;
    if (flight->agreement > KILN_PLAN_AGREEMENT_MAX)
        flight->agreement = KILN_PLAN_AGREEMENT_MAX;
    if (step->plan->held[event->partition])
        move(flight, KILN_PLAN_HELD);
    return flight;
}

// The same submission again: the submitter did not hear of what was asked, or asks anew.
static void submitted_again(struct step *step, struct kiln_flight *flight, struct kiln_waiter *waiter,
                            const struct kiln_plan_event *event) {
    set_timer(step, &waiter->deadline, event->until_ms);
    if (flight->state == KILN_PLAN_WANTED && same_id(&flight->provider, &event->job))
        kiln_plan_emit_to_job(&step->out, KILN_PLAN_WANT, &flight->key, &event->job, NULL);
    if (flight->state == KILN_PLAN_WANTED && !event->lacking)
        make_ready(step, flight);
}

// A flight has one waiter more: what that changes for it.
static void go_on(struct step *step, struct kiln_flight *flight, struct kiln_interest *interest, bool lacking) {
    switch (flight->state) {
    case KILN_PLAN_GONE: // it is new
        if (lacking)
            want(step, flight);
        else
            make_ready(step, flight);
        return;
    case KILN_PLAN_HELD: flight->complete |= !lacking; return;
    case KILN_PLAN_WANTED:
        if (!lacking)
            make_ready(step, flight);
        return;
    case KILN_PLAN_READY:
    case KILN_PLAN_RUNNING:
    case KILN_PLAN_JUDGING:
        if (flight->queued) {
            struct kiln_filter filter;
            kiln_agreement_filter(flight, &filter);
            step->out.failed |= !kiln_queue_join(&step->plan->queue, interest, &filter);
        } else {
            reconsider(step, flight, KILN_QUEUE_LAST, LOST_REASON); // it may have wanted no more for nobody
        }
        return;
    case KILN_PLAN_CHECKING:
    case KILN_PLAN_STORING: return;
    }
}

static void on_submitted(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_plan *plan = step->plan;
    struct kiln_flight *flight = kiln_flights_find(&plan->flights, &event->key);
    struct kiln_waiter *waiter = flight ? kiln_waiter_find(&plan->flights, flight, &event->job) : NULL;
    if (waiter) {
        submitted_again(step, flight, waiter, event);
        return;
    }
    const char *refused = refusal(plan, event);
    if (refused) {
        kiln_plan_emit_to_job(&step->out, KILN_PLAN_REFUSE, &event->key, &event->job, refused);
        return;
    }
    if (is_full(plan, flight)) {
        kiln_plan_emit_to_job(&step->out, KILN_PLAN_ANSWER, &event->key, &event->job, "busy: too many jobs wait");
        return;
    }
    if (!flight && !(flight = new_flight(step, event)))
        return;
    waiter = kiln_waiter_add(&plan->flights, flight, event);
    if (!waiter) {
        step->out.failed = true;
        return;
    }
    set_timer(step, &waiter->deadline, event->until_ms);
    go_on(step, flight, waiter->party->interest, event->lacking);
}

// From whoever was asked, also from one that was slow: the content is there now.
static void on_uploaded(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    if (flight && flight->state == KILN_PLAN_WANTED && kiln_waiter_find(&step->plan->flights, flight, &event->job))
        make_ready(step, flight);
}

static void on_waiter_leaves(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    struct kiln_waiter *waiter = flight ? kiln_waiter_find(&step->plan->flights, flight, &event->job) : NULL;
    if (!waiter)
        return;
    if (event->kind == KILN_PLAN_REFUSED)
        kiln_plan_emit_to_job(&step->out, KILN_PLAN_REFUSE, &flight->key, &event->job, event->reason);
    remove_waiter(step, waiter);
}

// Its runs decide what comes next.
static bool is_open(const struct kiln_flight *flight) {
    return flight->state == KILN_PLAN_READY || flight->state == KILN_PLAN_RUNNING || flight->state == KILN_PLAN_JUDGING;
}

static void end_run(struct step *step, struct kiln_run *run, const char *reason) {
    struct kiln_flight *flight = run->flight;
    clear_timer(step, &run->lease);
    run->state = KILN_RUN_OVER;
    if (is_open(flight))
        reconsider(step, flight, KILN_QUEUE_LAST, reason);
}

// Ends those runs of the executor that go on in an incarnation, or (NULL) all, with what they gave.
static void end_runs_of(struct step *step, struct kiln_pool_executor *executor, const struct kiln_job_id *incarnation) {
    LIST_HEAD(, kiln_run) runs = LIST_HEAD_INITIALIZER(runs);
    for (struct kiln_run *run; (run = LIST_FIRST(&executor->runs));) {
        LIST_REMOVE(run, executor_link);
        LIST_INSERT_HEAD(&runs, run, executor_link);
    }
    for (struct kiln_run *run; (run = LIST_FIRST(&runs));) { // the end of one may free others, which then leave the list
        LIST_REMOVE(run, executor_link);
        LIST_INSERT_HEAD(&executor->runs, run, executor_link);
        if (incarnation ? run->state == KILN_RUN_GOING && same_id(&run->incarnation, incarnation)
                        : run->state != KILN_RUN_OVER)
            end_run(step, run, LOST_REASON);
    }
}

// It went to another pool: the flights that have runs with it must still not come to it again.
static void queue_anew(struct step *step, struct kiln_pool_executor *executor) {
    struct kiln_run *run;
    LIST_FOREACH(run, &executor->runs, executor_link) {
        if (!run->flight->queued)
            continue;
        kiln_queue_remove(&step->plan->queue, run->flight);
        enqueue(step, run->flight, KILN_QUEUE_FIRST);
    }
}

static void on_credit(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_pool *pool = &step->plan->pool;
    struct kiln_job_id former;
    struct kiln_pool_executor *executor = kiln_pool_find(pool, event->executor);
    const struct kiln_pool_group *group = executor ? executor->group : NULL;
    if (kiln_pool_meet(pool, event->executor, event->pool ? event->pool : "", &event->incarnation, step->now_ms, &former,
                       &executor))
        end_runs_of(step, executor, &former);
    if (!executor)
        return;
    if (group && group != executor->group)
        queue_anew(step, executor);
    step->out.failed |= !kiln_pool_add(pool, executor, &event->credit, event->until_ms, step->now_ms);
    step->plan->queue.stirred = true;
}

static void on_revoked(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_pool_executor *executor = kiln_pool_find(&step->plan->pool, event->executor);
    if (!executor)
        return;
    kiln_pool_void(&step->plan->pool, executor);
    end_runs_of(step, executor, NULL);
}

static void hear(struct step *step, const struct kiln_plan_event *event) {
    if (kiln_pool_hear(&step->plan->pool, &event->incarnation, step->now_ms))
        step->plan->queue.stirred = true;
}

static bool is_by(const struct kiln_run *run, const struct kiln_plan_event *event) {
    return run->state == KILN_RUN_GOING && same_id(&run->incarnation, &event->incarnation) &&
           (!event->executor || strcmp(run->executor->name, event->executor) == 0);
}

// What an executor says of a run that is not going on, or not with it.
static void discard(struct step *step, const struct kiln_plan_event *event, const char *reason) {
    struct kiln_plan_action *action = kiln_plan_emit(&step->out, KILN_PLAN_DISCARD, &event->key);
    if (!action)
        return;
    action->job = event->job;
    action->attempt = event->attempt;
    kiln_plan_emit_reason(&step->out, action, reason);
}

#define IMPOSTOR "executor: not the one that it was dispatched to"

static void on_lease(struct step *step, const struct kiln_plan_event *event) {
    const struct kiln_flights *flights = &step->plan->flights;
    bool known = false, others = false;
    hear(step, event);
    for (struct kiln_run *run = NULL; (run = kiln_run_find(flights, &event->job, event->attempt, run));) {
        bool mine = is_by(run, event);
        known |= mine;
        others |= !mine && run->state == KILN_RUN_GOING;
        if (mine)
            set_timer(step, &run->lease, step->now_ms + step->plan->config.lease_ms);
    }
    if (!known && others)
        discard(step, event, IMPOSTOR);
}

static void on_declined(struct step *step, const struct kiln_plan_event *event) {
    static const struct kiln_job_id unknown = {{0}}; // of a run that was restored
    struct kiln_flights *flights = &step->plan->flights;
    struct kiln_run *run = NULL;
    hear(step, event);
    while ((run = kiln_run_find(flights, &event->job, event->attempt, run))) {
        if (is_by(run, event) && (same_id(&run->credit, &event->credit) || same_id(&run->credit, &unknown)))
            break;
    }
    if (!run)
        return;
    struct kiln_flight *flight = run->flight;
    kiln_pool_distrust(&step->plan->pool, run->executor, &event->credit);
    if (++flight->declines % KILN_PLAN_DECLINES_MAX == 0) {
        end_run(step, run, "declined: no executor began the job");
        return;
    }
    flight->attempts &= ~(1u << run->attempt);
    kiln_run_drop(flights, run);
    if (!is_open(flight))
        return;
    bool waited_for = flight->waiters_count != 0; // else it is gone when nothing else goes on
    reconsider(step, flight, KILN_QUEUE_FIRST, LOST_REASON);
    if (waited_for)
        kiln_queue_refund(&step->plan->queue, flight);
}

static void on_candidate(struct step *step, const struct kiln_plan_event *event) {
    const char *reason = "unknown: no such attempt is running";
    struct kiln_run *run = NULL;
    hear(step, event);
    while ((run = kiln_run_find(&step->plan->flights, &event->job, event->attempt, run))) {
        bool same_action = kiln_digest_equal(&run->flight->key.action, &event->key.action);
        if (same_action && is_by(run, event))
            break;
        reason = !same_action                   ? "action: not that of the job"
                 : run->state == KILN_RUN_GOING ? IMPOSTOR
                                                : "late: the attempt was over";
    }
    if (!run || run->flight->state == KILN_PLAN_HELD) {
        discard(step, event, reason);
        return;
    }
    struct kiln_flight *flight = run->flight;
    clear_timer(step, &run->lease);
    run->state = KILN_RUN_JUDGED;
    struct kiln_plan_action *action = kiln_plan_emit(&step->out, KILN_PLAN_JUDGE, &flight->key);
    if (action) {
        action->job = run->job;
        action->attempt = run->attempt;
    }
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    if (!said.running && flight->state == KILN_PLAN_RUNNING)
        move(flight, KILN_PLAN_JUDGING);
}

// The content, or what became of it, did not serve: another try when there may be one.
static void have_trouble(struct step *step, struct kiln_flight *flight, const char *reason) {
    flight->unsure = true;
    if (++flight->troubles < KILN_PLAN_TROUBLES_MAX + flight->agreement - 1) {
        reconsider(step, flight, KILN_QUEUE_LAST, reason);
        return;
    }
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    die(step, flight, &said, reason);
}

static void on_judged(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    struct kiln_run *run = flight ? TAILQ_FIRST(&flight->runs) : NULL;
    struct kiln_agreement said;
    while (run && (run->attempt != event->attempt || run->state != KILN_RUN_JUDGED))
        run = TAILQ_NEXT(run, flight_link);
    if (!run)
        return;
    run->state = event->verdict == KILN_PLAN_STORED ? KILN_RUN_GAVE : KILN_RUN_OVER;
    run->digest = event->digest;
    kiln_agreement_of(flight, &said);
    switch (event->verdict) {
    case KILN_PLAN_STORED:
        if (said.differ)
            kiln_plan_emit_diverged(&step->out, flight, &said, NULL);
        if (is_open(flight))
            reconsider(step, flight, KILN_QUEUE_LAST, LOST_REASON);
        return;
    case KILN_PLAN_LOCALLY:
        if (said.gave)
            kiln_plan_emit_diverged(&step->out, flight, &said, run);
        if (is_open(flight))
            conclude(step, flight, KILN_PLAN_LOCALLY, event->reason);
        return;
    case KILN_PLAN_AGAIN:
        if (is_open(flight))
            have_trouble(step, flight, event->reason);
        return;
    }
}

static void on_filed(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    if (!flight || flight->state != KILN_PLAN_STORING)
        return;
    if (event->verdict != KILN_PLAN_AGAIN) {
        conclude(step, flight, event->verdict, event->verdict == KILN_PLAN_STORED ? NULL : event->reason);
        return;
    }
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    struct kiln_run *run;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        if (run->state == KILN_RUN_GAVE && kiln_digest_equal(&run->digest, &said.digest))
            run->state = KILN_RUN_OVER;
    }
    have_trouble(step, flight, event->reason);
}

static void on_checked(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    if (!flight || flight->state != KILN_PLAN_CHECKING)
        return;
    if (flight->waiters_count == 0)
        let_go(step, flight);
    else if (event->lacking)
        want(step, flight);
    else
        make_ready(step, flight);
}

static const struct kiln_run *run_of_attempt(const struct kiln_flight *flight, uint32_t attempt) {
    const struct kiln_run *run;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        if (run->attempt == attempt)
            return run;
    }
    return NULL;
}

// The run that is still awaited. When the executor has become another incarnation since, its lease runs out.
static void restore_run(struct step *step, struct kiln_flight *flight, const struct kiln_plan_event *event) {
    struct kiln_pool_executor *executor = kiln_pool_find(&step->plan->pool, event->executor);
    struct kiln_job_id former;
    if (!executor)
        kiln_pool_meet(&step->plan->pool, event->executor, event->pool ? event->pool : "", &event->incarnation,
                       step->now_ms, &former, &executor);
    if (!executor || run_of_attempt(flight, event->attempt))
        return;
    struct kiln_run *run = kiln_run_add(&step->plan->flights, flight, executor, &event->incarnation, event->attempt);
    if (!run) {
        step->out.failed = true;
        return;
    }
    set_timer(step, &run->lease, event->until_ms);
}

static void on_restore_flight(struct step *step, const struct kiln_plan_event *event) {
    struct kiln_flight *flight = kiln_flights_find(&step->plan->flights, &event->key);
    if (event->partition >= KILN_PLAN_PARTITIONS_MAX || !step->plan->held[event->partition])
        return;
    if (!flight && (is_full(step->plan, NULL) || !(flight = new_flight(step, event))))
        return;
    if (flight->state != KILN_PLAN_HELD)
        return;
    flight->job = event->job;
    flight->troubles = event->troubles > flight->troubles ? event->troubles : flight->troubles;
    unsigned max = kiln_agreement_attempts_max(flight), used = event->attempt < max ? event->attempt : max;
    flight->attempts |= (2u << used) - 2;
    if (event->executor && event->attempt && event->attempt <= max)
        restore_run(step, flight, event);
}

// Its content has gone while nobody looked, so what its runs give cannot be judged either: it is asked for anew.
static void want_anew(struct step *step, struct kiln_flight *flight) {
    struct kiln_run *run;
    TAILQ_FOREACH(run, &flight->runs, flight_link) {
        clear_timer(step, &run->lease);
        run->state = KILN_RUN_OVER;
    }
    want(step, flight);
}

static void resume(struct step *step, struct kiln_flight *flight) {
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    if (!flight->waiters_count) {
        let_go(step, flight);
    } else if (!flight->complete) {
        want_anew(step, flight);
    } else if (said.going) {
        move(flight, KILN_PLAN_RUNNING);
        reconsider(step, flight, KILN_QUEUE_LAST, LOST_REASON);
    } else {
        make_ready(step, flight);
    }
}

static void on_partition(struct step *step, const struct kiln_plan_event *event) {
    if (event->partition >= KILN_PLAN_PARTITIONS_MAX)
        return;
    step->plan->held[event->partition] = event->kind == KILN_PLAN_GAINED;
    struct kiln_flight *flight = TAILQ_FIRST(&step->plan->flights.partitions[event->partition]), *next;
    for (; flight && event->kind != KILN_PLAN_GAINED; flight = next) {
        next = TAILQ_NEXT(flight, partition_link);
        if (event->kind == KILN_PLAN_LOST)
            let_go(step, flight);
        else if (flight->state == KILN_PLAN_HELD)
            resume(step, flight);
    }
}

static void on_deadline(struct step *step, struct kiln_waiter *waiter) {
    const struct kiln_flight *flight = waiter->flight;
    struct kiln_agreement said;
    kiln_agreement_of(flight, &said);
    char reason[96] = "timeout: no result in time";
    if (flight->agreement > 1 && said.gave)
        snprintf(reason, sizeof reason, "agreement: %u of %u pools gave the same result in time", said.equal,
                 flight->agreement);
    kiln_plan_emit_to_job(&step->out, KILN_PLAN_ANSWER, &flight->key, &waiter->job, reason);
    remove_waiter(step, waiter);
}

static void on_patience(struct step *step, struct kiln_flight *flight) {
    struct kiln_agreement said;
    char reason[96];
    kiln_agreement_of(flight, &said);
    snprintf(reason, sizeof reason, "agreement: no executor in more than %u of %u pools", said.gave, flight->agreement);
    if (said.going)
        set_timer(step, &flight->patience, step->now_ms + step->plan->config.agreement_ms);
    else
        conclude(step, flight, KILN_PLAN_LOCALLY, reason);
}

static void on_lease_over(struct step *step, struct kiln_run *run) {
    kiln_pool_suspect(&step->plan->pool, run->executor, &run->incarnation, step->now_ms, step->plan->config.lease_ms);
    end_run(step, run, LOST_REASON);
}

static void on_elsewhere(struct step *step, struct kiln_flight *flight) {
    flight->anywhere = true;
    if (!flight->queued)
        return;
    kiln_queue_remove(&step->plan->queue, flight);
    enqueue(step, flight, KILN_QUEUE_FIRST);
}

static void on_tick(struct step *step) {
    struct kiln_timers *timers = &step->plan->flights.timers;
    for (struct kiln_timer *timer; (timer = kiln_timers_first(timers)) && timer->at_ms <= step->now_ms;) {
        kiln_timers_clear(timers, timer);
        switch ((enum kiln_plan_timer)timer->kind) {
        case KILN_TIMER_WAITER: on_deadline(step, kiln_member_of(timer, struct kiln_waiter, deadline)); break;
        case KILN_TIMER_UPLOAD: ask_next(step, kiln_member_of(timer, struct kiln_flight, upload)); break;
        case KILN_TIMER_ELSEWHERE: on_elsewhere(step, kiln_member_of(timer, struct kiln_flight, elsewhere)); break;
        case KILN_TIMER_AGREEMENT: on_patience(step, kiln_member_of(timer, struct kiln_flight, patience)); break;
        case KILN_TIMER_LEASE: on_lease_over(step, kiln_member_of(timer, struct kiln_run, lease)); break;
        }
    }
}

int kiln_plan_step(struct kiln_plan *plan, const struct kiln_plan_event *event, uint64_t now_ms,
                   struct kiln_plan_actions *actions, struct kiln_err *err) {
    struct step step = {.plan = plan, .now_ms = now_ms, .out = {.actions = actions}};
    switch (event->kind) {
    case KILN_PLAN_SUBMITTED:
    case KILN_PLAN_RESTORE_WAITER: on_submitted(&step, event); break;
    case KILN_PLAN_UPLOADED: on_uploaded(&step, event); break;
    case KILN_PLAN_REFUSED:
    case KILN_PLAN_CANCELLED: on_waiter_leaves(&step, event); break;
    case KILN_PLAN_CREDIT: on_credit(&step, event); break;
    case KILN_PLAN_LEASE: on_lease(&step, event); break;
    case KILN_PLAN_DECLINED: on_declined(&step, event); break;
    case KILN_PLAN_CANDIDATE: on_candidate(&step, event); break;
    case KILN_PLAN_JUDGED: on_judged(&step, event); break;
    case KILN_PLAN_CHECKED: on_checked(&step, event); break;
    case KILN_PLAN_FILED: on_filed(&step, event); break;
    case KILN_PLAN_REVOKED: on_revoked(&step, event); break;
    case KILN_PLAN_RESTORE_FLIGHT: on_restore_flight(&step, event); break;
    case KILN_PLAN_GAINED:
    case KILN_PLAN_RESTORED:
    case KILN_PLAN_LOST: on_partition(&step, event); break;
    case KILN_PLAN_TICK: on_tick(&step); break;
    }
    schedule(&step);
    return step.out.failed ? kiln_fail(err, KILN_E_NOMEM, "no memory for the plan") : 0;
}

uint64_t kiln_plan_next_ms(const struct kiln_plan *plan) {
    const struct kiln_timer *first = kiln_timers_first(&plan->flights.timers);
    uint64_t due_ms = first ? first->at_ms : UINT64_MAX, demand_ms = kiln_demand_due_ms(&plan->demand, &plan->queue);
    if (plan->queue.stirred)
        return 0; // the queue was too long for one step
    return demand_ms < due_ms ? demand_ms : due_ms;
}

size_t kiln_plan_flights(const struct kiln_plan *plan) { return plan->flights.count; }

enum kiln_plan_state kiln_plan_state_of(const struct kiln_plan *plan, const struct kiln_plan_key *key) {
    const struct kiln_flight *flight = kiln_flights_find(&plan->flights, key);
    return flight ? flight->state : KILN_PLAN_GONE;
}

int kiln_plan_new(const struct kiln_plan_config *config, struct kiln_plan **plan, struct kiln_err *err) {
    struct kiln_plan *made = calloc(1, sizeof *made);
    if (!made || kiln_flights_init(&made->flights, config->hash_seed)) {
        free(made);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the plan");
    }
    if (kiln_pool_init(&made->pool, config->hash_seed)) {
        kiln_flights_release(&made->flights);
        free(made);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the plan");
    }
    made->config = *config;
    kiln_queue_init(&made->queue);
    *plan = made;
    return 0;
}

void kiln_plan_free(struct kiln_plan *plan) {
    if (!plan)
        return;
    for (size_t i = 0; i < KILN_PLAN_PARTITIONS_MAX; i++) {
        struct kiln_flight *flight;
        TAILQ_FOREACH(flight, &plan->flights.partitions[i], partition_link)
            kiln_queue_remove(&plan->queue, flight);
    }
    kiln_flights_release(&plan->flights);
    kiln_pool_release(&plan->pool);
    free(plan);
}
