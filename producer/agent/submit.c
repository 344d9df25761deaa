#include "producer/agent/submit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define POLL_MS 500
#define TROUBLE_MS 200 // pause after a failed poll
#define ORPHANS_MAX 256u

// One submission in flight. The first caller with an action owns it; others wait for its verdict.
struct flight {
    struct kiln_job_id job;
    struct kiln_digest action;
    const struct kiln_submission *submission; // of the owner, valid while it waits
    struct kiln_buf record;                   // the encoded submission, for sending it again
    struct kiln_answer *answer;               // the newest, taken by the owner
    bool accepted; // a verifier has it
    bool done;
    int rc; // of the owner, for those who share
    struct kiln_err err;
    struct kiln_verdict verdict;
    unsigned holders;
    uint64_t began_ms, orphan_until_ms; // 0: somebody waits for it
    char *scope;
    struct flight *next;
};

struct kiln_submitter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t reader;
    struct kiln_bus *bus;
    char *agent, *tenant;
    struct kiln_submitter_options options;
    struct flight *flights;
    size_t orphans;
    uint64_t heard_ms, unreadable; // answers that are none
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

static int publish(struct kiln_submitter *submitter, const struct kiln_digest *action, const struct kiln_buf *record,
                   struct kiln_err *err) {
    return kiln_bus_publish(submitter->bus, KILN_TOPIC_JOBS, kiln_bus_partition_of(submitter->bus, action), action->bytes,
                            sizeof action->bytes, record->data, record->len, err);
}

static void free_flight(struct flight *flight) {
    free_answer(flight->answer);
    kiln_buf_release(&flight->record);
    kiln_verdict_release(&flight->verdict);
    free(flight->scope);
    free(flight);
}

static void unlink_flight(struct kiln_submitter *submitter, struct flight *flight) { // with the lock held
    struct flight **slot = &submitter->flights;
    while (*slot && *slot != flight)
        slot = &(*slot)->next;
    if (*slot)
        *slot = flight->next;
    if (flight->orphan_until_ms)
        submitter->orphans--;
}

static void cancel(struct kiln_submitter *submitter, const struct flight *flight) {
    const struct kiln_job_cancelled cancelled = {.job = flight->job, .action_digest = flight->action};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    if (kiln_job_cancelled_encode(&cancelled, &record, NULL) == 0)
        publish(submitter, &flight->action, &record, NULL);
}

// The end of an orphan, which is no longer in the list.
static void bury(struct kiln_submitter *submitter, struct flight *orphan, const struct kiln_answer *answer) {
    if (answer && answer->status == KILN_ANSWER_RESULT) {
        const struct kiln_late_result late = {.action = &orphan->action, .scope = orphan->scope,
                                              .envelope = answer->envelope, .len = answer->envelope_len,
                                              .submission = orphan->record.data, .submission_len = orphan->record.len,
                                              .waited_ms = kiln_clock_ms() - orphan->began_ms};
        submitter->options.late(submitter->options.context, &late);
    } else if (answer && answer->status == KILN_ANSWER_WANTED) {
        cancel(submitter, orphan); // its files are no longer at hand
    }
    free_flight(orphan);
}

static bool is_for(const struct flight *flight, const struct kiln_answer *answer) {
    for (size_t i = 0; i < answer->jobs_count; i++)
        if (!memcmp(&flight->job, &answer->jobs[i], sizeof flight->job))
            return kiln_digest_equal(&flight->action, &answer->action_digest);
    return false;
}

// Takes the flights that the answer is for: the one that waits gets the answer, orphans are given in a list.
static struct flight *hand_out(struct kiln_submitter *submitter, struct kiln_answer **kept) { // with the lock held
    struct flight *orphans = NULL;
    for (struct flight *flight = submitter->flights, *next; flight; flight = next) {
        next = flight->next;
        if (!*kept || !is_for(flight, *kept))
            continue;
        flight->accepted = true;
        if ((*kept)->status == KILN_ANSWER_ACCEPTED) {
            pthread_cond_broadcast(&submitter->changed);
        } else if (flight->orphan_until_ms) {
            unlink_flight(submitter, flight);
            flight->next = orphans;
            orphans = flight;
        } else if (!flight->done) {
            free_answer(flight->answer);
            flight->answer = KILN_STEAL(*kept);
            pthread_cond_broadcast(&submitter->changed);
        }
    }
    return orphans;
}

