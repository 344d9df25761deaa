#include "verifier/docket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "verifier/docket_parts.h"
#include "verifier/identity.h"

#define THREADS_DEFAULT 4u
#define LOOK_MS 1000u // between two looks at the trust record

void kiln_docket_log(enum kiln_log_level level, const char *event, const struct kiln_job_id *job,
                     const struct kiln_digest *action, const char *detail) {
    char job_hex[33], action_hex[KILN_DIGEST_HEX_LEN + 1];
    if (!kiln_log_enabled(level))
        return;
    for (size_t i = 0; i < sizeof job->bytes; i++)
        snprintf(job_hex + 2 * i, 3, "%02x", job->bytes[i]);
    kiln_digest_format(action, action_hex);
    if (detail)
        kiln_log(level, event, "job", job_hex, "action", action_hex, "detail", detail, NULL);
    else
        kiln_log(level, event, "job", job_hex, "action", action_hex, NULL);
}

struct kiln_admit kiln_docket_admit(const struct kiln_docket *docket, const struct kiln_sheet *sheet) {
    return (struct kiln_admit){.store = docket->options.store, .scope = sheet->key.scope,
                               .scratch_dir = docket->options.scratch_dir};
}

uint32_t kiln_docket_agreement(const struct kiln_docket *docket, const char *scope) {
    uint32_t asked = strcmp(scope, KILN_SCOPE_PUBLIC) == 0 ? docket->options.agreement_public
                                                           : docket->options.agreement_tenant;
    return asked ? asked : 1;
}

int kiln_docket_refuse(struct kiln_docket *docket, const struct kiln_author *author, const char *reason,
                       struct kiln_err *err) {
    static const char *const alarming[] = {"wrong_", "job_taken", "attestation", "misplaced", "signature", "replayed"};
    const char *severity = "warn";
    for (size_t i = 0; i < sizeof alarming / sizeof *alarming; i++) {
        if (strncmp(reason, alarming[i], strlen(alarming[i])) == 0)
            severity = "alert";
    }
    docket->counts.refused++;
    return kiln_chronicle_tell(&docket->chronicle, severity, reason, author->principal, reason, err);
}

struct sweep {
    struct kiln_task task;
    struct kiln_store *store;
    char *key; // or what it begins with
    bool whole;
};

static void run_sweep(struct kiln_task *task) {
    struct sweep *sweep = (struct sweep *)task;
    if (sweep->whole)
        kiln_store_remove(sweep->store, KILN_SPACE_QUARANTINE, sweep->key, NULL);
    else
        kiln_store_remove_below(sweep->store, KILN_SPACE_QUARANTINE, sweep->key, NULL);
}

static int finish_sweep(struct kiln_task *task, void *context, struct kiln_err *err) {
    struct sweep *sweep = (struct sweep *)task;
    (void)context;
    (void)err;
    free(sweep->key);
    free(sweep);
    return 0;
}

static int sweep(struct kiln_docket *docket, char *key, bool whole, struct kiln_err *err) {
    struct sweep *sweep = key ? calloc(1, sizeof *sweep) : NULL;
    if (!sweep) {
        free(key);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a sweep");
    }
    *sweep = (struct sweep){.task = {.kind = KILN_TASK_BULK, .run = run_sweep, .finish = finish_sweep},
                            .store = docket->options.store, .key = key, .whole = whole};
    kiln_crew_give(docket->crew, &sweep->task);
    return 0;
}

int kiln_docket_sweep(struct kiln_docket *docket, char *prefix, struct kiln_err *err) { return sweep(docket, prefix, false, err); }

int kiln_docket_sweep_outputs(struct kiln_docket *docket, const struct kiln_candidate *candidate, struct kiln_err *err) {
    const struct kiln_digest any = {{0}};
    if (kiln_store_wants_bundles(docket->options.store))
        return sweep(docket, kiln_candidate_bundle_key(candidate), true, err);
    char *prefix = kiln_candidate_key(candidate, &any);
    if (prefix)
        *strrchr(prefix, '/') = 0;
    return sweep(docket, prefix, false, err);
}

