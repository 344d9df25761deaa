#include "consumer/executor/slots.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

// How long a finished job's candidate is kept for a bus that does not take it: doing the job again costs more.
#define PUBLISH_FOR_MS (15 * 60 * 1000)
#define RETRY_MS 50
#define RETRY_MAX_MS 1000

struct slot {
    struct kiln_slots *all;
    pthread_t thread;
    bool given; // work lies here and is not begun
    struct kiln_work work;
    uint64_t lease_at_ms;
};

struct kiln_slots {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct kiln_job_context context;
    struct kiln_bus *bus;
    struct kiln_credits credits;
    struct slot *slots;
    unsigned started;
    bool stopping;
};

static int publish(struct kiln_slots *all, enum kiln_topic topic, const struct kiln_digest *action,
                   const struct kiln_buf *record, struct kiln_err *err) {
    return kiln_bus_publish(all->bus, topic, kiln_bus_partition_of(all->bus, action), action->bytes, sizeof action->bytes,
                            record->data, record->len, err);
}

static bool is_stopping(struct kiln_slots *all) {
    pthread_mutex_lock(&all->lock);
    bool stopping = all->stopping;
    pthread_mutex_unlock(&all->lock);
    return stopping;
}

static void publish_candidate(struct kiln_slots *all, const struct kiln_candidate *candidate) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    const uint64_t deadline_ms = kiln_clock_ms() + PUBLISH_FOR_MS;
    long pause_ms = RETRY_MS;
    int rc = kiln_candidate_encode(candidate, &record, &err);
    if (rc == 0)
        rc = publish(all, KILN_TOPIC_CANDIDATES, &candidate->action_digest, &record, &err);
    while (rc && err.retriable && kiln_clock_left_ms(deadline_ms) && !is_stopping(all)) {
        nanosleep(&(struct timespec){.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000}, NULL);
        pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS;
        rc = publish(all, KILN_TOPIC_CANDIDATES, &candidate->action_digest, &record, &err);
    }
    if (rc)
        kiln_log(KILN_LOG_ERROR, "candidate_lost", "error", err.text, NULL);
}

static void run_work(struct kiln_slots *all, const struct kiln_work *work) {
    struct kiln_candidate candidate = {0};
    struct kiln_err err = {0};
    if (kiln_job_run(&all->context, work, &candidate, &err) == 0) {
        kiln_log(KILN_LOG_INFO, "job_ended", "status", candidate.status == KILN_RUN_EXITED && candidate.exit_code == 0 ? "ok" : "not_ok",
                 "reason", candidate.reasons_count ? candidate.reasons[0] : "",
                 "observed", candidate.observations_count ? candidate.observations[0] : "", NULL);
        publish_candidate(all, &candidate);
    } else {
        kiln_log(KILN_LOG_ERROR, "job_broken", "error", err.text, NULL);
    }
    kiln_candidate_release(&candidate);
}

static int offer(struct kiln_slots *all, unsigned at, uint64_t now_ms, struct kiln_err *err) { // with the lock held
    struct kiln_credit credit = {.executor = (char *)all->context.executor, .pool = (char *)all->context.pool,
                                 .incarnation = all->context.incarnation,
                                 .expires_ms = kiln_clock_wall_ms() + KILN_CREDIT_LIFE_MS};
    if (getrandom(&credit.credit, sizeof credit.credit, 0) != sizeof credit.credit)
        return kiln_fail_errno(err, KILN_E_IO, "random bytes");
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_credit_encode(&credit, &record, err);
    if (rc == 0)
        rc = kiln_bus_publish(all->bus, KILN_TOPIC_CREDITS, all->credits.slots[at].partition, all->context.incarnation.bytes, 16,
                              record.data, record.len, err);
    if (rc == 0)
        kiln_credits_offered(&all->credits, at, &credit.credit, now_ms);
    return rc;
}

static int offer_due(struct kiln_slots *all, uint64_t now_ms, struct kiln_err *err) { // with the lock held
    int rc = 0;
    for (int at; rc == 0 && (at = kiln_credits_due(&all->credits, now_ms)) >= 0;)
        rc = offer(all, (unsigned)at, now_ms, err);
    return rc;
}

