#include "producer/agent/breaker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct kiln_breaker {
    pthread_mutex_t lock;
    uint64_t open_ms, until_ms; // until_ms 0: closed
    char reason[256];
};

struct kiln_breaker *kiln_breaker_new(uint64_t open_ms) {
    struct kiln_breaker *breaker = calloc(1, sizeof *breaker);
    if (breaker) {
        pthread_mutex_init(&breaker->lock, NULL);
        breaker->open_ms = open_ms;
    }
    return breaker;
}

void kiln_breaker_free(struct kiln_breaker *breaker) {
    if (breaker)
        pthread_mutex_destroy(&breaker->lock);
    free(breaker);
}

bool kiln_breaker_open(struct kiln_breaker *breaker, uint64_t now_ms, char *reason, size_t reason_size) {
    pthread_mutex_lock(&breaker->lock);
    bool open = breaker->until_ms > now_ms;
    if (breaker->until_ms && !open)
        breaker->until_ms = now_ms + breaker->open_ms; // this caller tries; the others wait for what it finds
    if (open)
        snprintf(reason, reason_size, "%s", breaker->reason);
    pthread_mutex_unlock(&breaker->lock);
    return open;
}

void kiln_breaker_trip(struct kiln_breaker *breaker, uint64_t now_ms, const char *reason) {
    pthread_mutex_lock(&breaker->lock);
    breaker->until_ms = now_ms + breaker->open_ms;
    snprintf(breaker->reason, sizeof breaker->reason, "%s", reason);
    pthread_mutex_unlock(&breaker->lock);
}

void kiln_breaker_succeed(struct kiln_breaker *breaker) {
    pthread_mutex_lock(&breaker->lock);
    breaker->until_ms = 0;
    pthread_mutex_unlock(&breaker->lock);
}