static int close_run(struct kiln_docket *docket, struct kiln_run_kept *run, struct kiln_err *err) {
    struct kiln_ack *ack = KILN_STEAL(run->ack);
    if (!ack)
        return 0;
    if (ack->lost)
        return kiln_acks_done(&docket->acks, ack, err); // another verifier judges it
    int rc = kiln_docket_sweep_outputs(docket, &run->candidate, err);
    int acked = kiln_acks_done(&docket->acks, ack, rc ? NULL : err);
    return rc ? rc : acked;
}

int kiln_docket_close_sheet(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    struct kiln_run_kept *run;
    int rc = 0;
    for (uint32_t attempt = 1; !rc && attempt <= sheet->attempts; attempt++)
        rc = kiln_state_drop_flight(&docket->state, &sheet->key, attempt, err);
    TAILQ_FOREACH(run, &sheet->runs, link) {
        if (!rc)
            rc = close_run(docket, run, err);
    }
    kiln_sheets_drop(&docket->sheets, sheet);
    return rc == KILN_E_LIMIT ? 0 : rc; // a tombstone that finds no room costs a look after the next restart
}

// Nobody could make anything of the flight: its inputs and its end go where people look.
static int bury_job(struct kiln_docket *docket, const struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                    struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    int rc = sheet->basis ? kiln_job_submitted_encode(&sheet->basis->record, &bytes, &why) : 0;
    if (rc == KILN_E_NOMEM)
        return kiln_fail(err, rc, "%s", why.text);
    struct kiln_record record = {.topic = KILN_TOPIC_JOBS, .partition = sheet->partition,
                                 .offset = sheet->basis ? sheet->basis->offset : 0, .value = bytes.data,
                                 .value_len = bytes.len, .key_len = sizeof sheet->key.action.bytes};
    memcpy(record.key, sheet->key.action.bytes, record.key_len);
    rc = kiln_chronicle_bury(&docket->chronicle, &record, action->reason ? action->reason : "dead_job", err);
    return rc ? rc
              : kiln_chronicle_tell(&docket->chronicle, "warn", "dead_job", sheet->key.scope,
                                    action->reason ? action->reason : "", err);
}

static int answer(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                  struct kiln_err *err) {
    bool stored = action->verdict == KILN_PLAN_STORED;
    docket->counts.locally += stored ? 0 : action->jobs_count;
    return kiln_docket_answer_jobs(docket, sheet, action->jobs, action->jobs_count,
                                   stored ? KILN_ANSWER_RESULT : KILN_ANSWER_COMPILE_LOCALLY, action->reason, err);
}

static int carry_out(struct kiln_docket *docket, const struct kiln_plan_action *action,
                     const struct kiln_occasion *occasion, struct kiln_err *err) {
    if (action->kind == KILN_PLAN_DISCARD)
        return kiln_docket_discard(docket, action, occasion, err);
    if (action->kind == KILN_PLAN_DEMAND)
        return kiln_docket_demand(docket, action, err);
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &action->key);
    if (!sheet)
        return 0;
    switch (action->kind) {
    case KILN_PLAN_WANT: return kiln_docket_want(docket, sheet, &action->jobs[0], err);
    case KILN_PLAN_REFUSE:
        return kiln_docket_answer_jobs(docket, sheet, action->jobs, 1, KILN_ANSWER_REJECTED, action->reason, err);
    case KILN_PLAN_DISPATCH: return kiln_docket_dispatch(docket, sheet, action, err);
    case KILN_PLAN_JUDGE: return kiln_docket_judge(docket, sheet, occasion, err);
    case KILN_PLAN_CHECK: return kiln_docket_check(docket, sheet, err);
    case KILN_PLAN_STORE: return kiln_docket_store(docket, sheet, action, err);
    case KILN_PLAN_DIVERGED: return kiln_docket_diverged(docket, action, err);
    case KILN_PLAN_DEAD: return bury_job(docket, sheet, action, err);
    case KILN_PLAN_ANSWER: return answer(docket, sheet, action, err);
    case KILN_PLAN_RELEASE: return kiln_docket_close_sheet(docket, sheet, err);
    case KILN_PLAN_DISCARD:
    case KILN_PLAN_DEMAND: break;
    }
    return 0;
}

int kiln_docket_step(struct kiln_docket *docket, const struct kiln_plan_event *event, const struct kiln_occasion *occasion,
                     struct kiln_err *err) {
    kiln_auto(kiln_plan_actions_release) struct kiln_plan_actions actions = {0};
    int rc = kiln_plan_step(docket->plan, event, kiln_clock_ms(), &actions, err);
    for (size_t i = 0; !rc && i < actions.count; i++)
        rc = carry_out(docket, &actions.list[i], occasion, err);
    return rc;
}

