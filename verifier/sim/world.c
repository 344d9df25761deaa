#include "verifier/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verifier/plan.h"
#include "verifier/sim/dice.h"

#define JOBS 48u
#define ACTIONS 10u
#define EXECUTORS 3u
#define CREDITS 4096u
#define MESSAGES 8192u
#define STEPS_MAX 60000u
#define LEASE_MS 300u
#define UPLOAD_MS 200u
#define OPEN_MS 6000u // no credits and no new executors after this

enum message_kind { TO_PLAN, AT_EXECUTOR, HEARTBEAT, FINISH, DIE, RISE, GIVE_CREDIT };

// Something that happens at a time: an event on its way to the plan, or a thing that an executor does.
struct message {
    uint64_t at_ms, number;
    enum message_kind kind;
    struct kiln_plan_event event;
    unsigned executor;
};

enum job_state { UNSENT, WAITING, DONE, CANCELLED };

struct job {
    enum job_state state;
    unsigned action;
    uint64_t deadline_ms;
};

struct attempt { // the newest dispatch of an action
    bool live;
    uint32_t number;
    struct kiln_job_id job, incarnation;
    uint64_t lease_until_ms;
};

struct action {
    bool content, flying;
    bool asked;
    unsigned asked_job;
    uint64_t asked_until_ms;
    uint32_t attempts; // of this flight
    struct attempt attempt;
    bool stored; // JUDGED said so in this step
};

struct executor {
    bool alive;
    unsigned generation;
    char name[16];
    struct kiln_job_id known; // the incarnation that the plan has heard of last
    unsigned known_generation;
};

struct credit {
    bool spent;
    uint64_t until_ms;
    struct kiln_job_id incarnation;
};

struct world {
    struct kiln_dice dice;
    uint64_t now_ms, numbers;
    struct kiln_plan *plan;
    struct job jobs[JOBS];
    struct action actions[ACTIONS];
    struct executor executors[EXECUTORS];
    struct credit credits[CREDITS];
    unsigned credits_count;
    struct message messages[MESSAGES];
    unsigned messages_count;
    unsigned verdict_stored, verdict_again; // percent
    struct kiln_sim_report *report;
};

static unsigned below(struct world *world, unsigned bound) { return kiln_dice_below(&world->dice, bound); }
static bool chance(struct world *world, unsigned percent) { return kiln_dice_chance(&world->dice, percent); }

static void fail(struct world *world, const char *what, unsigned which) {
    if (!world->report->failure[0])
        snprintf(world->report->failure, sizeof world->report->failure, "at %llu ms: %s (%u)",
                 (unsigned long long)world->now_ms, what, which);
}

static bool same_id(const struct kiln_job_id *a, const struct kiln_job_id *b) { return !memcmp(a, b, sizeof *a); }

static struct kiln_plan_key key_of(unsigned action) {
    struct kiln_plan_key key = {.scope = "local", .action = {{1}}};
    key.action.bytes[31] = (uint8_t)action;
    return key;
}

static void send(struct world *world, enum message_kind kind, const struct kiln_plan_event *event, unsigned executor,
                 unsigned delay_ms) {
    if (world->messages_count >= MESSAGES) {
        fail(world, "the simulator's queue is full", 0);
        return;
    }
    struct message *message = &world->messages[world->messages_count++];
    *message = (struct message){
        .at_ms = world->now_ms + delay_ms, .number = world->numbers++, .kind = kind, .executor = executor};
    if (event)
        message->event = *event;
}

// To the plan, late by a little, sometimes twice.
static void tell(struct world *world, const struct kiln_plan_event *event, unsigned delay_ms) {
    send(world, TO_PLAN, event, 0, delay_ms + below(world, 20));
    if (chance(world, 8))
        send(world, TO_PLAN, event, 0, delay_ms + below(world, 400));
}

static struct message take_next(struct world *world) {
    unsigned first = 0;
    for (unsigned i = 1; i < world->messages_count; i++) {
        const struct message *a = &world->messages[i], *b = &world->messages[first];
        if (a->at_ms < b->at_ms || (a->at_ms == b->at_ms && a->number < b->number))
            first = i;
    }
    struct message next = world->messages[first];
    world->messages[first] = world->messages[--world->messages_count];
    return next;
}

