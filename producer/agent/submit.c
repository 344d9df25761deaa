#include "producer/agent/submit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define TENANT "local"
#define POLL_MS 500

// One submission in flight. The first caller with an action owns it; others wait for its verdict.
struct flight {
    struct kiln_job_id job;
    struct kiln_digest action;
    const struct kiln_submission *submission; // of the owner, valid while it waits
    struct kiln_buf record;                   // the encoded submission, for sending it again
    struct kiln_answer *answer;               // the newest, taken by the owner
    bool done;
    int rc; // of the owner, for those who share
    struct kiln_err err;
    struct kiln_verdict verdict;
    unsigned holders;
    struct flight *next;
};

struct kiln_submitter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t reader;
    struct kiln_bus *bus;
    char *agent;
    struct flight *flights;
    bool stopping;
};

void kiln_verdict_release(struct kiln_verdict *verdict) {
    kiln_buf_release(&verdict->envelope);
    free(verdict->reason);
    *verdict = (struct kiln_verdict){0};
}

static void free_answer(struct kiln_answer *answer) {
    if (answer)
        kiln_answer_release(answer);
    free(answer);
}

static void deliver(struct kiln_submitter *submitter, const struct kiln_record *record) {
    struct kiln_answer answer = {0};
    if (kiln_answer_decode(record->value, record->value_len, &answer, NULL))
        return;
    struct kiln_answer *kept = malloc(sizeof *kept);
    if (!kept) {
        kiln_answer_release(&answer);
        return;
    }
    *kept = answer;
    pthread_mutex_lock(&submitter->lock);
    for (size_t i = 0; kept && i < kept->jobs_count; i++)
        for (struct flight *flight = submitter->flights; kept && flight; flight = flight->next)
            if (!memcmp(&flight->job, &kept->jobs[i], sizeof flight->job)) {
                free_answer(flight->answer);
                flight->answer = KILN_STEAL(kept);
                pthread_cond_broadcast(&submitter->changed);
                break;
            }
    pthread_mutex_unlock(&submitter->lock);
    free_answer(kept);
}

static void *read_results(void *argument) {
    struct kiln_submitter *submitter = argument;
    for (;;) {
        pthread_mutex_lock(&submitter->lock);
        bool stopping = submitter->stopping;
        pthread_mutex_unlock(&submitter->lock);
        if (stopping)
            return NULL;
        struct kiln_record record = {0};
        int rc = kiln_bus_poll(submitter->bus, kiln_clock_ms() + POLL_MS, &record, NULL);
        if (rc == KILN_E_TIMEOUT)
            continue;
        if (rc) {
            pthread_mutex_lock(&submitter->lock);
            submitter->stopping = true;
            pthread_cond_broadcast(&submitter->changed);
            pthread_mutex_unlock(&submitter->lock);
            return NULL;
        }
        deliver(submitter, &record);
        kiln_bus_ack(submitter->bus, &record, NULL);
        kiln_record_release(&record);
    }
}

int kiln_submitter_new(struct kiln_bus *bus, const char *agent, struct kiln_submitter **out, struct kiln_err *err) {
    struct kiln_submitter *submitter = calloc(1, sizeof *submitter);
    const struct kiln_bus_subscription results = {.topic = KILN_TOPIC_RESULTS, .from_end = true};
    int rc = submitter && (submitter->agent = strdup(agent)) ? 0 : kiln_fail(err, KILN_E_NOMEM, "submitter");
    if (rc == 0)
        rc = kiln_bus_subscribe(bus, &results, 1, err);
    if (rc == 0) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_mutex_init(&submitter->lock, NULL);
        pthread_cond_init(&submitter->changed, &attr);
        pthread_condattr_destroy(&attr);
        submitter->bus = bus;
        if (pthread_create(&submitter->reader, NULL, read_results, submitter))
            rc = kiln_fail(err, KILN_E_NOMEM, "start the results thread");
    }
    if (rc) {
        if (submitter)
            free(submitter->agent);
        free(submitter);
        kiln_bus_close(bus);
        return rc;
    }
    *out = submitter;
    return 0;
}

void kiln_submitter_free(struct kiln_submitter *submitter) {
    if (!submitter)
        return;
    pthread_mutex_lock(&submitter->lock);
    submitter->stopping = true;
    pthread_cond_broadcast(&submitter->changed);
    pthread_mutex_unlock(&submitter->lock);
    pthread_join(submitter->reader, NULL);
    kiln_bus_close(submitter->bus);
    pthread_cond_destroy(&submitter->changed);
    pthread_mutex_destroy(&submitter->lock);
    free(submitter->agent);
    free(submitter);
}

static int publish(struct kiln_submitter *submitter, const struct kiln_digest *action, const struct kiln_buf *record,
                   struct kiln_err *err) {
    return kiln_bus_publish(submitter->bus, KILN_TOPIC_JOBS, 0, action->bytes, sizeof action->bytes, record->data,
                            record->len, err);
}

