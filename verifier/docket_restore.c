#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "verifier/docket_parts.h"
#include "verifier/scope.h"

#define RESTORE_MS_MAX 30000u
#define FLIGHTS_MAX 65536u

// What kiln.state says of a partition.
struct restoration {
    struct kiln_docket *docket;
    uint32_t partition;
    struct kiln_state_flight *flights; // heap list; kept until all waiters are known
    size_t flights_count, flights_room;
    size_t waiters, refused;
};

static void release_restoration(struct restoration *restoration) {
    for (size_t i = 0; i < restoration->flights_count; i++)
        kiln_state_flight_release(&restoration->flights[i]);
    free(restoration->flights);
}

static int take_flight(struct restoration *restoration, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_state_flight_release) struct kiln_state_flight record = {0};
    int rc = kiln_state_flight_decode(bytes->value, bytes->value_len, &record, err);
    if (rc || restoration->flights_count >= FLIGHTS_MAX)
        return rc;
    if (restoration->flights_count == restoration->flights_room) {
        size_t room = restoration->flights_room ? 2 * restoration->flights_room : 64;
        struct kiln_state_flight *grown = realloc(restoration->flights, room * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "no memory for a partition's flights");
        restoration->flights = grown;
        restoration->flights_room = room;
    }
    restoration->flights[restoration->flights_count++] = record;
    record = (struct kiln_state_flight){0};
    return 0;
}

static uint64_t restored_until(const struct kiln_state_waiter *waiter, const struct kiln_job_submitted *record) {
    uint64_t end_ms = waiter->received_ms + record->deadline_ms, wall_ms = kiln_clock_wall_ms();
    return kiln_clock_ms() + (end_ms > wall_ms ? end_ms - wall_ms : 0);
}

static int add_waiter(struct restoration *restoration, const struct kiln_state_waiter *waiter,
                      struct kiln_job_submitted *record, struct kiln_action *action, struct kiln_err *err) {
    struct kiln_docket *docket = restoration->docket;
    struct kiln_author author = {.role = KILN_ROLE_OF_AGENT, .incarnation = waiter->incarnation};
    snprintf(author.principal, sizeof author.principal, "%s", waiter->principal);
    snprintf(author.tenant, sizeof author.tenant, "%s", waiter->tenant);
    uint64_t until_ms = restored_until(waiter, record);
    struct kiln_plan_key key = {.action = record->action_digest};
    snprintf(key.scope, sizeof key.scope, "%s", record->scope);
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &key);
    if (!sheet)
        sheet = kiln_sheets_add(&docket->sheets, &key, restoration->partition, action);
    struct kiln_submission_kept *submission = sheet ? kiln_sheet_add(sheet, record, &author) : NULL;
    if (!submission)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a submission");
    submission->restored = true;
    submission->until_ms = until_ms;
    restoration->waiters++;
    return 0;
}

static int take_waiter(struct restoration *restoration, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_state_waiter_release) struct kiln_state_waiter waiter = {0};
    kiln_auto(kiln_job_submitted_release) struct kiln_job_submitted record = {0};
    kiln_autoaction struct kiln_action action = {0};
    int rc = kiln_state_waiter_decode(bytes->value, bytes->value_len, &waiter, err);
    if (!rc)
        rc = kiln_job_submitted_decode(waiter.submission, waiter.submission_len, &record, err);
    if (!rc)
        rc = kiln_admit_form(&record, &action, err);
    if (!rc) // the list of public packages may be another than when it was taken
        rc = kiln_scope_check(&restoration->docket->authority, waiter.tenant, record.scope, &action, err);
    return rc ? rc : add_waiter(restoration, &waiter, &record, &action, err);
}

// What cannot be used goes where people look, and what cannot even be read goes away: the next owner would bury it again.
static int leave_behind(struct kiln_docket *docket, const struct kiln_record *bytes, int rc, const struct kiln_err *why) {
    bool unreadable = rc == KILN_E_CORRUPT || rc == KILN_E_INVAL || rc == KILN_E_LIMIT;
    char reason[sizeof why->text + 16];
    snprintf(reason, sizeof reason, "%s%s", unreadable ? "form: " : "", why->text);
    int buried = kiln_chronicle_bury(&docket->chronicle, bytes, reason, NULL);
    int gone = unreadable && !buried ? kiln_state_forget(&docket->state, bytes, NULL) : 0;
    return buried ? buried : kiln_docket_is_fatal(gone) ? gone : 0;
}

