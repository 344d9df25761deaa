#include "lib/bus/bus_kafka_queue.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

struct kiln_kafka_queued {
    TAILQ_ENTRY(kiln_kafka_queued) link;
    struct kiln_record record;
};

int kiln_kafka_queue_init(struct kiln_kafka_queue *queue, struct kiln_err *err) {
    *queue = (struct kiln_kafka_queue){.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    TAILQ_INIT(&queue->items);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (queue->event_fd >= 0)
        return 0;
    int rc = kiln_fail_errno(err, KILN_E_IO, "bus: cannot make an event descriptor");
    kiln_kafka_queue_release(queue);
    return rc;
}

static void drop(struct kiln_kafka_queue *queue, struct kiln_kafka_queued *item) {
    TAILQ_REMOVE(&queue->items, item, link);
    kiln_record_release(&item->record);
    free(item);
}

void kiln_kafka_queue_release(struct kiln_kafka_queue *queue) {
    struct kiln_kafka_queued *item;
    while ((item = TAILQ_FIRST(&queue->items)))
        drop(queue, item);
    kiln_cleanup_fd(&queue->event_fd);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
}

static void lock(struct kiln_kafka_queue *queue) { pthread_mutex_lock(&queue->lock); }
static void unlock(struct kiln_kafka_queue *queue) { pthread_mutex_unlock(&queue->lock); }

// Under the lock, after each change: the descriptor is readable exactly while a take would give something.
static void show(struct kiln_kafka_queue *queue) {
    eventfd_t unused;
    if (!TAILQ_EMPTY(&queue->items) || queue->failure.code)
        eventfd_write(queue->event_fd, 1);
    else
        eventfd_read(queue->event_fd, &unused);
    pthread_cond_broadcast(&queue->changed);
}

static void wait_until(struct kiln_kafka_queue *queue, uint64_t deadline_ms) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
}

static size_t weight(const struct kiln_record *record) { return sizeof *record + record->value_len; }

static bool is_counted(const struct kiln_record *record) {
    return record->news == KILN_NEWS_RECORD || record->news == KILN_NEWS_REFUSED;
}

static void count(struct kiln_kafka_queue *queue, const struct kiln_record *record, bool in) {
    if (!is_counted(record))
        return;
    queue->records = in ? queue->records + 1 : queue->records - 1;
    queue->bytes = in ? queue->bytes + weight(record) : queue->bytes - weight(record);
}

static struct kiln_kafka_queued *item_new(struct kiln_record *record, struct kiln_err *err) {
    struct kiln_kafka_queued *item = calloc(1, sizeof *item);
    if (!item) {
        kiln_record_release(record);
        kiln_fail(err, KILN_E_NOMEM, "bus: no memory for a record");
        return NULL;
    }
    item->record = *record;
    *record = (struct kiln_record){0};
    return item;
}

int kiln_kafka_queue_put(struct kiln_kafka_queue *queue, struct kiln_record *record, struct kiln_err *err) {
    struct kiln_kafka_queued *item = item_new(record, err);
    if (!item)
        return KILN_E_NOMEM;
    lock(queue);
    TAILQ_INSERT_TAIL(&queue->items, item, link);
    count(queue, &item->record, true);
    show(queue);
    unlock(queue);
    return 0;
}

// True when GAINED of that partition was still there: the caller does not know that it ever had it.
static bool drop_partition(struct kiln_kafka_queue *queue, uint32_t partition) {
    bool untold = false;
    struct kiln_kafka_queued *item = TAILQ_FIRST(&queue->items), *next;
    for (; item; item = next) {
        next = TAILQ_NEXT(item, link);
        if (item->record.partition != partition || item->record.news == KILN_NEWS_LOST)
            continue;
        untold |= item->record.news == KILN_NEWS_GAINED;
        count(queue, &item->record, false);
        drop(queue, item);
    }
    return untold;
}

int kiln_kafka_queue_put_lost(struct kiln_kafka_queue *queue, uint32_t partition, struct kiln_err *err) {
    struct kiln_record lost = {.topic = KILN_TOPIC_JOBS, .news = KILN_NEWS_LOST, .partition = partition};
    struct kiln_kafka_queued *item = item_new(&lost, err);
    if (!item)
        return KILN_E_NOMEM;
    lock(queue);
    if (drop_partition(queue, partition)) {
        free(item);
    } else {
        TAILQ_INSERT_HEAD(&queue->items, item, link);
        queue->lost_waiting++;
    }
    show(queue);
    unlock(queue);
    return 0;
}

int kiln_kafka_queue_take(struct kiln_kafka_queue *queue, uint64_t deadline_ms, struct kiln_record *record,
                          struct kiln_err *err) {
    int rc = 0;
    lock(queue);
    if (queue->lost_given) {
        queue->lost_given = false;
        queue->lost_waiting--;
        pthread_cond_broadcast(&queue->changed);
    }
    while (TAILQ_EMPTY(&queue->items) && !queue->failure.code && kiln_clock_ms() < deadline_ms)
        wait_until(queue, deadline_ms);
    struct kiln_kafka_queued *item = TAILQ_FIRST(&queue->items);
    if (item) {
        TAILQ_REMOVE(&queue->items, item, link);
        count(queue, &item->record, false);
        queue->lost_given = item->record.news == KILN_NEWS_LOST;
        *record = item->record;
        show(queue);
    } else if (queue->failure.code) {
        if (err)
            *err = queue->failure;
        rc = queue->failure.code;
    } else {
        rc = kiln_fail(err, KILN_E_TIMEOUT, "no record until the deadline");
    }
    unlock(queue);
    free(item);
    return rc;
}

static bool has_room(const struct kiln_kafka_queue *queue) {
    return queue->records < KILN_KAFKA_QUEUE_RECORDS_MAX && queue->bytes < KILN_KAFKA_QUEUE_BYTES_MAX;
}

bool kiln_kafka_queue_wait_for_room(struct kiln_kafka_queue *queue, uint64_t deadline_ms) {
    lock(queue);
    while (!has_room(queue) && !queue->closing && kiln_clock_ms() < deadline_ms)
        wait_until(queue, deadline_ms);
    bool room = has_room(queue);
    unlock(queue);
    return room;
}

void kiln_kafka_queue_wait_for_lost(struct kiln_kafka_queue *queue, uint64_t deadline_ms) {
    lock(queue);
    while (queue->lost_waiting && !queue->closing && kiln_clock_ms() < deadline_ms)
        wait_until(queue, deadline_ms);
    unlock(queue);
}

void kiln_kafka_queue_fail(struct kiln_kafka_queue *queue, const struct kiln_err *failure) {
    lock(queue);
    if (!queue->failure.code)
        queue->failure = *failure;
    show(queue);
    unlock(queue);
}

void kiln_kafka_queue_close(struct kiln_kafka_queue *queue) {
    lock(queue);
    queue->closing = true;
    pthread_cond_broadcast(&queue->changed);
    unlock(queue);
}