void kiln_submitter_resubmit(struct kiln_submitter *submitter) {
    pthread_mutex_lock(&submitter->lock);
    for (struct flight *flight = submitter->flights; flight; flight = flight->next)
        if (!flight->done && flight->record.len)
            publish(submitter, &flight->action, &flight->record, NULL);
    pthread_mutex_unlock(&submitter->lock);
}

void kiln_submitter_give_up(struct kiln_submitter *submitter, const char *reason) {
    pthread_mutex_lock(&submitter->lock);
    for (struct flight *flight = submitter->flights; flight; flight = flight->next) {
        struct kiln_answer *answer = flight->done ? NULL : calloc(1, sizeof *answer);
        if (!answer)
            continue;
        answer->status = KILN_ANSWER_COMPILE_LOCALLY;
        answer->reasons = calloc(1, sizeof *answer->reasons);
        if (answer->reasons && (answer->reasons[0] = strdup(reason)))
            answer->reasons_count = 1;
        free_answer(flight->answer);
        flight->answer = answer;
    }
    pthread_cond_broadcast(&submitter->changed);
    pthread_mutex_unlock(&submitter->lock);
}

size_t kiln_submitter_waiting(struct kiln_submitter *submitter) {
    size_t count = 0;
    pthread_mutex_lock(&submitter->lock);
    for (const struct flight *flight = submitter->flights; flight; flight = flight->next)
        count += !flight->done;
    pthread_mutex_unlock(&submitter->lock);
    return count;
}

// Waits for a change until the deadline; call with the lock held. false when the deadline passed.
static bool wait_until(struct kiln_submitter *submitter, uint64_t deadline_ms) {
    struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&submitter->changed, &submitter->lock, &at) == 0 || kiln_clock_ms() < deadline_ms;
}

static int encode_submission(struct kiln_submitter *submitter, struct flight *flight, uint64_t deadline_ms,
                             struct kiln_err *err) {
    const struct kiln_submission *from = flight->submission;
    struct kiln_job_submitted record = {
        .job = flight->job, .tenant = (char *)TENANT, .agent = submitter->agent,
        .submitted_ms = kiln_clock_wall_ms(), .deadline_ms = deadline_ms - kiln_clock_ms(),
        .action_digest = from->action_digest, .action = (unsigned char *)from->action, .action_len = from->action_len,
        .contents = from->contents, .contents_count = from->contents_count,
        .closure = from->closure, .closure_count = from->closure_count, .build_id = (char *)from->build_id,
        .scope = (char *)TENANT,
    };
    struct kiln_buf encoded = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_job_submitted_encode(&record, &encoded, err);
    if (rc) {
        kiln_buf_release(&encoded);
        return rc;
    }
    pthread_mutex_lock(&submitter->lock);
    flight->record = encoded;
    pthread_mutex_unlock(&submitter->lock);
    return 0;
}

static const char *content_name(enum kiln_content_kind kind) {
    static const char *const names[] = {"blob", "pack", "list"};
    return names[kind];
}

static void format_job(const struct kiln_job_id *job, char hex[33]) {
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", job->bytes[i]);
}

static int upload_wanted(struct kiln_submitter *submitter, const struct flight *flight, const struct kiln_answer *answer,
                         struct kiln_err *err) {
    const struct kiln_submission *from = flight->submission;
    char job[33];
    format_job(&flight->job, job);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < answer->contents_count; i++) {
        char hex[KILN_DIGEST_HEX_LEN + 1], name[80];
        kiln_digest_format(&answer->contents[i].digest, hex);
        snprintf(name, sizeof name, "%s-%s", content_name(answer->contents[i].kind), hex);
        kiln_autofree char *key = kiln_key_quarantine_in(TENANT, submitter->agent, job, name);
        rc = key ? from->upload(from->context, &answer->contents[i], key, err) : kiln_fail(err, KILN_E_NOMEM, "upload");
    }
    if (rc)
        return kiln_wrap(err, rc, "upload inputs");
    const struct kiln_job_uploaded uploaded = {.job = flight->job, .action_digest = flight->action};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    rc = kiln_job_uploaded_encode(&uploaded, &record, err);
    return rc ? rc : publish(submitter, &flight->action, &record, err);
}

static void cancel(struct kiln_submitter *submitter, const struct flight *flight) {
    const struct kiln_job_cancelled cancelled = {.job = flight->job, .action_digest = flight->action};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    if (kiln_job_cancelled_encode(&cancelled, &record, NULL) == 0)
        publish(submitter, &flight->action, &record, NULL);
}