// One record of the state. The deadline of a waiter that cannot be used takes over.
static int visit(void *context, const struct kiln_record *bytes) {
    struct restoration *restoration = context;
    enum kiln_record_type type;
    struct kiln_err why = {0};
    restoration->refused += bytes->news == KILN_NEWS_REFUSED;
    if (!bytes->value_len || bytes->news != KILN_NEWS_RECORD)
        return 0;
    int rc = kiln_record_type_of(bytes->value, bytes->value_len, &type, &why);
    if (!rc && type == KILN_RECORD_state_waiter)
        rc = take_waiter(restoration, bytes, &why);
    else if (!rc && type == KILN_RECORD_state_flight)
        rc = take_flight(restoration, bytes, &why);
    else if (!rc)
        rc = kiln_fail(&why, KILN_E_CORRUPT, "a type that does not belong there");
    if (!rc || kiln_docket_is_fatal(rc))
        return rc;
    restoration->refused++;
    return leave_behind(restoration->docket, bytes, rc, &why);
}

static int restore_flight(struct kiln_docket *docket, const struct kiln_state_flight *flight, uint32_t partition,
                          struct kiln_err *err) {
    struct kiln_plan_key key = {.action = flight->action_digest};
    snprintf(key.scope, sizeof key.scope, "%s", flight->scope);
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &key);
    if (!sheet) { // nobody waits for it any more
        int rc = kiln_state_drop_flight(&docket->state, &key, flight->attempt, err);
        return rc == KILN_E_LIMIT ? 0 : rc;
    }
    sheet->attempts = flight->attempt > sheet->attempts ? flight->attempt : sheet->attempts;
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_RESTORE_FLIGHT, .key = key, .partition = partition, .attempt = flight->attempt,
        .troubles = flight->troubles, .job = flight->job, .agreement = kiln_docket_agreement(docket, key.scope),
        .executor = flight->executor, .pool = flight->pool, .incarnation = flight->incarnation,
        .until_ms = kiln_clock_ms() + docket->options.plan.lease_ms};
    return kiln_docket_step(docket, &event, NULL, err);
}

// Looks at all that was restored; the partition goes on after the last.
static int look_at_all(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err) {
    int rc = 0;
    size_t *pending = &docket->partitions[partition].pending;
    *pending = 1; // until all are under way
    for (size_t i = 0; !rc && i < KILN_SHEETS_BUCKETS; i++) {
        struct kiln_sheet *sheet;
        TAILQ_FOREACH(sheet, &docket->sheets.buckets[i], link) {
            if (rc || sheet->partition != partition || sheet->examined)
                continue;
            sheet->awaited = true;
            ++*pending;
            rc = kiln_docket_examine(docket, sheet, err); // a task: nothing is decided here
        }
    }
    struct kiln_sheet last = {.partition = partition, .awaited = true};
    return rc ? rc : kiln_docket_looked_at(docket, &last, err);
}

bool kiln_docket_is_restoring(const struct kiln_docket *docket, uint32_t partition) {
    return partition < KILN_PLAN_PARTITIONS_MAX && docket->partitions[partition].restoring;
}

int kiln_docket_defer(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack,
                      struct kiln_err *err) {
    struct kiln_deferred *deferred = calloc(1, sizeof *deferred);
    unsigned char *value = malloc(record->value_len + 1);
    if (!deferred || !value) {
        free(deferred);
        free(value);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a candidate");
    }
    memcpy(value, record->value, record->value_len);
    deferred->record = *record;
    deferred->record.value = value;
    deferred->ack = KILN_STEAL(*ack);
    TAILQ_INSERT_TAIL(&docket->deferred, deferred, link);
    return 0;
}

static struct kiln_deferred *next_deferred(const struct kiln_docket *docket, uint32_t partition) {
    struct kiln_deferred *deferred;
    TAILQ_FOREACH(deferred, &docket->deferred, link) {
        if (deferred->record.partition == partition)
            return deferred;
    }
    return NULL;
}

// It is out of the list then. The ack is the caller's, unless NULL.
static void free_deferred(struct kiln_docket *docket, struct kiln_deferred *deferred) {
    TAILQ_REMOVE(&docket->deferred, deferred, link);
    kiln_record_release(&deferred->record);
    free(deferred);
}

