#include "lib/wire/layout.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(enum kiln_answer_status) == sizeof(uint32_t), "enums travel as U32");

static const struct kiln_layout digest = {.shape = KILN_SHAPE_FIXED, .size = sizeof(struct kiln_digest)};
static const struct kiln_layout job_id = {.shape = KILN_SHAPE_FIXED, .size = sizeof(struct kiln_job_id)};
static const struct kiln_layout signature = {.shape = KILN_SHAPE_FIXED, .size = sizeof(struct kiln_attestation_bytes)};
static const struct kiln_layout boolean = {.shape = KILN_SHAPE_BOOL, .size = sizeof(bool)};
static const struct kiln_layout i32 = {.shape = KILN_SHAPE_I32, .size = sizeof(int32_t)};
static const struct kiln_layout u32 = {.shape = KILN_SHAPE_U32, .size = sizeof(uint32_t)};
static const struct kiln_layout u64 = {.shape = KILN_SHAPE_U64, .size = sizeof(uint64_t)};
static const struct kiln_layout text = {.shape = KILN_SHAPE_TEXT, .size = sizeof(char *)};
static const struct kiln_layout bytes = {.shape = KILN_SHAPE_BYTES, .size = sizeof(unsigned char *)};

#define ARRAY_OF(element) {.shape = KILN_SHAPE_ARRAY, .size = sizeof(void *), .item = &(element)}
#define RECORD_OF(type, list)                                                                                          \
    {.shape = KILN_SHAPE_RECORD, .size = sizeof(struct type), .fields = list, .fields_count = sizeof(list) / sizeof *(list)}
#define FIELD(type, field, how) {#field, &(how), offsetof(struct type, field), 0}
#define COUNTED(type, field, count, how) {#field, &(how), offsetof(struct type, field), offsetof(struct type, count)}

static const struct kiln_field content_ref_fields[] = {
    FIELD(kiln_content_ref, kind, u32),
    FIELD(kiln_content_ref, digest, digest),
    FIELD(kiln_content_ref, size, u64),
};
static const struct kiln_layout content_ref = RECORD_OF(kiln_content_ref, content_ref_fields);

static const struct kiln_field output_fields[] = {
    FIELD(kiln_candidate_output, kind, u32),   FIELD(kiln_candidate_output, executable, boolean),
    FIELD(kiln_candidate_output, name, text),  FIELD(kiln_candidate_output, size, u64),
    FIELD(kiln_candidate_output, digest, digest),
};
static const struct kiln_layout output = RECORD_OF(kiln_candidate_output, output_fields);

static const struct kiln_layout contents = ARRAY_OF(content_ref);
static const struct kiln_layout outputs = ARRAY_OF(output);
static const struct kiln_layout texts = ARRAY_OF(text);
static const struct kiln_layout job_ids = ARRAY_OF(job_id);