static void check_waiting(struct world *world, const struct kiln_plan_action *action, unsigned index) {
    unsigned job = kiln_sim_id_major(&action->jobs[index]);
    if (world->jobs[job].state == DONE)
        fail(world, "a waiter was answered twice", job);
    else if (world->jobs[job].state != WAITING)
        fail(world, "somebody was spoken to who does not wait", job);
    else if (world->jobs[job].action != action->key.action.bytes[31])
        fail(world, "a waiter was told of another action", job);
}

// What the asked submitter does: uploads soon or late, sends something wrong, or nothing.
static void on_want(struct world *world, const struct kiln_plan_action *action) {
    check_waiting(world, action, 0);
    unsigned job = kiln_sim_id_major(&action->jobs[0]);
    struct action *of = &world->actions[action->key.action.bytes[31]];
    bool former_waits = of->asked && of->asked_job != job && world->jobs[of->asked_job].state == WAITING;
    if (former_waits && world->now_ms < of->asked_until_ms)
        fail(world, "two waiters are asked at once", job);
    if (of->attempt.live)
        fail(world, "content is asked for while the job runs", job);
    if (!of->asked || of->asked_job != job) // asking the same one again gives it no more time
        of->asked_until_ms = world->now_ms + UPLOAD_MS;
    of->asked = true;
    of->asked_job = job;
    world->report->wants++;
    struct kiln_plan_event event = {.kind = KILN_PLAN_UPLOADED, .key = action->key, .job = action->jobs[0]};
    unsigned mood = below(world, 100);
    if (mood < 10) {
        event.kind = KILN_PLAN_REFUSED;
        event.reason = "other bytes";
    }
    if (mood < 75)
        tell(world, &event, below(world, UPLOAD_MS));
    else if (mood < 85)
        tell(world, &event, UPLOAD_MS + below(world, UPLOAD_MS));
}

static bool is_current(const struct world *world, const struct kiln_job_id *incarnation) {
    return same_id(&world->executors[kiln_sim_id_major(incarnation)].known, incarnation);
}

static void check_credit(struct world *world, const struct kiln_plan_action *action) {
    struct credit *credit = &world->credits[kiln_sim_id_major(&action->credit)];
    if (credit->spent)
        fail(world, "a credit was used twice", kiln_sim_id_major(&action->credit));
    if (credit->until_ms <= world->now_ms)
        fail(world, "an expired credit was used", kiln_sim_id_major(&action->credit));
    if (!same_id(&credit->incarnation, &action->incarnation) || !is_current(world, &action->incarnation))
        fail(world, "a credit of another incarnation was used", kiln_sim_id_major(&action->credit));
    credit->spent = true;
}

static bool somebody_waits(const struct world *world, unsigned action) {
    for (unsigned i = 0; i < JOBS; i++) {
        if (world->jobs[i].state == WAITING && world->jobs[i].action == action)
            return true;
    }
    return false;
}

static void on_dispatch(struct world *world, const struct kiln_plan_action *action) {
    struct action *of = &world->actions[action->key.action.bytes[31]];
    check_credit(world, action);
    if (of->attempt.live && world->now_ms < of->attempt.lease_until_ms && is_current(world, &of->attempt.incarnation))
        fail(world, "two attempts run at once", action->attempt);
    if (!somebody_waits(world, action->key.action.bytes[31]))
        fail(world, "a job was dispatched for nobody", action->attempt);
    if (!of->content)
        fail(world, "a job was dispatched without its content", action->attempt);
    if (action->attempt != ++of->attempts || action->attempt > KILN_PLAN_ATTEMPTS_MAX)
        fail(world, "attempts are not counted", action->attempt);
    world->report->lost += of->attempt.live;
    of->attempt = (struct attempt){.live = true, .number = action->attempt, .job = action->job,
                                   .incarnation = action->incarnation, .lease_until_ms = world->now_ms + LEASE_MS};
    of->asked = false;
    world->report->dispatches++;
    struct kiln_plan_event work = {.key = action->key, .job = action->job, .incarnation = action->incarnation,
                                   .attempt = action->attempt};
    send(world, AT_EXECUTOR, &work, kiln_sim_id_major(&action->incarnation), below(world, 20));
}