static int take_verdict(struct flight *flight, const struct kiln_answer *answer, struct kiln_err *err) {
    flight->verdict.status = answer->status;
    if (answer->status == KILN_ANSWER_RESULT) {
        flight->verdict.envelope = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
        return kiln_buf_add(&flight->verdict.envelope, answer->envelope, answer->envelope_len);
    }
    flight->verdict.reason = strdup(answer->reasons_count ? answer->reasons[0] : "no_reason: the verifier gave none");
    return flight->verdict.reason ? 0 : kiln_fail(err, KILN_E_NOMEM, "verdict");
}

// The owner's loop: publish, upload what is wanted, until there is a verdict.
static int fly(struct kiln_submitter *submitter, struct flight *flight, uint64_t deadline_ms, struct kiln_err *err) {
    int rc = encode_submission(submitter, flight, deadline_ms, err);
    if (rc == 0)
        rc = publish(submitter, &flight->action, &flight->record, err);
    while (rc == 0) {
        pthread_mutex_lock(&submitter->lock);
        while (!flight->answer && !submitter->stopping && rc == 0)
            if (!wait_until(submitter, deadline_ms))
                rc = kiln_fail(err, KILN_E_TIMEOUT, "no result in time");
        struct kiln_answer *answer = KILN_STEAL(flight->answer);
        if (!answer && rc == 0)
            rc = kiln_fail(err, KILN_E_CLOSED, "the bus has gone");
        pthread_mutex_unlock(&submitter->lock);
        if (rc) {
            cancel(submitter, flight);
            return rc;
        }
        bool wanted = answer->status == KILN_ANSWER_WANTED;
        rc = wanted ? upload_wanted(submitter, flight, answer, err) : take_verdict(flight, answer, err);
        free_answer(answer);
        if (!wanted)
            return rc;
    }
    return rc;
}

static void drop(struct kiln_submitter *submitter, struct flight *flight) { // with the lock held
    if (--flight->holders)
        return;
    struct flight **slot = &submitter->flights;
    while (*slot && *slot != flight)
        slot = &(*slot)->next;
    if (*slot)
        *slot = flight->next;
    free_answer(flight->answer);
    kiln_buf_release(&flight->record);
    kiln_verdict_release(&flight->verdict);
    free(flight);
}

static int copy_verdict(const struct flight *flight, bool shared, struct kiln_verdict *verdict, struct kiln_err *err) {
    struct kiln_verdict copy = {.status = flight->verdict.status, .envelope = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX),
                                .shared = shared, .executed = false};
    copy.reason = flight->verdict.reason ? strdup(flight->verdict.reason) : NULL;
    if (kiln_buf_add(&copy.envelope, flight->verdict.envelope.data, flight->verdict.envelope.len) ||
        (flight->verdict.reason && !copy.reason)) {
        kiln_verdict_release(&copy);
        return kiln_fail(err, KILN_E_NOMEM, "verdict");
    }
    *verdict = copy;
    return 0;
}

static struct flight *join_or_make(struct kiln_submitter *submitter, const struct kiln_submission *submission, bool *owner) {
    for (struct flight *flight = submitter->flights; flight; flight = flight->next)
        if (!flight->done && kiln_digest_equal(&flight->action, &submission->action_digest)) {
            flight->holders++;
            *owner = false;
            return flight;
        }
    struct flight *flight = calloc(1, sizeof *flight);
    if (!flight || getrandom(&flight->job, sizeof flight->job, 0) != sizeof flight->job) {
        free(flight);
        return NULL;
    }
    flight->action = submission->action_digest;
    flight->submission = submission;
    flight->holders = 1;
    flight->next = submitter->flights;
    submitter->flights = flight;
    *owner = true;
    return flight;
}

int kiln_submit(struct kiln_submitter *submitter, const struct kiln_submission *submission, uint64_t deadline_ms,
                struct kiln_verdict *verdict, struct kiln_err *err) {
    bool owner;
    pthread_mutex_lock(&submitter->lock);
    struct flight *flight = submitter->stopping ? NULL : join_or_make(submitter, submission, &owner);
    pthread_mutex_unlock(&submitter->lock);
    if (!flight)
        return kiln_fail(err, KILN_E_CLOSED, "the agent is stopping");
    int rc = owner ? fly(submitter, flight, deadline_ms, &flight->err) : 0;
    pthread_mutex_lock(&submitter->lock);
    if (owner) {
        flight->done = true;
        flight->rc = rc;
        pthread_cond_broadcast(&submitter->changed);
    }
    while (!flight->done && rc == 0)
        if (!wait_until(submitter, deadline_ms))
            rc = kiln_fail(&flight->err, KILN_E_TIMEOUT, "no result in time");
    if (rc == 0)
        rc = flight->rc;
    if (rc && err)
        *err = flight->err;
    if (rc == 0)
        rc = copy_verdict(flight, !owner, verdict, err);
    drop(submitter, flight);
    pthread_mutex_unlock(&submitter->lock);
    return rc;
}