static int on_candidate(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack,
                        struct kiln_err *err) {
    return kiln_docket_on_candidate(docket, record, ack, err);
}

#define PLAIN_TAKER(name)                                                                                              \
    static int name(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack,               \
                    struct kiln_err *err) {                                                                            \
        (void)ack;                                                                                                     \
        return kiln_docket_##name(docket, record, err);                                                                \
    }
PLAIN_TAKER(on_submitted)
PLAIN_TAKER(on_uploaded)
PLAIN_TAKER(on_cancelled)
PLAIN_TAKER(on_credit)
PLAIN_TAKER(on_lease)
PLAIN_TAKER(on_decline)

// A record type belongs on one topic: nobody may say on one what only the writers of another may.
static const struct {
    enum kiln_record_type type;
    enum kiln_topic topic;
    int (*take)(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack, struct kiln_err *err);
} takers[] = {
    {KILN_RECORD_job_submitted, KILN_TOPIC_JOBS, on_submitted},
    {KILN_RECORD_job_uploaded, KILN_TOPIC_JOBS, on_uploaded},
    {KILN_RECORD_job_cancelled, KILN_TOPIC_JOBS, on_cancelled},
    {KILN_RECORD_credit, KILN_TOPIC_CREDITS, on_credit},
    {KILN_RECORD_lease, KILN_TOPIC_LEASES, on_lease},
    {KILN_RECORD_decline, KILN_TOPIC_LEASES, on_decline},
    {KILN_RECORD_candidate, KILN_TOPIC_CANDIDATES, on_candidate},
};

// What cannot be read, or does not belong there.
static int bury(struct kiln_docket *docket, const struct kiln_record *record, const char *reason, struct kiln_err *err) {
    int rc = kiln_chronicle_bury(&docket->chronicle, record, reason, err);
    return rc ? rc : kiln_docket_refuse(docket, &record->author, reason, err);
}

static int take_record(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack,
                       struct kiln_err *err) {
    enum kiln_record_type type;
    struct kiln_err why = {0};
    if (record->news == KILN_NEWS_REFUSED)
        return bury(docket, record, record->why ? record->why : "refused", err);
    int rc = kiln_record_type_of(record->value, record->value_len, &type, &why);
    for (size_t i = 0; !rc && i < sizeof takers / sizeof *takers; i++) {
        if (takers[i].type != type || takers[i].topic != record->topic)
            continue;
        rc = takers[i].take(docket, record, ack, &why);
        if (rc == KILN_E_CORRUPT || rc == KILN_E_INVAL || rc == KILN_E_LIMIT)
            break;
        if (rc && err)
            *err = why;
        return rc;
    }
    char reason[sizeof why.text + 16];
    snprintf(reason, sizeof reason, "form: %s", rc ? why.text : "a type that does not belong there");
    return bury(docket, record, reason, err);
}

int kiln_docket_take(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err) {
    if (record->news == KILN_NEWS_GAINED)
        return kiln_docket_gain(docket, record->partition, err);
    if (record->news == KILN_NEWS_LOST)
        return kiln_docket_lose(docket, record->partition, err);
    struct kiln_ack *ack = kiln_acks_begin(&docket->acks, record);
    if (!ack)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an ack");
    int rc = take_record(docket, record, &ack, err);
    if (!rc && ack)
        rc = kiln_acks_done(&docket->acks, ack, err);
    return rc;
}

int kiln_docket_finish(struct kiln_docket *docket, struct kiln_err *err) {
    return kiln_crew_finish(docket->crew, docket, err);
}

int kiln_docket_fd(const struct kiln_docket *docket) { return kiln_crew_fd(docket->crew); }

// A record or list that was put into the store and is not taken: also while the last good one is in force.
static int look_at_refusals(struct kiln_docket *docket, struct kiln_err *err) {
    struct kiln_keeper_status status;
    kiln_keeper_status(docket->options.keeper, &status);
    const char *refusal = *status.trust_refusal ? status.trust_refusal : status.public_refusal;
    char word[sizeof docket->refused];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(refusal, ":"), refusal);
    if (strcmp(word, docket->refused) == 0)
        return 0;
    memcpy(docket->refused, word, sizeof word);
    return *word ? kiln_chronicle_tell(&docket->chronicle, "alert", refusal, docket->options.principal, refusal, err) : 0;
}