static void *serve(void *argument) {
    struct slot *slot = argument;
    struct kiln_slots *all = slot->all;
    const unsigned at = (unsigned)(slot - all->slots);
    pthread_mutex_lock(&all->lock);
    for (;;) {
        while (!slot->given && !all->stopping)
            pthread_cond_wait(&all->changed, &all->lock);
        if (!slot->given)
            break;
        slot->given = false;
        pthread_mutex_unlock(&all->lock);
        run_work(all, &slot->work);
        uint32_t partition = kiln_bus_partition_of(all->bus, &slot->work.action_digest);
        pthread_mutex_lock(&all->lock);
        kiln_work_release(&slot->work);
        slot->work = (struct kiln_work){0};
        kiln_credits_ended(&all->credits, at, partition);
        if (!all->stopping)
            offer_due(all, kiln_clock_ms(), NULL); // at once: the next job must not wait for the main thread
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

int kiln_slots_new(const struct kiln_job_context *context, struct kiln_bus *bus, unsigned count, struct kiln_slots **out,
                   struct kiln_err *err) {
    struct kiln_slots *all = calloc(1, sizeof *all);
    if (!all || !(all->slots = calloc(count, sizeof *all->slots))) {
        free(all);
        return kiln_fail(err, KILN_E_NOMEM, "slots");
    }
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, NULL);
    all->context = *context;
    all->bus = bus;
    kiln_credits_init(&all->credits, count, kiln_bus_partitions(bus, KILN_TOPIC_CREDITS), context->incarnation.bytes[0]);
    for (unsigned i = 0; i < all->credits.count; i++) {
        all->slots[i].all = all;
        if (pthread_create(&all->slots[i].thread, NULL, serve, &all->slots[i])) {
            kiln_slots_free(all);
            return kiln_fail(err, KILN_E_NOMEM, "start slot %u", i);
        }
        all->started++;
    }
    *out = all;
    return 0;
}

static int send_lease(struct kiln_slots *all, struct slot *slot, uint64_t now_ms, struct kiln_err *err) {
    const struct kiln_lease lease = {.job = slot->work.job, .incarnation = all->context.incarnation,
                                     .attempt = slot->work.attempt, .at_ms = kiln_clock_wall_ms()};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_lease_encode(&lease, &record, err);
    slot->lease_at_ms = now_ms + slot->work.lease_ms / 4;
    return rc ? rc : publish(all, KILN_TOPIC_LEASES, &slot->work.action_digest, &record, err);
}

int kiln_slots_tick(struct kiln_slots *all, struct kiln_err *err) {
    uint64_t now_ms = kiln_clock_ms();
    pthread_mutex_lock(&all->lock);
    int rc = 0;
    // A lease that does not go out must not keep the others from it: the first error is told when all have been tried.
    for (unsigned i = 0; i < all->credits.count; i++) {
        struct slot *slot = &all->slots[i];
        if (all->credits.slots[i].state != KILN_SLOT_BUSY || now_ms < slot->lease_at_ms)
            continue;
        int sent = send_lease(all, slot, now_ms, rc ? NULL : err);
        rc = rc ? rc : sent;
    }
    if (rc == 0)
        rc = offer_due(all, now_ms, err);
    pthread_mutex_unlock(&all->lock);
    return rc;
}

static void decline(struct kiln_slots *all, const struct kiln_work *work) {
    const struct kiln_decline decline = {.job = work->job, .incarnation = all->context.incarnation, .credit = work->credit,
                                         .attempt = work->attempt};
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_decline_encode(&decline, &record, &err);
    if (rc == 0)
        rc = publish(all, KILN_TOPIC_LEASES, &work->action_digest, &record, &err);
    // Undeclined work is found by its lease.
    kiln_log(rc ? KILN_LOG_WARN : KILN_LOG_INFO, "work_declined", "error", rc ? err.text : "", NULL);
}

static void begin(struct slot *slot, struct kiln_work *work) { // with the lock held
    slot->work = *work;
    *work = (struct kiln_work){0};
    slot->lease_at_ms = kiln_clock_ms() + slot->work.lease_ms / 4;
    slot->given = true;
    pthread_cond_broadcast(&slot->all->changed);
}

void kiln_slots_give(struct kiln_slots *all, struct kiln_work *work) {
    if (memcmp(&all->context.incarnation, &work->incarnation, sizeof work->incarnation))
        return; // another executor's, or a predecessor's
    unsigned at;
    pthread_mutex_lock(&all->lock);
    enum kiln_claim claim = kiln_credits_claim(&all->credits, work, &at);
    if (claim == KILN_CLAIM_TAKEN)
        begin(&all->slots[at], work);
    pthread_mutex_unlock(&all->lock);
    if (claim == KILN_CLAIM_DECLINED)
        decline(all, work);
    else if (claim == KILN_CLAIM_REPEATED)
        kiln_log(KILN_LOG_INFO, "work_ignored", "why", "it was begun already", NULL);
}

int kiln_slots_demand(struct kiln_slots *all, const struct kiln_demand *demand, struct kiln_err *err) {
    int rc = 0;
    uint64_t now_ms = kiln_clock_ms();
    pthread_mutex_lock(&all->lock);
    if (kiln_credits_demand(&all->credits, demand->partition, demand->count, now_ms))
        rc = offer_due(all, now_ms, err);
    pthread_mutex_unlock(&all->lock);
    return rc;
}

void kiln_slots_drain(struct kiln_slots *all) {
    pthread_mutex_lock(&all->lock);
    kiln_credits_drain(&all->credits);
    pthread_mutex_unlock(&all->lock);
}

unsigned kiln_slots_running(struct kiln_slots *all) {
    pthread_mutex_lock(&all->lock);
    unsigned running = kiln_credits_busy(&all->credits);
    pthread_mutex_unlock(&all->lock);
    return running;
}

void kiln_slots_free(struct kiln_slots *all) {
    if (!all)
        return;
    pthread_mutex_lock(&all->lock);
    all->stopping = true;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    for (unsigned i = 0; i < all->started; i++)
        pthread_join(all->slots[i].thread, NULL);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
    free(all->slots);
    free(all);
}
