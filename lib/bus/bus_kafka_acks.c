#include "lib/bus/bus_kafka_acks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/bus/bus_kafka_topics.h"

int kiln_kafka_acks_init(struct kiln_kafka_acks *acks, struct kiln_err *err) {
    *acks = (struct kiln_kafka_acks){0};
    pthread_mutex_init(&acks->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&acks->all_settled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    bool whole = (acks->reports = calloc(KILN_KAFKA_UNSETTLED_MAX / 8, 1)) != NULL;
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        if (kiln_kafka_of_group(topic))
            whole &= (acks->progress[topic] = calloc(KILN_BUS_KAFKA_PARTITIONS_MAX, sizeof(struct kiln_kafka_progress))) != NULL;
    }
    if (whole)
        return 0;
    kiln_kafka_acks_release(acks);
    return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
}

void kiln_kafka_acks_release(struct kiln_kafka_acks *acks) {
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        for (unsigned i = 0; acks->progress[topic] && i < KILN_BUS_KAFKA_PARTITIONS_MAX; i++)
            free(acks->progress[topic][i].waiting);
        free(acks->progress[topic]);
    }
    free(acks->reports);
    pthread_cond_destroy(&acks->all_settled);
    pthread_mutex_destroy(&acks->lock);
}

static void lock(struct kiln_kafka_acks *acks) { pthread_mutex_lock(&acks->lock); }
static void unlock(struct kiln_kafka_acks *acks) { pthread_mutex_unlock(&acks->lock); }

static uint8_t *report_of(struct kiln_kafka_acks *acks, uint64_t number, uint8_t *bit) {
    uint32_t at = (uint32_t)(number % KILN_KAFKA_UNSETTLED_MAX);
    *bit = (uint8_t)(1u << (at % 8));
    return &acks->reports[at / 8];
}

uint64_t kiln_kafka_acks_begin(struct kiln_kafka_acks *acks) {
    lock(acks);
    uint64_t number = acks->begun - acks->settled < KILN_KAFKA_UNSETTLED_MAX ? ++acks->begun : 0;
    unlock(acks);
    return number;
}

static void settle(struct kiln_kafka_acks *acks, uint64_t number, bool failed) {
    uint8_t bit, *report;
    assert(number > acks->settled && number <= acks->begun);
    *(report = report_of(acks, number, &bit)) |= bit;
    if (failed && number > acks->rewound && (!acks->broken || number < acks->broken))
        acks->broken = number;
    while (acks->settled < acks->begun && *(report = report_of(acks, acks->settled + 1, &bit)) & bit) {
        *report &= (uint8_t)~bit;
        acks->settled++;
    }
    if (acks->settled == acks->begun)
        pthread_cond_broadcast(&acks->all_settled);
}

void kiln_kafka_acks_settle(struct kiln_kafka_acks *acks, uint64_t number, bool failed) {
    lock(acks);
    settle(acks, number, failed);
    unlock(acks);
}

void kiln_kafka_acks_abandon(struct kiln_kafka_acks *acks, uint64_t number) {
    lock(acks);
    while (acks->settled < number) // each one settled takes those with a report behind it along
        settle(acks, acks->settled + 1, true);
    unlock(acks);
}

uint64_t kiln_kafka_acks_last(struct kiln_kafka_acks *acks) {
    lock(acks);
    uint64_t last = acks->begun;
    unlock(acks);
    return last;
}

void kiln_kafka_acks_wait_settled(struct kiln_kafka_acks *acks, uint64_t deadline_ms) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    lock(acks);
    while (acks->begun > acks->settled && pthread_cond_timedwait(&acks->all_settled, &acks->lock, &until) == 0)
        ;
    unlock(acks);
}

static struct kiln_kafka_progress *progress_of(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition) {
    return acks->progress[topic] && partition < KILN_BUS_KAFKA_PARTITIONS_MAX ? &acks->progress[topic][partition] : NULL;
}

static void reset(struct kiln_kafka_progress *progress, bool owned) {
    free(progress->waiting);
    *progress = (struct kiln_kafka_progress){.owned = owned};
}

static void own(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, bool owned) {
    struct kiln_kafka_progress *progress = progress_of(acks, topic, partition);
    lock(acks);
    if (progress)
        reset(progress, owned);
    unlock(acks);
}

void kiln_kafka_acks_gain(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition) {
    own(acks, topic, partition, true);
}