static void on_judge(struct world *world, const struct kiln_plan_action *action) {
    struct action *of = &world->actions[action->key.action.bytes[31]];
    if (!of->attempt.live || of->attempt.number != action->attempt || !same_id(&of->attempt.job, &action->job))
        fail(world, "a candidate is judged that nobody was asked for", action->attempt);
    of->attempt.live = false;
    struct kiln_plan_event event = {.kind = KILN_PLAN_JUDGED, .key = action->key, .attempt = action->attempt,
                                    .reason = "said so"};
    unsigned mood = below(world, 100);
    event.verdict = mood < world->verdict_stored                           ? KILN_PLAN_STORED
                    : mood < world->verdict_stored + world->verdict_again ? KILN_PLAN_AGAIN
                                                                           : KILN_PLAN_LOCALLY;
    send(world, TO_PLAN, &event, 0, chance(world, 50) ? 0 : below(world, 60));
}

static void on_check(struct world *world, const struct kiln_plan_action *action) {
    struct action *of = &world->actions[action->key.action.bytes[31]];
    if (chance(world, 40))
        of->content = false;
    world->report->checks++;
    struct kiln_plan_event event = {.kind = KILN_PLAN_CHECKED, .key = action->key, .lacking = !of->content};
    send(world, TO_PLAN, &event, 0, chance(world, 50) ? 0 : below(world, 60));
}

static void on_answer(struct world *world, const struct kiln_plan_action *action) {
    const struct action *of = &world->actions[action->key.action.bytes[31]];
    if (action->verdict == KILN_PLAN_AGAIN || (action->verdict == KILN_PLAN_STORED && !of->stored))
        fail(world, "a result was announced that nobody stored", action->key.action.bytes[31]);
    if (action->verdict == KILN_PLAN_LOCALLY && !action->reason)
        fail(world, "no reason was given", action->key.action.bytes[31]);
    for (unsigned i = 0; i < action->jobs_count; i++) {
        check_waiting(world, action, i);
        world->jobs[kiln_sim_id_major(&action->jobs[i])].state = DONE;
        world->report->answered++;
        world->report->stored += action->verdict == KILN_PLAN_STORED;
    }
}

static void on_refuse(struct world *world, const struct kiln_plan_action *action) {
    check_waiting(world, action, 0);
    world->jobs[kiln_sim_id_major(&action->jobs[0])].state = DONE;
    world->report->refused++;
}

static void on_release(struct world *world, unsigned action) {
    struct action *of = &world->actions[action];
    if (!of->flying)
        fail(world, "a flight was released twice", action);
    if (somebody_waits(world, action))
        fail(world, "a flight was released while somebody waits", action);
    of->flying = of->asked = of->attempt.live = false;
    of->attempts = 0;
}

static void carry_out(struct world *world, const struct kiln_plan_action *action) {
    switch (action->kind) {
    case KILN_PLAN_WANT: on_want(world, action); break;
    case KILN_PLAN_REFUSE: on_refuse(world, action); break;
    case KILN_PLAN_DISPATCH: on_dispatch(world, action); break;
    case KILN_PLAN_JUDGE: on_judge(world, action); break;
    case KILN_PLAN_DISCARD: world->report->discarded++; break;
    case KILN_PLAN_CHECK: on_check(world, action); break;
    case KILN_PLAN_ANSWER: on_answer(world, action); break;
    case KILN_PLAN_RELEASE: on_release(world, action->key.action.bytes[31]); break;
    case KILN_PLAN_STORE: {
        struct kiln_plan_event event = {.kind = KILN_PLAN_FILED, .key = action->key};
        send(world, TO_PLAN, &event, 0, 0);
        break;
    }
    default: break;
    }
}

