#include "consumer/executor/slots.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

#define CREDIT_LIFE_MS 30000
#define RETRIES_MAX 100
#define RETRY_MS 50

enum slot_state { SLOT_FREE, SLOT_GIVEN, SLOT_RUNNING };

struct slot {
    struct kiln_slots *all;
    pthread_t thread;
    enum slot_state state;
    struct kiln_job_id credit; // outstanding while the slot is free
    uint64_t credit_until_ms;  // monotonic; 0: none
    struct kiln_work work;
    uint64_t lease_at_ms;
};

struct kiln_slots {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct kiln_job_context context;
    struct kiln_bus *bus;
    struct slot *slots;
    unsigned count, started;
    bool draining, stopping;
};

static int publish(struct kiln_slots *all, enum kiln_topic topic, const void *key, size_t key_len, const struct kiln_buf *record,
                   struct kiln_err *err) {
    return kiln_bus_publish(all->bus, topic, 0, key, key_len, record->data, record->len, err);
}

static void publish_candidate(struct kiln_slots *all, const struct kiln_candidate *candidate) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_candidate_encode(candidate, &record, &err);
    if (rc == 0)
        rc = publish(all, KILN_TOPIC_CANDIDATES, candidate->action_digest.bytes, 32, &record, &err);
    // A full topic: waiting costs less than doing the job again.
    for (int attempt = 0; rc && err.retriable && attempt < RETRIES_MAX; attempt++) {
        nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL);
        rc = publish(all, KILN_TOPIC_CANDIDATES, candidate->action_digest.bytes, 32, &record, &err);
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

// A fresh credit for a free slot. With the lock held.
static int renew_credit(struct kiln_slots *all, struct slot *slot, uint64_t now_ms, struct kiln_err *err) {
    struct kiln_credit credit = {.executor = (char *)all->context.executor, .pool = (char *)all->context.pool,
                                 .incarnation = all->context.incarnation, .expires_ms = kiln_clock_wall_ms() + CREDIT_LIFE_MS};
    if (getrandom(&credit.credit, sizeof credit.credit, 0) != sizeof credit.credit)
        return kiln_fail_errno(err, KILN_E_IO, "random bytes");
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_credit_encode(&credit, &record, err);
    if (rc == 0)
        rc = publish(all, KILN_TOPIC_CREDITS, all->context.incarnation.bytes, 16, &record, err);
    if (rc)
        return rc;
    slot->credit = credit.credit;
    // Work for an expired credit may still be on its way: it is good here for a while longer.
    slot->credit_until_ms = now_ms + CREDIT_LIFE_MS;
    return 0;
}

static void *serve(void *argument) {
    struct slot *slot = argument;
    struct kiln_slots *all = slot->all;
    pthread_mutex_lock(&all->lock);
    for (;;) {
        while (slot->state != SLOT_GIVEN && !all->stopping)
            pthread_cond_wait(&all->changed, &all->lock);
        if (slot->state != SLOT_GIVEN)
            break;
        slot->state = SLOT_RUNNING;
        pthread_mutex_unlock(&all->lock);
        run_work(all, &slot->work);
        pthread_mutex_lock(&all->lock);
        kiln_work_release(&slot->work);
        slot->work = (struct kiln_work){0};
        slot->state = SLOT_FREE;
        if (!all->draining && !all->stopping)
            renew_credit(all, slot, kiln_clock_ms(), NULL); // at once: the next job must not wait for the main thread
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
    all->count = count;
    for (unsigned i = 0; i < count; i++) {
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
    return rc ? rc : publish(all, KILN_TOPIC_LEASES, slot->work.action_digest.bytes, 32, &record, err);
}

int kiln_slots_tick(struct kiln_slots *all, struct kiln_err *err) {
    uint64_t now_ms = kiln_clock_ms();
    int rc = 0;
    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0; rc == 0 && i < all->count; i++) {
        struct slot *slot = &all->slots[i];
        if (slot->state == SLOT_FREE && !all->draining && now_ms >= slot->credit_until_ms)
            rc = renew_credit(all, slot, now_ms, err);
        else if (slot->state != SLOT_FREE && now_ms >= slot->lease_at_ms)
            rc = send_lease(all, slot, now_ms, err);
    }
    pthread_mutex_unlock(&all->lock);
    return rc;
}

bool kiln_slots_give(struct kiln_slots *all, struct kiln_work *work) {
    bool given = false;
    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0; !given && i < all->count; i++) {
        struct slot *slot = &all->slots[i];
        if (slot->state != SLOT_FREE || !slot->credit_until_ms || memcmp(&slot->credit, &work->credit, sizeof work->credit) ||
            memcmp(&all->context.incarnation, &work->incarnation, sizeof work->incarnation))
            continue;
        slot->work = *work;
        *work = (struct kiln_work){0};
        slot->credit_until_ms = 0;
        slot->lease_at_ms = kiln_clock_ms() + slot->work.lease_ms / 4;
        slot->state = SLOT_GIVEN;
        given = true;
        pthread_cond_broadcast(&all->changed);
    }
    pthread_mutex_unlock(&all->lock);
    return given;
}

void kiln_slots_drain(struct kiln_slots *all) {
    pthread_mutex_lock(&all->lock);
    all->draining = true;
    pthread_mutex_unlock(&all->lock);
}

unsigned kiln_slots_running(struct kiln_slots *all) {
    unsigned running = 0;
    pthread_mutex_lock(&all->lock);
    for (unsigned i = 0; i < all->count; i++)
        running += all->slots[i].state != SLOT_FREE;
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
