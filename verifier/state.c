#include "verifier/state.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "verifier/chronicle.h"

#define WAITER_KEY_BYTES 48u
#define FLIGHT_KEY_BYTES 64u
_Static_assert(FLIGHT_KEY_BYTES <= KILN_BUS_KEY_BYTES_MAX, "a key of the state topic is too long for the bus");

static void format_waiter_key(const struct kiln_digest *action, const struct kiln_job_id *job,
                              unsigned char key[WAITER_KEY_BYTES]) {
    memcpy(key, action->bytes, sizeof action->bytes);
    memcpy(key + sizeof action->bytes, job->bytes, sizeof job->bytes);
}

static void format_flight_key(const struct kiln_plan_key *flight, uint32_t attempt, unsigned char key[FLIGHT_KEY_BYTES]) {
    struct kiln_digest run;
    char name[KILN_PLAN_NAME_MAX + 16];
    int len = snprintf(name, sizeof name, "%s %u", flight->scope, attempt);
    kiln_digest_of(name, (size_t)len, &run);
    memcpy(key, flight->action.bytes, sizeof flight->action.bytes);
    memcpy(key + sizeof flight->action.bytes, run.bytes, sizeof run.bytes);
}

int kiln_state_forget(struct kiln_state *state, const struct kiln_record *record, struct kiln_err *err) {
    const struct kiln_buf nothing = {0};
    return state->kept ? kiln_chronicle_publish(state->bus, KILN_TOPIC_STATE, record->partition, record->key, record->key_len,
                                                &nothing, err)
                       : 0;
}

static int publish(struct kiln_state *state, const struct kiln_digest *action, const unsigned char *key, size_t key_len,
                   const struct kiln_buf *record, struct kiln_err *err) {
    return kiln_chronicle_publish(state->bus, KILN_TOPIC_STATE, kiln_bus_partition_of(state->bus, action), key, key_len,
                                  record, err);
}

int kiln_state_put_waiter(struct kiln_state *state, const struct kiln_author *author, const struct kiln_digest *action,
                          const struct kiln_job_id *job, const void *framed, size_t len, struct kiln_err *err) {
    if (!state->kept)
        return 0;
    const struct kiln_state_waiter waiter = {
        .tenant = (char *)(uintptr_t)author->tenant, .principal = (char *)(uintptr_t)author->principal,
        .incarnation = author->incarnation, .received_ms = kiln_clock_wall_ms(),
        .submission = (unsigned char *)(uintptr_t)framed, .submission_len = len};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_state_waiter_encode(&waiter, &record, err);
    if (rc == KILN_E_LIMIT || rc == KILN_E_INVAL)
        return kiln_fail(err, KILN_E_DENIED, "too_large: a submission of %zu bytes cannot be kept", len);
    unsigned char key[WAITER_KEY_BYTES];
    format_waiter_key(action, job, key);
    return rc ? rc : publish(state, action, key, sizeof key, &record, err);
}

int kiln_state_drop_waiter(struct kiln_state *state, const struct kiln_digest *action, const struct kiln_job_id *job,
                           struct kiln_err *err) {
    const struct kiln_buf nothing = {0};
    unsigned char key[WAITER_KEY_BYTES];
    format_waiter_key(action, job, key);
    return state->kept ? publish(state, action, key, sizeof key, &nothing, err) : 0;
}

int kiln_state_put_flight(struct kiln_state *state, const struct kiln_state_flight_note *note, struct kiln_err *err) {
    if (!state->kept)
        return 0;
    const struct kiln_state_flight flight = {
        .action_digest = note->key->action, .scope = (char *)(uintptr_t)note->key->scope, .attempt = note->attempt,
        .troubles = note->troubles, .job = *note->job, .incarnation = *note->incarnation,
        .executor = (char *)(uintptr_t)note->executor, .pool = (char *)(uintptr_t)note->pool,
        .dispatched_ms = kiln_clock_wall_ms()};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    unsigned char key[FLIGHT_KEY_BYTES];
    int rc = kiln_state_flight_encode(&flight, &record, err);
    format_flight_key(note->key, note->attempt, key);
    return rc ? rc : publish(state, &note->key->action, key, sizeof key, &record, err);
}

int kiln_state_drop_flight(struct kiln_state *state, const struct kiln_plan_key *key, uint32_t attempt,
                           struct kiln_err *err) {
    const struct kiln_buf nothing = {0};
    unsigned char bytes[FLIGHT_KEY_BYTES];
    format_flight_key(key, attempt, bytes);
    return state->kept ? publish(state, &key->action, bytes, sizeof bytes, &nothing, err) : 0;
}