// What an event changes in the world at the moment the plan hears of it. false: the plan is not told.
static bool before_step(struct world *world, struct kiln_plan_event *event) {
    struct action *of = &world->actions[event->key.action.bytes[31]];
    struct job *job = &world->jobs[kiln_sim_id_major(&event->job) % JOBS];
    struct executor *executor = &world->executors[kiln_sim_id_major(&event->incarnation) % EXECUTORS];
    switch (event->kind) {
    case KILN_PLAN_SUBMITTED:
        if (job->state == DONE || job->state == CANCELLED)
            return false; // a record that comes again after its answer: the vault answers it, or its deadline
        job->state = WAITING;
        of->flying = true;
        event->lacking = !of->content;
        return true;
    case KILN_PLAN_UPLOADED:
        of->content = true;
        return true;
    case KILN_PLAN_CANCELLED:
        world->report->cancelled += job->state == WAITING;
        if (job->state == WAITING || job->state == UNSENT)
            job->state = CANCELLED;
        return true;
    case KILN_PLAN_CREDIT:
        if (kiln_sim_id_minor(&event->incarnation) >= executor->known_generation) {
            executor->known = event->incarnation;
            executor->known_generation = kiln_sim_id_minor(&event->incarnation);
        }
        return true;
    case KILN_PLAN_LEASE:
        for (unsigned i = 0; i < ACTIONS; i++) {
            struct attempt *attempt = &world->actions[i].attempt;
            struct kiln_plan_key key = key_of(i);
            bool lapsed = kiln_plan_state_of(world->plan, &key) != KILN_PLAN_RUNNING; // too late to be saved
            if (!lapsed && attempt->live && attempt->number == event->attempt && same_id(&attempt->job, &event->job) &&
                same_id(&attempt->incarnation, &event->incarnation))
                attempt->lease_until_ms = world->now_ms + LEASE_MS;
        }
        return true;
    case KILN_PLAN_JUDGED:
        of->stored = event->verdict == KILN_PLAN_STORED;
        return true;
    case KILN_PLAN_FILED:
        of->stored = true;
        return true;
    default:
        return true;
    }
}

static void step(struct world *world, struct kiln_plan_event *event) {
    if (!before_step(world, event))
        return;
    struct kiln_plan_actions actions = {0};
    if (kiln_plan_step(world->plan, event, world->now_ms, &actions, NULL))
        fail(world, "no memory", 0);
    for (size_t i = 0; i < actions.count; i++)
        carry_out(world, &actions.list[i]);
    kiln_plan_actions_release(&actions);
    if (event->kind == KILN_PLAN_FILED)
        world->actions[event->key.action.bytes[31]].stored = false;
    for (unsigned i = 0; i < JOBS; i++) {
        struct kiln_plan_key key = key_of(world->jobs[i].action);
        if (world->jobs[i].state == WAITING && kiln_plan_state_of(world->plan, &key) == KILN_PLAN_GONE)
            fail(world, "somebody waits for nothing", i);
    }
    world->report->steps++;
}

static struct kiln_job_id incarnation_of(const struct world *world, unsigned executor) {
    return kiln_sim_id('i', executor, world->executors[executor].generation);
}

static void give_credit(struct world *world, unsigned index) {
    if (!world->executors[index].alive || world->now_ms > OPEN_MS || world->credits_count >= CREDITS)
        return;
    struct credit *credit = &world->credits[world->credits_count];
    *credit = (struct credit){.until_ms = world->now_ms + 100 + below(world, 900),
                              .incarnation = incarnation_of(world, index)};
    struct kiln_plan_event event = {.kind = KILN_PLAN_CREDIT, .executor = world->executors[index].name,
                                    .incarnation = credit->incarnation,
                                    .credit = kiln_sim_id('c', world->credits_count++, 0), .until_ms = credit->until_ms};
    tell(world, &event, 0);
    send(world, GIVE_CREDIT, NULL, index, 50 + below(world, 400));
}

static void rise(struct world *world, unsigned index) {
    if (world->executors[index].alive || world->now_ms > OPEN_MS)
        return;
    world->executors[index].alive = true;
    world->executors[index].generation++;
    send(world, GIVE_CREDIT, NULL, index, 0);
    if (chance(world, 60))
        send(world, DIE, NULL, index, below(world, 2500));
}

// Work arrives: it is done with heartbeats, or in silence, or not at all when its incarnation has died.
static void accept_work(struct world *world, const struct message *message) {
    struct kiln_job_id mine = incarnation_of(world, message->executor);
    if (!world->executors[message->executor].alive || !same_id(&mine, &message->event.incarnation))
        return;
    struct kiln_plan_event work = message->event;
    unsigned duration = below(world, 900);
    if (chance(world, 85))
        work.until_ms = world->now_ms + duration; // beats until then
    send(world, HEARTBEAT, &work, message->executor, LEASE_MS / 3);
    if (chance(world, 95))
        send(world, FINISH, &work, message->executor, duration);
}