void kiln_kafka_acks_lose(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition) {
    own(acks, topic, partition, false);
}

bool kiln_kafka_acks_owned(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition) {
    const struct kiln_kafka_progress *progress = progress_of(acks, topic, partition);
    lock(acks);
    bool owned = progress && progress->owned;
    unlock(acks);
    return owned;
}

void kiln_kafka_acks_take(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t offset) {
    struct kiln_kafka_progress *progress = progress_of(acks, topic, partition);
    lock(acks);
    if (progress && offset >= progress->taken_end)
        progress->taken_end = offset + 1;
    unlock(acks);
}

static bool counts(const struct kiln_kafka_acks *acks, uint64_t after) {
    return after <= acks->settled && (!acks->broken || after < acks->broken);
}

// Ends and numbers both rise along the list, so the last one that counts says it all.
static void promote(struct kiln_kafka_acks *acks, struct kiln_kafka_progress *progress) {
    size_t done = 0;
    while (done < progress->waiting_count && counts(acks, progress->waiting[done].after))
        progress->ready_end = progress->waiting[done++].end;
    progress->waiting_count -= done;
    if (done)
        memmove(progress->waiting, progress->waiting + done, progress->waiting_count * sizeof *progress->waiting);
}

static int wait_for(struct kiln_kafka_progress *progress, struct kiln_kafka_ack ack, struct kiln_err *err) {
    struct kiln_kafka_ack *last = progress->waiting_count ? &progress->waiting[progress->waiting_count - 1] : NULL;
    if (last && last->after == ack.after) {
        last->end = ack.end;
        return 0;
    }
    if (progress->waiting_count == progress->waiting_cap) {
        size_t cap = progress->waiting_cap ? 2 * progress->waiting_cap : 16;
        struct kiln_kafka_ack *grown = reallocarray(progress->waiting, cap, sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
        progress->waiting = grown;
        progress->waiting_cap = cap;
    }
    progress->waiting[progress->waiting_count++] = ack;
    return 0;
}

int kiln_kafka_acks_ack(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t offset,
                        struct kiln_err *err) {
    struct kiln_kafka_progress *progress = progress_of(acks, topic, partition);
    int rc = 0;
    lock(acks);
    if (progress && progress->owned && offset < progress->taken_end && offset >= progress->acked_end) {
        promote(acks, progress); // so that the list is never longer than there are unsettled publishes
        rc = wait_for(progress, (struct kiln_kafka_ack){.end = offset + 1, .after = acks->begun}, err);
        if (rc == 0) {
            progress->acked_end = offset + 1;
            acks->new_acks++;
        }
    }
    unlock(acks);
    return rc;
}

size_t kiln_kafka_acks_collect(struct kiln_kafka_acks *acks,
                               void (*commit)(void *context, enum kiln_topic topic, uint32_t partition, uint64_t end),
                               void *context) {
    size_t found = 0;
    lock(acks);
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        for (uint32_t i = 0; acks->progress[topic] && i < KILN_BUS_KAFKA_PARTITIONS_MAX; i++) {
            struct kiln_kafka_progress *progress = &acks->progress[topic][i];
            if (!progress->owned)
                continue;
            promote(acks, progress);
            if (progress->ready_end <= progress->committed_end)
                continue;
            progress->committed_end = progress->ready_end;
            commit(context, topic, i, progress->ready_end);
            found++;
        }
    }
    acks->new_acks = 0;
    unlock(acks);
    return found;
}

void kiln_kafka_acks_uncommitted(struct kiln_kafka_acks *acks, enum kiln_topic topic, uint32_t partition, uint64_t end) {
    struct kiln_kafka_progress *progress = progress_of(acks, topic, partition);
    lock(acks);
    if (progress && progress->committed_end == end)
        progress->committed_end = 0;
    unlock(acks);
}

unsigned kiln_kafka_acks_new(struct kiln_kafka_acks *acks) {
    lock(acks);
    unsigned count = acks->new_acks;
    unlock(acks);
    return count;
}

bool kiln_kafka_acks_broken(struct kiln_kafka_acks *acks) {
    lock(acks);
    bool broken = acks->broken != 0;
    unlock(acks);
    return broken;
}

void kiln_kafka_acks_rewind(struct kiln_kafka_acks *acks) {
    lock(acks);
    acks->rewound = acks->begun;
    acks->broken = 0;
    unlock(acks);
}
