#include "lib/wire/caps.h"

#include <string.h>

#define TIME_MS_MAX 253402300799999     // the year 9999
#define DURATION_MS_MAX 31622400000     // 366 days
#define OBJECT_BYTES_MAX (INT64_C(1) << 40)
#define ENCODED_BYTES_MAX (240 << 10)   // of an action, of an envelope: leaves room for the rest of the record
#define SUBMISSION_BYTES_MAX ((256 << 10) - 512) // framed, as a field of a record of 256 KiB
#define FINDING_BYTES_MAX 4352          // a path and what is said about it

#define NUMBER(record, path, min, max) {KILN_RECORD_##record, path, KILN_FORM_NUMBER, min, max}
#define COUNT(record, path, min, max) {KILN_RECORD_##record, path, KILN_FORM_COUNT, min, max}
#define BYTES(record, path, min, max) {KILN_RECORD_##record, path, KILN_FORM_BYTES, min, max}
#define TEXT(record, path, min, max) {KILN_RECORD_##record, path, KILN_FORM_TEXT, min, max}
#define NAME(record, path) {KILN_RECORD_##record, path, KILN_FORM_NAME, 1, 64}
#define NAME_OR_NONE(record, path) {KILN_RECORD_##record, path, KILN_FORM_NAME, 0, 64}
#define TOPIC(record, path) {KILN_RECORD_##record, path, KILN_FORM_NAME, 1, 249}
#define TIME(record, path) NUMBER(record, path, 0, TIME_MS_MAX)
#define CONTENTS(record)                                                                                               \
    COUNT(record, "contents", 0, 6144), NUMBER(record, "contents[].kind", 0, 2),                                       \
        NUMBER(record, "contents[].size", 0, OBJECT_BYTES_MAX)
#define ATTEMPT(record) NUMBER(record, "attempt", 1, 1000000)

const struct kiln_cap kiln_caps[] = {
    NAME(job_submitted, "tenant"),
    NAME(job_submitted, "agent"),
    NUMBER(job_submitted, "waiter_partition", 0, 65535),
    NUMBER(job_submitted, "submitted_ms", 0, TIME_MS_MAX),
    NUMBER(job_submitted, "deadline_ms", 0, DURATION_MS_MAX),
    BYTES(job_submitted, "action", 1, ENCODED_BYTES_MAX),
    CONTENTS(job_submitted),
    COUNT(job_submitted, "closure", 0, 16384),
    TEXT(job_submitted, "closure[]", 1, 255),
    TEXT(job_submitted, "build_id", 0, 128),
    NAME(job_submitted, "scope"),

    COUNT(answer, "jobs", 1, 4096),
    NUMBER(answer, "status", 0, 4),
    CONTENTS(answer),
    COUNT(answer, "reasons", 0, 256),
    TEXT(answer, "reasons[]", 0, FINDING_BYTES_MAX),
    BYTES(answer, "envelope", 0, ENCODED_BYTES_MAX),

    NAME(credit, "executor"),
    NAME(credit, "pool"),
    NUMBER(credit, "expires_ms", 0, TIME_MS_MAX),

    ATTEMPT(work),
    NUMBER(work, "lease_ms", 1, DURATION_MS_MAX),
    BYTES(work, "action", 1, ENCODED_BYTES_MAX),
    CONTENTS(work),
    NAME(work, "scope"),

    ATTEMPT(lease),
    NUMBER(lease, "at_ms", 0, TIME_MS_MAX),

    ATTEMPT(candidate),
    NAME(candidate, "executor"),
    NAME(candidate, "pool"),
    NAME(candidate, "backend"),
    NUMBER(candidate, "status", 0, 3),
    NUMBER(candidate, "exit_code", -255, 255),
    COUNT(candidate, "outputs", 0, 4096),
    NUMBER(candidate, "outputs[].kind", 1, 3),
    TEXT(candidate, "outputs[].name", 0, 255),
    NUMBER(candidate, "outputs[].size", 0, OBJECT_BYTES_MAX),
    COUNT(candidate, "observations", 0, 1024),
    TEXT(candidate, "observations[]", 0, FINDING_BYTES_MAX),
    COUNT(candidate, "reasons", 0, 256),
    TEXT(candidate, "reasons[]", 0, FINDING_BYTES_MAX),
    NUMBER(candidate, "wall_ms", 0, DURATION_MS_MAX),
    TIME(candidate, "at_ms"),

    NUMBER(demand, "partition", 0, 65535),
    NUMBER(demand, "count", 1, 1000000),
    TIME(demand, "at_ms"),

    ATTEMPT(decline),

    NAME(state_waiter, "tenant"),
    NAME(state_waiter, "principal"),
    TIME(state_waiter, "received_ms"),
    BYTES(state_waiter, "submission", 1, SUBMISSION_BYTES_MAX),

    NAME(state_flight, "scope"),
    ATTEMPT(state_flight),
    NUMBER(state_flight, "troubles", 0, 1000000),
    NAME(state_flight, "executor"),
    NAME(state_flight, "pool"),
    TIME(state_flight, "dispatched_ms"),

    TIME(ledger_entry, "at_ms"),
    NAME(ledger_entry, "verifier"),
    NAME(ledger_entry, "event"),
    NAME_OR_NONE(ledger_entry, "scope"),
    NAME_OR_NONE(ledger_entry, "tenant"),
    NAME_OR_NONE(ledger_entry, "principal"),
    NAME_OR_NONE(ledger_entry, "executor"),
    NAME_OR_NONE(ledger_entry, "pool"),
    NUMBER(ledger_entry, "attempt", 0, 1000000),
    TEXT(ledger_entry, "detail", 0, FINDING_BYTES_MAX),
    BYTES(ledger_entry, "envelope", 0, ENCODED_BYTES_MAX),

    TIME(event, "at_ms"),
    NAME(event, "source"),
    NAME(event, "severity"),
    NAME(event, "name"),
    TEXT(event, "subject", 0, FINDING_BYTES_MAX),
    TEXT(event, "detail", 0, FINDING_BYTES_MAX),

    TIME(dead_letter, "at_ms"),
    NAME(dead_letter, "verifier"),
    TOPIC(dead_letter, "topic"),
    NUMBER(dead_letter, "partition", 0, 65535),
    NUMBER(dead_letter, "offset", 0, INT64_MAX),
    TEXT(dead_letter, "reason", 1, FINDING_BYTES_MAX),
    NUMBER(dead_letter, "size", 0, OBJECT_BYTES_MAX),
    BYTES(dead_letter, "value", 0, ENCODED_BYTES_MAX),
};
const size_t kiln_caps_count = sizeof kiln_caps / sizeof *kiln_caps;

const struct kiln_cap *kiln_cap_find(enum kiln_record_type type, const char *path) {
    for (size_t i = 0; i < kiln_caps_count; i++) {
        if (kiln_caps[i].type == type && strcmp(kiln_caps[i].path, path) == 0)
            return &kiln_caps[i];
    }
    return NULL;
}

const char *kiln_form_name(enum kiln_form form) {
    static const char *const names[] = {"number", "count", "bytes", "text", "name"};
    return names[form];
}