static void report_work(struct world *world, const struct message *message, enum kiln_plan_event_kind kind) {
    struct kiln_job_id mine = incarnation_of(world, message->executor);
    if (!world->executors[message->executor].alive || !same_id(&mine, &message->event.incarnation))
        return;
    struct kiln_plan_event event = message->event;
    event.kind = kind;
    event.executor = world->executors[message->executor].name;
    if (kind == KILN_PLAN_LEASE && message->event.until_ms <= world->now_ms)
        return;
    tell(world, &event, 0);
    if (kind == KILN_PLAN_LEASE)
        send(world, HEARTBEAT, &message->event, message->executor, LEASE_MS / 3);
}

static void happen(struct world *world, struct message *message) {
    switch (message->kind) {
    case TO_PLAN: step(world, &message->event); break;
    case AT_EXECUTOR: accept_work(world, message); break;
    case HEARTBEAT: report_work(world, message, KILN_PLAN_LEASE); break;
    case FINISH: report_work(world, message, KILN_PLAN_CANDIDATE); break;
    case GIVE_CREDIT: give_credit(world, message->executor); break;
    case RISE: rise(world, message->executor); break;
    case DIE:
        world->executors[message->executor].alive = false;
        send(world, RISE, NULL, message->executor, below(world, 1000));
        break;
    }
}

static void begin(struct world *world) {
    world->verdict_stored = 40 + below(world, 50);
    world->verdict_again = below(world, 40);
    for (unsigned i = 0; i < JOBS; i++) {
        struct job *job = &world->jobs[i];
        job->action = below(world, ACTIONS);
        unsigned at = below(world, 4000);
        job->deadline_ms = at + 100 + below(world, 4000);
        struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key_of(job->action),
                                        .job = kiln_sim_id('j', i, 0), .until_ms = job->deadline_ms};
        tell(world, &event, at);
        event.kind = KILN_PLAN_CANCELLED;
        if (chance(world, 20))
            tell(world, &event, at + below(world, 1500));
    }
    for (unsigned i = 0; i < ACTIONS; i++)
        world->actions[i].content = chance(world, 30);
    for (unsigned i = 0; i < EXECUTORS; i++) {
        snprintf(world->executors[i].name, sizeof world->executors[i].name, "executor-%u", i);
        send(world, RISE, NULL, i, below(world, 1500));
    }
}

static void run(struct world *world) {
    for (unsigned i = 0; i < STEPS_MAX && !world->report->failure[0]; i++) {
        uint64_t tick = kiln_plan_next_ms(world->plan);
        if (world->messages_count == 0 && tick == UINT64_MAX)
            return;
        struct message next = {.at_ms = UINT64_MAX};
        if (world->messages_count)
            next = take_next(world);
        if (next.at_ms <= tick) {
            world->now_ms = next.at_ms > world->now_ms ? next.at_ms : world->now_ms;
            happen(world, &next);
            continue;
        }
        if (next.at_ms != UINT64_MAX)
            world->messages[world->messages_count++] = next; // not yet
        world->now_ms = tick > world->now_ms ? tick : world->now_ms;
        struct kiln_plan_event event = {.kind = KILN_PLAN_TICK};
        step(world, &event);
        if (kiln_plan_next_ms(world->plan) <= world->now_ms)
            fail(world, "a tick left something due", 0);
    }
}

void kiln_sim_run(uint64_t seed, struct kiln_sim_report *report) {
    *report = (struct kiln_sim_report){0};
    struct world *world = calloc(1, sizeof *world);
    const struct kiln_plan_config config = {.lease_ms = LEASE_MS, .upload_ms = UPLOAD_MS};
    if (!world || kiln_plan_new(&config, &world->plan, NULL)) {
        snprintf(report->failure, sizeof report->failure, "no memory");
        free(world);
        return;
    }
    world->dice.state = seed;
    world->report = report;
    begin(world);
    run(world);
    for (unsigned i = 0; i < JOBS; i++) {
        if (world->jobs[i].state == WAITING || world->jobs[i].state == UNSENT)
            fail(world, "a waiter was never answered", i);
    }
    if (kiln_plan_flights(world->plan))
        fail(world, "a flight is left when all is quiet", (unsigned)kiln_plan_flights(world->plan));
    kiln_plan_free(world->plan);
    free(world);
}
