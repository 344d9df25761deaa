#include "producer/agent/conversation.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define SEND_TIMEOUT_MS 20000
#define ALIVE_TIMEOUT_MS 200

struct kiln_conversation {
    struct kiln_conversations *all;
    pthread_mutex_t sending;
    int socket;
    pid_t pid;
    uid_t uid;
    bool working, gone; // under all->lock
    uint64_t alive_at_ms;
    struct kiln_conversation *next;
};

struct kiln_conversations {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t keepalive;
    struct kiln_conversation *first;
    bool stopping;
};

// With the list locked: a conversation cannot be closed while ALIVE is sent; a full socket is given up soon.
static void send_alives(struct kiln_conversations *all, uint64_t now_ms) {
    for (struct kiln_conversation *one = all->first; one; one = one->next) {
        if (!one->working || one->gone || now_ms < one->alive_at_ms || pthread_mutex_trylock(&one->sending))
            continue;
        one->gone = kiln_frame_send(one->socket, KILN_FRAME_ALIVE, NULL, 0, NULL, 0, now_ms + ALIVE_TIMEOUT_MS, NULL) != 0;
        one->alive_at_ms = now_ms + KILN_ALIVE_EVERY_MS;
        pthread_mutex_unlock(&one->sending);
    }
}

static void *keep_alive(void *argument) {
    struct kiln_conversations *all = argument;
    pthread_mutex_lock(&all->lock);
    while (!all->stopping) {
        uint64_t next = kiln_clock_ms() + KILN_ALIVE_EVERY_MS / 4;
        struct timespec at = {.tv_sec = (time_t)(next / 1000), .tv_nsec = (long)(next % 1000) * 1000000};
        pthread_cond_timedwait(&all->changed, &all->lock, &at);
        send_alives(all, kiln_clock_ms());
    }
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

struct kiln_conversations *kiln_conversations_new(void) {
    struct kiln_conversations *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&all->keepalive, NULL, keep_alive, all)) {
        free(all);
        return NULL;
    }
    return all;
}

void kiln_conversations_free(struct kiln_conversations *all) {
    if (!all)
        return;
    pthread_mutex_lock(&all->lock);
    all->stopping = true;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    pthread_join(all->keepalive, NULL);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

int kiln_conversation_open(struct kiln_conversations *all, int socket, bool anybody, struct kiln_conversation **out,
                           struct kiln_err *err) {
    struct kiln_conversation *one = calloc(1, sizeof *one);
    int rc = one ? kiln_frame_peer(socket, &one->pid, &one->uid, err) : kiln_fail(err, KILN_E_NOMEM, "conversation");
    if (rc == 0 && !anybody && one->uid != geteuid() && one->uid != 0)
        rc = kiln_fail(err, KILN_E_DENIED, "user %u may not use this agent", (unsigned)one->uid);
    if (rc) {
        free(one);
        close(socket);
        return rc;
    }
    one->all = all;
    one->socket = socket;
    pthread_mutex_init(&one->sending, NULL);
    pthread_mutex_lock(&all->lock);
    one->next = all->first;
    all->first = one;
    pthread_mutex_unlock(&all->lock);
    *out = one;
    return 0;
}

void kiln_conversation_close(struct kiln_conversation *one) {
    if (!one)
        return;
    pthread_mutex_lock(&one->all->lock);
    struct kiln_conversation **slot = &one->all->first;
    while (*slot != one)
        slot = &(*slot)->next;
    *slot = one->next;
    pthread_mutex_unlock(&one->all->lock);
    close(one->socket);
    pthread_mutex_destroy(&one->sending);
    free(one);
}

pid_t kiln_conversation_pid(const struct kiln_conversation *one) { return one->pid; }
uid_t kiln_conversation_uid(const struct kiln_conversation *one) { return one->uid; }

int kiln_conversation_receive(struct kiln_conversation *one, uint64_t deadline_ms, struct kiln_frame *frame,
                              struct kiln_err *err) {
    return kiln_frame_receive(one->socket, deadline_ms, frame, err);
}

int kiln_conversation_send(struct kiln_conversation *one, enum kiln_frame_type type, const void *payload, size_t len,
                           const int *fds, size_t fds_count, struct kiln_err *err) {
    pthread_mutex_lock(&one->sending);
    int rc = kiln_frame_send(one->socket, type, payload, len, fds, fds_count, kiln_clock_ms() + SEND_TIMEOUT_MS, err);
    pthread_mutex_unlock(&one->sending);
    return rc;
}

static void set_working(struct kiln_conversation *one, bool working) {
    pthread_mutex_lock(&one->all->lock);
    one->working = working;
    one->alive_at_ms = kiln_clock_ms() + KILN_ALIVE_EVERY_MS;
    pthread_mutex_unlock(&one->all->lock);
}

void kiln_conversation_begin_work(struct kiln_conversation *one) { set_working(one, true); }
void kiln_conversation_end_work(struct kiln_conversation *one) { set_working(one, false); }

bool kiln_conversation_gone(const struct kiln_conversation *one) {
    pthread_mutex_lock(&one->all->lock);
    bool gone = one->gone;
    pthread_mutex_unlock(&one->all->lock);
    return gone;
}