static const struct kiln_field job_submitted_fields[] = {
    FIELD(kiln_job_submitted, job, job_id),
    FIELD(kiln_job_submitted, tenant, text),
    FIELD(kiln_job_submitted, agent, text),
    FIELD(kiln_job_submitted, waiter_partition, u32),
    FIELD(kiln_job_submitted, submitted_ms, u64),
    FIELD(kiln_job_submitted, deadline_ms, u64),
    FIELD(kiln_job_submitted, action_digest, digest),
    COUNTED(kiln_job_submitted, action, action_len, bytes),
    COUNTED(kiln_job_submitted, contents, contents_count, contents),
    COUNTED(kiln_job_submitted, closure, closure_count, texts),
    FIELD(kiln_job_submitted, build_id, text),
    FIELD(kiln_job_submitted, scope, text),
};
static const struct kiln_field job_uploaded_fields[] = {
    FIELD(kiln_job_uploaded, job, job_id),
    FIELD(kiln_job_uploaded, action_digest, digest),
};
static const struct kiln_field job_cancelled_fields[] = {
    FIELD(kiln_job_cancelled, job, job_id),
    FIELD(kiln_job_cancelled, action_digest, digest),
};
static const struct kiln_field answer_fields[] = {
    COUNTED(kiln_answer, jobs, jobs_count, job_ids),
    FIELD(kiln_answer, action_digest, digest),
    FIELD(kiln_answer, status, u32),
    COUNTED(kiln_answer, contents, contents_count, contents),
    COUNTED(kiln_answer, reasons, reasons_count, texts),
    COUNTED(kiln_answer, envelope, envelope_len, bytes),
    FIELD(kiln_answer, executed, job_id),
};
static const struct kiln_field credit_fields[] = {
    FIELD(kiln_credit, executor, text),    FIELD(kiln_credit, pool, text),
    FIELD(kiln_credit, incarnation, job_id), FIELD(kiln_credit, credit, job_id),
    FIELD(kiln_credit, expires_ms, u64),
};
static const struct kiln_field work_fields[] = {
    FIELD(kiln_work, job, job_id),
    FIELD(kiln_work, incarnation, job_id),
    FIELD(kiln_work, credit, job_id),
    FIELD(kiln_work, attempt, u32),
    FIELD(kiln_work, lease_ms, u64),
    FIELD(kiln_work, action_digest, digest),
    COUNTED(kiln_work, action, action_len, bytes),
    COUNTED(kiln_work, contents, contents_count, contents),
    FIELD(kiln_work, scope, text),
};
static const struct kiln_field lease_fields[] = {
    FIELD(kiln_lease, job, job_id),
    FIELD(kiln_lease, incarnation, job_id),
    FIELD(kiln_lease, attempt, u32),
    FIELD(kiln_lease, at_ms, u64),
};
static const struct kiln_field candidate_fields[] = {
    FIELD(kiln_candidate, job, job_id),
    FIELD(kiln_candidate, incarnation, job_id),
    FIELD(kiln_candidate, attempt, u32),
    FIELD(kiln_candidate, executor, text),
    FIELD(kiln_candidate, pool, text),
    FIELD(kiln_candidate, backend, text),
    FIELD(kiln_candidate, action_digest, digest),
    FIELD(kiln_candidate, status, u32),
    FIELD(kiln_candidate, exit_code, i32),
    COUNTED(kiln_candidate, outputs, outputs_count, outputs),
    COUNTED(kiln_candidate, observations, observations_count, texts),
    COUNTED(kiln_candidate, reasons, reasons_count, texts),
    FIELD(kiln_candidate, wall_ms, u64),
    FIELD(kiln_candidate, at_ms, u64),
    FIELD(kiln_candidate, signature, signature),
};
static const struct kiln_field demand_fields[] = {
    FIELD(kiln_demand, partition, u32),
    FIELD(kiln_demand, count, u32),
    FIELD(kiln_demand, at_ms, u64),
};
static const struct kiln_field decline_fields[] = {
    FIELD(kiln_decline, job, job_id),
    FIELD(kiln_decline, incarnation, job_id),
    FIELD(kiln_decline, credit, job_id),
    FIELD(kiln_decline, attempt, u32),
};
static const struct kiln_field state_waiter_fields[] = {
    FIELD(kiln_state_waiter, tenant, text),
    FIELD(kiln_state_waiter, principal, text),
    FIELD(kiln_state_waiter, incarnation, job_id),
    FIELD(kiln_state_waiter, received_ms, u64),
    COUNTED(kiln_state_waiter, submission, submission_len, bytes),
};
static const struct kiln_field state_flight_fields[] = {
    FIELD(kiln_state_flight, action_digest, digest),
    FIELD(kiln_state_flight, scope, text),
    FIELD(kiln_state_flight, attempt, u32),
    FIELD(kiln_state_flight, troubles, u32),
    FIELD(kiln_state_flight, job, job_id),
    FIELD(kiln_state_flight, incarnation, job_id),
    FIELD(kiln_state_flight, executor, text),
    FIELD(kiln_state_flight, pool, text),
    FIELD(kiln_state_flight, dispatched_ms, u64),
};
static const struct kiln_field ledger_entry_fields[] = {
    FIELD(kiln_ledger_entry, at_ms, u64),
    FIELD(kiln_ledger_entry, verifier, text),
    FIELD(kiln_ledger_entry, action_digest, digest),
    FIELD(kiln_ledger_entry, job, job_id),
    FIELD(kiln_ledger_entry, event, text),
    FIELD(kiln_ledger_entry, scope, text),
    FIELD(kiln_ledger_entry, tenant, text),
    FIELD(kiln_ledger_entry, principal, text),
    FIELD(kiln_ledger_entry, executor, text),
    FIELD(kiln_ledger_entry, pool, text),
    FIELD(kiln_ledger_entry, attempt, u32),
    FIELD(kiln_ledger_entry, detail, text),
    COUNTED(kiln_ledger_entry, envelope, envelope_len, bytes),
};
static const struct kiln_field event_fields[] = {
    FIELD(kiln_event, at_ms, u64),
    FIELD(kiln_event, source, text),
    FIELD(kiln_event, severity, text),
    FIELD(kiln_event, name, text),
    FIELD(kiln_event, subject, text),
    FIELD(kiln_event, detail, text),
};
static const struct kiln_field dead_letter_fields[] = {
    FIELD(kiln_dead_letter, at_ms, u64),
    FIELD(kiln_dead_letter, verifier, text),
    FIELD(kiln_dead_letter, topic, text),
    FIELD(kiln_dead_letter, partition, u32),
    FIELD(kiln_dead_letter, offset, u64),
    FIELD(kiln_dead_letter, reason, text),
    FIELD(kiln_dead_letter, size, u64),
    COUNTED(kiln_dead_letter, value, value_len, bytes),
};

const struct kiln_layout *kiln_layout_of(enum kiln_record_type type) {
#define LAYOUT(name)                                                                                                   \
    case KILN_RECORD_##name: {                                                                                         \
        static const struct kiln_layout layout = RECORD_OF(kiln_##name, name##_fields);                                \
        return &layout;                                                                                                \
    }
    switch (type) { KILN_RECORD_TYPES(LAYOUT) }
#undef LAYOUT
    return NULL;
}

static void release(const struct kiln_layout *layout, void *slot, size_t count) {
    char *items = NULL;
    switch (layout->shape) {
    case KILN_SHAPE_RECORD:
        for (size_t i = 0; i < layout->fields_count; i++) {
            const struct kiln_field *field = &layout->fields[i];
            size_t items_count = field->count_offset ? *(size_t *)((char *)slot + field->count_offset) : 0;
            release(field->layout, (char *)slot + field->offset, items_count);
        }
        break;
    case KILN_SHAPE_ARRAY:
        items = *(char **)slot;
        for (size_t i = 0; i < count; i++)
            release(layout->item, items + i * layout->item->size, 0);
        free(items);
        break;
    case KILN_SHAPE_TEXT:
    case KILN_SHAPE_BYTES:
        free(*(void **)slot);
        break;
    default:
        break;
    }
}

void kiln_layout_release(const struct kiln_layout *layout, void *record) {
    release(layout, record, 0);
    memset(record, 0, layout->size);
}