// The flights of the partition go on: now they take candidates.
static int take_deferred(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err) {
    int rc = 0;
    for (struct kiln_deferred *deferred; !rc && (deferred = next_deferred(docket, partition));) {
        rc = kiln_docket_on_candidate(docket, &deferred->record, &deferred->ack, err);
        struct kiln_ack *ack = KILN_STEAL(deferred->ack);
        free_deferred(docket, deferred);
        if (!rc && ack)
            rc = kiln_acks_done(&docket->acks, ack, err);
    }
    return rc;
}

int kiln_docket_looked_at(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    if (!sheet->awaited)
        return 0;
    sheet->awaited = false;
    uint32_t partition = sheet->partition;
    if (!docket->partitions[partition].restoring || --docket->partitions[partition].pending)
        return 0;
    docket->partitions[partition].restoring = false;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_RESTORED, .partition = partition};
    int rc = kiln_docket_step(docket, &event, NULL, err);
    return rc ? rc : take_deferred(docket, partition, err);
}

static int restore(struct restoration *restoration, struct kiln_err *err) {
    struct kiln_docket *docket = restoration->docket;
    int rc = kiln_bus_restore(docket->options.bus, restoration->partition, kiln_clock_ms() + RESTORE_MS_MAX, visit,
                              restoration, err);
    if (rc)
        return rc == KILN_E_UNSUPPORTED ? 0 : kiln_wrap(err, rc, "restore partition %u", restoration->partition);
    for (size_t i = 0; !rc && i < restoration->flights_count; i++)
        rc = restore_flight(docket, &restoration->flights[i], restoration->partition, err);
    char detail[160];
    snprintf(detail, sizeof detail, "partition %u: %zu waiters, %zu runs, %zu refused", restoration->partition,
             restoration->waiters, restoration->flights_count, restoration->refused);
    return rc || !(restoration->waiters || restoration->refused)
               ? rc
               : kiln_chronicle_tell(&docket->chronicle, "info", "restored", docket->options.principal, detail, err);
}

int kiln_docket_gain(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err) {
    if (partition >= KILN_PLAN_PARTITIONS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "partition %u is more than can be served", partition);
    kiln_auto(release_restoration) struct restoration restoration = {.docket = docket, .partition = partition};
    const struct kiln_plan_event event = {.kind = KILN_PLAN_GAINED, .partition = partition};
    docket->partitions[partition].restoring = true;
    int rc = kiln_docket_step(docket, &event, NULL, err);
    if (!rc)
        rc = restore(&restoration, err);
    return rc ? rc : look_at_all(docket, partition, err);
}

void kiln_docket_forget(struct kiln_docket *docket, uint32_t partition) {
    kiln_acks_lose(&docket->acks, partition);
    for (struct kiln_deferred *deferred; (deferred = next_deferred(docket, partition));) {
        kiln_acks_done(&docket->acks, deferred->ack, NULL); // lost: the record is another's
        free_deferred(docket, deferred);
    }
    for (size_t i = 0; i < KILN_SHEETS_BUCKETS; i++) {
        struct kiln_sheet *sheet, *next;
        for (sheet = TAILQ_FIRST(&docket->sheets.buckets[i]); sheet; sheet = next) {
            struct kiln_run_kept *run;
            next = TAILQ_NEXT(sheet, link);
            if (sheet->partition != partition)
                continue;
            TAILQ_FOREACH(run, &sheet->runs, link) {
                struct kiln_ack *ack = KILN_STEAL(run->ack);
                if (ack)
                    kiln_acks_done(&docket->acks, ack, NULL); // lost: the record is another's
            }
            kiln_sheets_drop(&docket->sheets, sheet);
        }
    }
}

int kiln_docket_lose(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err) {
    if (partition >= KILN_PLAN_PARTITIONS_MAX)
        return 0;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_LOST, .partition = partition};
    char number[16];
    snprintf(number, sizeof number, "%u", partition);
    kiln_log(KILN_LOG_INFO, "partition_lost", "partition", number, NULL);
    docket->partitions[partition].restoring = false;
    docket->partitions[partition].pending = 0;
    kiln_docket_forget(docket, partition); // before the plan lets go: the state is the next owner's
    return kiln_docket_step(docket, &event, NULL, err);
}
