#include "producer/agent/link.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

enum bus_state { BUS_IDLE, BUS_CONNECTING, BUS_UP, BUS_DOWN };
static const char *const bus_states[] = {"idle", "connecting", "up", "down"};

struct kiln_link {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct kiln_link_options options;
    pthread_t bus_thread, store_thread;
    unsigned threads;
    enum bus_state bus;
    bool waited; // a miss has spent its patience on this connecting
    struct kiln_submitter *submitter;
    uint64_t silent_ms; // since when no verifier was heard; 0: one is thought to be there
    char silence[256];
    bool store_down, stopping;
    char bus_reason[256], store_reason[256];
};

// With the lock held: until the time, or until it is to stop.
static void pause_until(struct kiln_link *link, uint64_t until_ms) {
    const struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    while (!link->stopping && kiln_clock_ms() < until_ms)
        if (pthread_cond_timedwait(&link->changed, &link->lock, &at))
            return;
}

static void say_reason(char reason[256], const char *word, const struct kiln_err *err) {
    snprintf(reason, 256, "%s: %.200s", word, err->text);
}

// With the lock held, which is given up meanwhile.
static void connect_bus(struct kiln_link *link) {
    struct kiln_bus *bus = NULL;
    struct kiln_submitter *submitter = NULL;
    struct kiln_err err = {0};
    pthread_mutex_unlock(&link->lock);
    int rc = link->options.open_bus(link->options.context, &bus, &err);
    if (rc == 0)
        rc = kiln_submitter_new(bus, &link->options.submitter, &submitter, &err);
    pthread_mutex_lock(&link->lock);
    if (rc) {
        say_reason(link->bus_reason, "fleet_unreachable", &err);
        return;
    }
    link->submitter = submitter;
    link->bus = BUS_UP;
    kiln_log(KILN_LOG_INFO, "fleet_connected", NULL);
    pthread_cond_broadcast(&link->changed);
}

static void watch_bus(struct kiln_link *link) { // with the lock held, given up meanwhile
    struct kiln_err err = {0};
    pthread_mutex_unlock(&link->lock);
    int rc = kiln_submitter_healthy(link->submitter, &err);
    pthread_mutex_lock(&link->lock);
    if (rc && link->bus == BUS_UP) {
        link->bus = BUS_DOWN;
        say_reason(link->bus_reason, "fleet_unreachable", &err);
        kiln_log(KILN_LOG_WARN, "fleet_unreachable", "error", err.text, NULL);
        kiln_submitter_give_up(link->submitter, link->bus_reason);
    } else if (rc == 0 && link->bus == BUS_DOWN) {
        link->bus = BUS_UP;
        kiln_log(KILN_LOG_INFO, "fleet_connected", NULL);
    }
}

static void *tend_bus(void *argument) {
    struct kiln_link *link = argument;
    pthread_mutex_lock(&link->lock);
    while (!link->stopping) {
        if (link->bus == BUS_IDLE) {
            pthread_cond_wait(&link->changed, &link->lock);
            continue;
        }
        if (link->bus == BUS_CONNECTING)
            connect_bus(link);
        else
            watch_bus(link);
        pause_until(link, kiln_clock_ms() + link->options.probe_ms);
    }
    pthread_mutex_unlock(&link->lock);
    return NULL;
}

static void *tend_store(void *argument) {
    struct kiln_link *link = argument;
    pthread_mutex_lock(&link->lock);
    while (!link->stopping) {
        if (!link->store_down) {
            pthread_cond_wait(&link->changed, &link->lock);
            continue;
        }
        pthread_mutex_unlock(&link->lock);
        struct kiln_err err = {0};
        int rc = link->options.probe_store(link->options.context, &err);
        pthread_mutex_lock(&link->lock);
        if (rc == 0) {
            link->store_down = false;
            kiln_log(KILN_LOG_INFO, "store_answers", NULL);
        } else {
            pause_until(link, kiln_clock_ms() + link->options.probe_ms);
        }
    }
    pthread_mutex_unlock(&link->lock);
    return NULL;
}

int kiln_link_new(const struct kiln_link_options *options, struct kiln_link **out, struct kiln_err *err) {
    struct kiln_link *link = calloc(1, sizeof *link);
    if (!link)
        return kiln_fail(err, KILN_E_NOMEM, "fleet link");
    link->options = *options;
    link->options.patience_ms = options->patience_ms ? options->patience_ms : KILN_LINK_PATIENCE_MS;
    link->options.probe_ms = options->probe_ms ? options->probe_ms : KILN_LINK_PROBE_MS;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&link->lock, NULL);
    pthread_cond_init(&link->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&link->bus_thread, NULL, tend_bus, link) == 0)
        link->threads = pthread_create(&link->store_thread, NULL, tend_store, link) ? 1 : 2;
    if (link->threads < 2) {
        kiln_link_free(link);
        return kiln_fail(err, KILN_E_NOMEM, "threads of the fleet link");
    }
    *out = link;
    return 0;
}