static void deliver(struct kiln_submitter *submitter, const struct kiln_record *record) {
    struct kiln_answer *kept = calloc(1, sizeof *kept);
    bool readable = kept && kiln_answer_decode(record->value, record->value_len, kept, NULL) == 0;
    pthread_mutex_lock(&submitter->lock);
    if (!readable) {
        submitter->unreadable++;
        pthread_mutex_unlock(&submitter->lock);
        free(kept);
        return;
    }
    submitter->heard_ms = kiln_clock_ms();
    struct flight *orphans = hand_out(submitter, &kept);
    pthread_mutex_unlock(&submitter->lock);
    for (struct flight *next; orphans; orphans = next) {
        next = orphans->next;
        bury(submitter, orphans, kept);
    }
    free_answer(kept);
}

static void sweep_orphans(struct kiln_submitter *submitter) {
    uint64_t now_ms = kiln_clock_ms();
    pthread_mutex_lock(&submitter->lock);
    for (struct flight *flight = submitter->flights, *next; submitter->orphans && flight; flight = next) {
        next = flight->next;
        if (!flight->orphan_until_ms || now_ms < flight->orphan_until_ms)
            continue;
        unlink_flight(submitter, flight);
        free_flight(flight);
    }
    pthread_mutex_unlock(&submitter->lock);
}

// Waits for a change until the deadline; call with the lock held. false when the deadline passed.
static bool wait_until(struct kiln_submitter *submitter, uint64_t deadline_ms) {
    struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&submitter->changed, &submitter->lock, &at) == 0 || kiln_clock_ms() < deadline_ms;
}

static bool is_stopping(struct kiln_submitter *submitter, uint64_t pause_ms) {
    pthread_mutex_lock(&submitter->lock);
    for (uint64_t until_ms = kiln_clock_ms() + pause_ms; pause_ms && !submitter->stopping && wait_until(submitter, until_ms);)
        continue;
    bool stopping = submitter->stopping;
    pthread_mutex_unlock(&submitter->lock);
    return stopping;
}

static void take_record(struct kiln_submitter *submitter, const struct kiln_record *record) {
    if (record->news == KILN_NEWS_RECORD && record->author.role == KILN_ROLE_OF_VERIFIER)
        deliver(submitter, record);
    kiln_bus_ack(submitter->bus, record, NULL);
}

static void *read_results(void *argument) {
    struct kiln_submitter *submitter = argument;
    uint64_t pause_ms = 0;
    while (!is_stopping(submitter, pause_ms)) {
        struct kiln_record record = {0};
        struct kiln_err err = {0};
        int rc = kiln_bus_poll(submitter->bus, kiln_clock_ms() + POLL_MS, &record, &err);
        sweep_orphans(submitter);
        pause_ms = rc && rc != KILN_E_TIMEOUT && err.retriable ? TROUBLE_MS : 0;
        if (rc == KILN_E_TIMEOUT || pause_ms)
            continue;
        if (rc) {
            pthread_mutex_lock(&submitter->lock);
            submitter->stopping = true;
            pthread_cond_broadcast(&submitter->changed);
            pthread_mutex_unlock(&submitter->lock);
            return NULL;
        }
        take_record(submitter, &record);
        kiln_record_release(&record);
    }
    return NULL;
}

static int init(struct kiln_submitter *submitter, const struct kiln_submitter_options *options, struct kiln_err *err) {
    submitter->options = *options;
    submitter->agent = strdup(options->agent);
    submitter->tenant = strdup(options->tenant);
    return submitter->agent && submitter->tenant ? 0 : kiln_fail(err, KILN_E_NOMEM, "submitter");
}

static int start_reading(struct kiln_submitter *submitter, struct kiln_bus *bus, struct kiln_err *err) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&submitter->lock, NULL);
    pthread_cond_init(&submitter->changed, &attr);
    pthread_condattr_destroy(&attr);
    submitter->bus = bus;
    return pthread_create(&submitter->reader, NULL, read_results, submitter)
               ? kiln_fail(err, KILN_E_NOMEM, "start the results thread") : 0;
}