// Says once that nothing can be signed, and once that it can be again.
static int look_at_trust(struct kiln_docket *docket, struct kiln_err *err) {
    struct kiln_err why = {0};
    int rc = look_at_refusals(docket, err);
    if (rc)
        return rc;
    bool failed = kiln_authority_valid(&docket->authority, &why) != 0;
    if (failed == docket->trust_failed)
        return 0;
    docket->trust_failed = failed;
    return failed ? kiln_chronicle_tell(&docket->chronicle, "alert", why.text, docket->options.principal, why.text, err)
                  : kiln_chronicle_tell(&docket->chronicle, "info", "trust_restored", docket->options.principal, "", err);
}

int kiln_docket_tick(struct kiln_docket *docket, struct kiln_err *err) {
    const struct kiln_plan_event event = {.kind = KILN_PLAN_TICK};
    uint64_t now_ms = kiln_clock_ms();
    int rc = 0;
    if (docket->fleet && now_ms - docket->looked_ms >= LOOK_MS) {
        docket->looked_ms = now_ms;
        rc = look_at_trust(docket, err);
        if (!rc)
            rc = kiln_docket_look_at_executors(docket, err);
    }
    return rc ? rc : kiln_docket_step(docket, &event, NULL, err);
}

uint64_t kiln_docket_next_ms(const struct kiln_docket *docket) {
    uint64_t next_ms = kiln_plan_next_ms(docket->plan);
    uint64_t look_ms = docket->looked_ms + LOOK_MS;
    return docket->fleet && look_ms < next_ms ? look_ms : next_ms;
}

size_t kiln_docket_flights(const struct kiln_docket *docket) { return docket->sheets.count; }
size_t kiln_docket_tasks(const struct kiln_docket *docket) { return kiln_crew_load(docket->crew); }

void kiln_docket_counts(const struct kiln_docket *docket, struct kiln_docket_counts *counts) {
    *counts = docket->counts;
    counts->dead_letters = docket->chronicle.dead_letters;
    counts->ledger_dropped = docket->chronicle.dropped;
}

int kiln_docket_new(const struct kiln_docket_options *options, struct kiln_docket **docket, struct kiln_err *err) {
    struct kiln_docket *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the docket");
    made->options = *options;
    made->fleet = options->keeper != NULL;
    made->authority = (struct kiln_authority){options->keeper, options->principal, options->vault.key};
    made->state = (struct kiln_state){.bus = options->bus, .kept = made->fleet};
    made->chronicle = (struct kiln_chronicle){.bus = options->bus, .principal = options->principal};
    kiln_sheets_init(&made->sheets);
    TAILQ_INIT(&made->deferred);
    kiln_acks_init(&made->acks, options->bus);
    made->executors = calloc(KILN_DOCKET_EXECUTORS_MAX, sizeof *made->executors);
    int rc = made->executors ? kiln_plan_new(&options->plan, &made->plan, err)
                             : kiln_fail(err, KILN_E_NOMEM, "no memory for the docket");
    if (!rc)
        rc = kiln_crew_new(options->threads ? options->threads : THREADS_DEFAULT, &made->crew, err);
    if (rc) {
        kiln_plan_free(made->plan);
        free(made->executors);
        free(made);
        return rc;
    }
    *docket = made;
    return 0;
}

void kiln_docket_free(struct kiln_docket *docket) {
    if (!docket)
        return;
    kiln_crew_stop(docket->crew);
    for (uint32_t partition = 0; partition < KILN_PLAN_PARTITIONS_MAX; partition++)
        kiln_docket_forget(docket, partition); // what tasks bring now, they bring for nothing
    while (kiln_crew_load(docket->crew))
        kiln_crew_finish(docket->crew, docket, NULL);
    kiln_crew_free(docket->crew);
    kiln_plan_free(docket->plan);
    kiln_sheets_release(&docket->sheets);
    kiln_acks_release(&docket->acks);
    kiln_quota_release(&docket->quota);
    free(docket->executors);
    free(docket);
}