void kiln_link_free(struct kiln_link *link) {
    if (!link)
        return;
    pthread_mutex_lock(&link->lock);
    link->stopping = true;
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    if (link->threads > 0)
        pthread_join(link->bus_thread, NULL);
    if (link->threads > 1)
        pthread_join(link->store_thread, NULL);
    kiln_submitter_free(link->submitter);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

// With the lock held. The first misses wait together; whoever comes after their patience is over does not wait again.
static void await_connection(struct kiln_link *link) {
    if (link->bus == BUS_IDLE) {
        link->bus = BUS_CONNECTING;
        snprintf(link->bus_reason, sizeof link->bus_reason, "fleet_unreachable: no broker answered in time");
        pthread_cond_broadcast(&link->changed);
    }
    if (link->bus != BUS_CONNECTING || link->waited)
        return;
    const uint64_t until_ms = kiln_clock_ms() + link->options.patience_ms;
    const struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    while (link->bus == BUS_CONNECTING && !link->stopping && kiln_clock_ms() < until_ms)
        if (pthread_cond_timedwait(&link->changed, &link->lock, &at))
            break;
    link->waited = true;
}

void kiln_link_silent(struct kiln_link *link, const char *reason) {
    pthread_mutex_lock(&link->lock);
    if (!link->silent_ms)
        kiln_log(KILN_LOG_WARN, "fleet_silent", "reason", reason, NULL);
    link->silent_ms = kiln_clock_ms();
    snprintf(link->silence, sizeof link->silence, "%s", reason);
    pthread_mutex_unlock(&link->lock);
}

// With the lock held. Every KILN_LINK_SILENT_MS one caller may find out anew.
static bool is_silent(struct kiln_link *link) {
    uint64_t now_ms = kiln_clock_ms();
    if (!link->silent_ms)
        return false;
    if (kiln_submitter_heard_ms(link->submitter) > link->silent_ms) {
        link->silent_ms = 0;
        return false;
    }
    if (now_ms - link->silent_ms < KILN_LINK_SILENT_MS)
        return true;
    link->silent_ms = now_ms;
    return false;
}

int kiln_link_submitter(struct kiln_link *link, struct kiln_submitter **submitter, struct kiln_err *err) {
    pthread_mutex_lock(&link->lock);
    await_connection(link);
    int rc = link->bus == BUS_UP ? 0 : kiln_fail(err, KILN_E_UNSUPPORTED, "%s", link->bus_reason);
    if (rc == 0 && is_silent(link))
        rc = kiln_fail(err, KILN_E_UNSUPPORTED, "%s", link->silence);
    *submitter = link->submitter;
    pthread_mutex_unlock(&link->lock);
    return rc;
}

int kiln_link_store(struct kiln_link *link, struct kiln_err *err) {
    pthread_mutex_lock(&link->lock);
    int rc = link->store_down ? kiln_fail(err, KILN_E_UNSUPPORTED, "%s", link->store_reason) : 0;
    pthread_mutex_unlock(&link->lock);
    return rc;
}

void kiln_link_store_failed(struct kiln_link *link, struct kiln_err *why) {
    if (why->code != KILN_E_IO && why->code != KILN_E_TIMEOUT)
        return;
    pthread_mutex_lock(&link->lock);
    if (!link->store_down) {
        link->store_down = true;
        say_reason(link->store_reason, "store_unreachable", why);
        kiln_log(KILN_LOG_WARN, "store_unreachable", "error", why->text, NULL);
        pthread_cond_broadcast(&link->changed);
    }
    kiln_fail(why, KILN_E_UNSUPPORTED, "%s", link->store_reason);
    pthread_mutex_unlock(&link->lock);
}

void kiln_link_give_up(struct kiln_link *link, const char *reason) {
    pthread_mutex_lock(&link->lock);
    if (link->submitter)
        kiln_submitter_give_up(link->submitter, reason);
    pthread_mutex_unlock(&link->lock);
}

size_t kiln_link_waiting(struct kiln_link *link) {
    pthread_mutex_lock(&link->lock);
    size_t waiting = link->submitter ? kiln_submitter_waiting(link->submitter) : 0;
    pthread_mutex_unlock(&link->lock);
    return waiting;
}

void kiln_link_show(struct kiln_link *link, struct kiln_link_state *state) {
    pthread_mutex_lock(&link->lock);
    *state = (struct kiln_link_state){.bus = bus_states[link->bus], .store_up = !link->store_down};
    if (link->submitter)
        state->refused = kiln_submitter_refused(link->submitter, state->refusal);
    if (link->bus != BUS_UP && link->bus != BUS_IDLE)
        snprintf(state->bus_reason, sizeof state->bus_reason, "%s", link->bus_reason);
    if (link->store_down)
        snprintf(state->store_reason, sizeof state->store_reason, "%s", link->store_reason);
    pthread_mutex_unlock(&link->lock);
}