int kiln_submitter_new(struct kiln_bus *bus, const struct kiln_submitter_options *options, struct kiln_submitter **out,
                       struct kiln_err *err) {
    struct kiln_submitter *submitter = calloc(1, sizeof *submitter);
    const struct kiln_bus_subscription results = {.topic = KILN_TOPIC_RESULTS, .from_end = true};
    int rc = submitter ? init(submitter, options, err) : kiln_fail(err, KILN_E_NOMEM, "submitter");
    if (rc == 0)
        rc = kiln_bus_subscribe(bus, &results, 1, err);
    if (rc == 0)
        rc = start_reading(submitter, bus, err);
    if (rc) {
        if (submitter) {
            free(submitter->agent);
            free(submitter->tenant);
        }
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
    for (struct flight *flight = submitter->flights, *next; flight; flight = next) {
        next = flight->next;
        free_flight(flight); // orphans: nobody waits any more
    }
    pthread_cond_destroy(&submitter->changed);
    pthread_mutex_destroy(&submitter->lock);
    free(submitter->agent);
    free(submitter->tenant);
    free(submitter);
}

uint64_t kiln_submitter_heard_ms(struct kiln_submitter *submitter) {
    pthread_mutex_lock(&submitter->lock);
    uint64_t heard_ms = submitter->heard_ms;
    pthread_mutex_unlock(&submitter->lock);
    return heard_ms;
}

uint64_t kiln_submitter_refused(struct kiln_submitter *submitter, char why[KILN_BUS_WHY_BYTES]) {
    uint64_t refused = kiln_bus_refused(submitter->bus, why);
    pthread_mutex_lock(&submitter->lock);
    refused += submitter->unreadable;
    pthread_mutex_unlock(&submitter->lock);
    return refused;
}

int kiln_submitter_healthy(struct kiln_submitter *submitter, struct kiln_err *err) {
    return kiln_bus_healthy(submitter->bus, err);
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

static int encode_submission(struct kiln_submitter *submitter, struct flight *flight, uint64_t deadline_ms,
                             struct kiln_err *err) {
    const struct kiln_submission *from = flight->submission;
    struct kiln_job_submitted record = {
        .job = flight->job, .tenant = submitter->tenant, .agent = submitter->agent,
        .waiter_partition = submitter->options.waiter_partition,
        .submitted_ms = kiln_clock_wall_ms(),
        .deadline_ms = deadline_ms - kiln_clock_ms() + submitter->options.late_ms, // an orphan waits on
        .action_digest = from->action_digest, .action = (unsigned char *)from->action, .action_len = from->action_len,
        .contents = from->contents, .contents_count = from->contents_count,
        .closure = from->closure, .closure_count = from->closure_count, .build_id = (char *)from->build_id,
        .scope = (char *)from->scope,
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

struct keys {
    char **keys;
    size_t count;
};

static void release_keys(struct keys *keys) {
    for (size_t i = 0; i < keys->count; i++)
        free(keys->keys[i]);
    free(keys->keys);
}

static int name_contents(const struct kiln_submitter *submitter, const struct flight *flight, const struct kiln_answer *answer,
                         struct keys *keys, struct kiln_err *err) {
    char job[33];
    format_job(&flight->job, job);
    if (!(keys->keys = calloc(answer->contents_count + 1, sizeof *keys->keys)))
        return kiln_fail(err, KILN_E_NOMEM, "upload");
    for (size_t i = 0; i < answer->contents_count; i++) {
        char hex[KILN_DIGEST_HEX_LEN + 1], name[80];
        kiln_digest_format(&answer->contents[i].digest, hex);
        snprintf(name, sizeof name, "%s-%s", content_name(answer->contents[i].kind), hex);
        keys->keys[keys->count] = kiln_key_quarantine_in(submitter->tenant, submitter->agent, job, name);
        if (!keys->keys[keys->count++])
            return kiln_fail(err, KILN_E_NOMEM, "upload");
    }
    return 0;
}

static int upload_wanted(struct kiln_submitter *submitter, const struct flight *flight, const struct kiln_answer *answer,
                         struct kiln_err *err) {
    const struct kiln_submission *from = flight->submission;
    kiln_auto(release_keys) struct keys keys = {0};
    int rc = name_contents(submitter, flight, answer, &keys, err);
    if (rc == 0)
        rc = from->upload(from->context, answer->contents, keys.keys, keys.count, err);
    if (rc == KILN_E_UNSUPPORTED) // it begins with its reason's word
        return rc;
    if (rc)
        return kiln_wrap(err, rc, "upload inputs");
    const struct kiln_job_uploaded uploaded = {.job = flight->job, .action_digest = flight->action};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    rc = kiln_job_uploaded_encode(&uploaded, &record, err);
    return rc ? rc : publish(submitter, &flight->action, &record, err);
}

static int take_verdict(struct flight *flight, const struct kiln_answer *answer, struct kiln_err *err) {
    flight->verdict.status = answer->status;
    flight->verdict.executed = !memcmp(&answer->executed, &flight->job, sizeof flight->job);
    if (answer->status == KILN_ANSWER_RESULT) {
        flight->verdict.envelope = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
        return kiln_buf_add(&flight->verdict.envelope, answer->envelope, answer->envelope_len);
    }
    flight->verdict.reason = strdup(answer->reasons_count ? answer->reasons[0] : "no_reason: the verifier gave none");
    return flight->verdict.reason ? 0 : kiln_fail(err, KILN_E_NOMEM, "verdict");
}

// Waits for the next answer; with the lock held.
static int await_answer(struct kiln_submitter *submitter, const struct flight *flight, uint64_t deadline_ms, struct kiln_err *err) {
    const uint64_t silence_ms = submitter->options.silence_ms, silent_at_ms = flight->began_ms + silence_ms;
    while (!flight->answer && !submitter->stopping) {
        bool bounded = silence_ms && !flight->accepted && silent_at_ms < deadline_ms;
        if (wait_until(submitter, bounded ? silent_at_ms : deadline_ms) || (bounded && flight->accepted))
            continue;
        return bounded ? kiln_fail(err, KILN_E_TIMEOUT, "fleet_silent: no verifier took the job within %llu ms",
                                   (unsigned long long)silence_ms)
                       : kiln_fail(err, KILN_E_TIMEOUT, "no result in time");
    }
    return 0;
}

// The owner's loop: publish, upload what is wanted, until there is a verdict.
static int fly(struct kiln_submitter *submitter, struct flight *flight, uint64_t deadline_ms, struct kiln_err *err) {
    int rc = encode_submission(submitter, flight, deadline_ms, err);
    if (rc == 0)
        rc = publish(submitter, &flight->action, &flight->record, err);
    while (rc == 0) {
        pthread_mutex_lock(&submitter->lock);
        rc = await_answer(submitter, flight, deadline_ms, err);
        struct kiln_answer *answer = KILN_STEAL(flight->answer);
        if (!answer && rc == 0)
            rc = kiln_fail(err, KILN_E_CLOSED, "the bus has gone");
        pthread_mutex_unlock(&submitter->lock);
        if (rc) {
            if (rc != KILN_E_TIMEOUT || !submitter->options.late)
                cancel(submitter, flight);
            return rc;
        }
        bool wanted = answer->status == KILN_ANSWER_WANTED;
        rc = wanted ? upload_wanted(submitter, flight, answer, err) : take_verdict(flight, answer, err);
        if (rc)
            cancel(submitter, flight);
        free_answer(answer);
        if (!wanted)
            return rc;
    }
    return rc;
}

static void drop(struct kiln_submitter *submitter, struct flight *flight) { // with the lock held
    if (--flight->holders)
        return;
    if (flight->rc == KILN_E_TIMEOUT && submitter->options.late && submitter->orphans < ORPHANS_MAX && !submitter->stopping) {
        flight->orphan_until_ms = kiln_clock_ms() + submitter->options.late_ms;
        submitter->orphans++;
        return;
    }
    unlink_flight(submitter, flight);
    free_flight(flight);
}

static int copy_verdict(const struct flight *flight, bool shared, struct kiln_verdict *verdict, struct kiln_err *err) {
    struct kiln_verdict copy = {.status = flight->verdict.status, .envelope = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX),
                                .shared = shared, .executed = flight->verdict.executed && !shared,
                                .waited_ms = kiln_clock_ms() - flight->began_ms};
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
    if (!flight || !(flight->scope = strdup(submission->scope)) ||
        getrandom(&flight->job, sizeof flight->job, 0) != sizeof flight->job) {
        if (flight)
            free(flight->scope);
        free(flight);
        return NULL;
    }
    flight->began_ms = kiln_clock_ms();
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
