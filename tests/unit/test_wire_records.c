#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus.h"
#include "lib/wire/schema.h"

_Static_assert(KILN_WIRE_BYTES_MAX == KILN_RECORD_BYTES_MAX, "the bus carries what the wire makes");

#define COUNT_ONE(name) +1
enum { FRAME_BYTES = 5, RECORDS_COUNT = 0 KILN_RECORD_TYPES(COUNT_ONE) };

// Decodes and encodes again. *out is touched only when both succeed.
#define RECODE(name)                                                                                                   \
    static int recode_##name(const void *data, size_t len, struct kiln_buf *out, struct kiln_err *err) {               \
        struct kiln_##name record;                                                                                     \
        memset(&record, 0xee, sizeof record);                                                                          \
        struct kiln_##name before = record;                                                                            \
        int rc = kiln_##name##_decode(data, len, &record, err);                                                        \
        if (rc) {                                                                                                      \
            assert_memory_equal(&record, &before, sizeof record);                                                      \
            return rc;                                                                                                 \
        }                                                                                                              \
        assert_int_equal(kiln_##name##_encode(&record, out, err), 0);                                                  \
        kiln_##name##_release(&record);                                                                                \
        return 0;                                                                                                      \
    }
KILN_RECORD_TYPES(RECODE)

typedef int recode_function(const void *data, size_t len, struct kiln_buf *out, struct kiln_err *err);

static recode_function *recode_of(enum kiln_record_type type) {
#define CASE(name)                                                                                                     \
    case KILN_RECORD_##name:                                                                                           \
        return recode_##name;
    switch (type) { KILN_RECORD_TYPES(CASE) }
#undef CASE
    return NULL;
}

// Whether the bytes are accepted; what is accepted must come back as it was.
static bool accepts(enum kiln_record_type type, const void *data, size_t len) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
    struct kiln_err err = {0};
    if (recode_of(type)(data, len, &out, &err)) {
        assert_true(err.code == KILN_E_CORRUPT || err.code == KILN_E_LIMIT);
        assert_true(err.text[0]);
        return false;
    }
    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, data, len);
    return true;
}

// schemas/golden.json: made by another implementation of Avro (fastavro 1.13) from the values beside them and schemas/*.avsc.
static struct {
    enum kiln_record_type type;
    char *hex;
} golden[RECORDS_COUNT];

static const struct {
    const char *name;
    enum kiln_record_type type;
} records[] = {
#define ROW(name) {#name, KILN_RECORD_##name},
    KILN_RECORD_TYPES(ROW)
#undef ROW
};

static int load_golden(void **state) {
    (void)state;
    json_error_t error;
    json_t *page = json_load_file(KILN_SOURCE_DIR "/schemas/golden.json", JSON_REJECT_DUPLICATES, &error), *item;
    if (!page)
        fail_msg("schemas/golden.json:%d: %s", error.line, error.text);
    assert_int_equal(json_array_size(page), RECORDS_COUNT); // one for each record, in the order of the header
    size_t i;
    json_array_foreach(page, i, item) {
        assert_string_equal(json_string_value(json_object_get(item, "record")), records[i].name);
        golden[i].type = records[i].type;
        golden[i].hex = strdup(json_string_value(json_object_get(item, "hex")));
    }
    json_decref(page);
    return 0;
}

static int drop_golden(void **state) {
    (void)state;
    for (size_t i = 0; i < RECORDS_COUNT; i++)
        free(golden[i].hex);
    return 0;
}

static unsigned char *golden_bytes(enum kiln_record_type type, size_t *len) {
    const char *hex = NULL;
    for (size_t i = 0; i < RECORDS_COUNT; i++)
        if (golden[i].type == type)
            hex = golden[i].hex;
    assert_non_null(hex);
    *len = strlen(hex) / 2;
    unsigned char *bytes = malloc(*len);
    for (size_t i = 0; i < *len; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        bytes[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return bytes;
}

static struct kiln_digest digest_of(unsigned char byte) {
    struct kiln_digest digest;
    memset(digest.bytes, byte, sizeof digest.bytes);
    return digest;
}

static struct kiln_job_id job_id_of(unsigned char byte) {
    struct kiln_job_id id;
    memset(id.bytes, byte, sizeof id.bytes);
    return id;
}

static struct kiln_attestation_bytes signature_of(unsigned char byte) {
    struct kiln_attestation_bytes signature;
    memset(signature.bytes, byte, sizeof signature.bytes);
    return signature;
}

static char *text_of(const char *text) { return (char *)(uintptr_t)text; }

static struct kiln_content_ref contents[] = {{.kind = KILN_CONTENT_PACK, .size = 4096},
                                             {.kind = KILN_CONTENT_LIST, .size = 300},
                                             {.kind = KILN_CONTENT_BLOB, .size = 0}};
static char *closure[] = {(char *)(uintptr_t)"libserde-0123abcd", (char *)(uintptr_t)"libgr\xc3\xbcn-1"};
static unsigned char action[] = "kiln-action-1\0x";

static struct kiln_job_submitted a_job_submitted(void) {
    for (unsigned char i = 0; i < 3; i++)
        contents[i].digest = digest_of(0xa1 + i);
    return (struct kiln_job_submitted){
        .job = job_id_of(0x11), .tenant = text_of("local"), .agent = text_of("agent-1"), .waiter_partition = 3,
        .submitted_ms = 1789000000123, .deadline_ms = 600000, .action_digest = digest_of(0xd1),
        .action = action, .action_len = sizeof action - 1, .contents = contents, .contents_count = 3,
        .closure = closure, .closure_count = 2, .build_id = text_of(""), .scope = text_of("public")};
}

static struct kiln_work a_work(void) {
    contents[0].digest = digest_of(0xa1);
    return (struct kiln_work){
        .job = job_id_of(0x11), .incarnation = job_id_of(0x22), .credit = job_id_of(0x33), .attempt = 1, .lease_ms = 30000,
        .action_digest = digest_of(0xd1), .action = action, .action_len = sizeof action - 1, .contents = contents,
        .contents_count = 1, .scope = text_of("local")};
}

static struct kiln_candidate_output outputs[] = {
    {.kind = 1, .executable = true, .name = (char *)(uintptr_t)"foo", .size = 123456789012},
    {.kind = 3, .name = (char *)(uintptr_t)"", .size = 7},
};
static char *observations[] = {(char *)(uintptr_t)"path: /etc/x"};

static struct kiln_candidate a_candidate(void) {
    outputs[0].digest = digest_of(0xb1);
    outputs[1].digest = digest_of(0xb2);
    return (struct kiln_candidate){
        .job = job_id_of(0x11), .incarnation = job_id_of(0x22), .attempt = 2, .executor = text_of("executor-1"),
        .pool = text_of("local"), .backend = text_of("bwrap-1"), .action_digest = digest_of(0xd1),
        .status = KILN_RUN_EXITED, .exit_code = -1, .outputs = outputs, .outputs_count = 2,
        .observations = observations, .observations_count = 1, .wall_ms = 1500,
        .at_ms = 1789000002000, .signature = signature_of(0x5a)};
}

static struct kiln_ledger_entry a_ledger_entry(void) {
    static unsigned char envelope[] = "kiln";
    return (struct kiln_ledger_entry){
        .at_ms = 1789000004000, .verifier = text_of("verifier-1"), .action_digest = digest_of(0xd1), .job = job_id_of(0x11),
        .event = text_of("stored"), .scope = text_of("acme"), .tenant = text_of("acme"), .principal = text_of("agent-1"),
        .executor = text_of(""), .pool = text_of(""), .attempt = 2, .detail = text_of("agreement=1"),
        .envelope = envelope, .envelope_len = 4};
}

// For readers in other languages: what was encoded, as lines "NAME HEX" in the file that KILN_RECORDS_OUT names.
static void tell(const char *name, const struct kiln_buf *out) {
    const char *path = getenv("KILN_RECORDS_OUT");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    fprintf(file, "%s ", name);
    for (size_t i = 0; i < out->len; i++)
        fprintf(file, "%02x", out->data[i]);
    fputc('\n', file);
    fclose(file);
}

static void assert_golden(enum kiln_record_type type, const struct kiln_buf *out) {
    size_t len;
    kiln_autofree unsigned char *bytes = golden_bytes(type, &len);
    assert_int_equal(out->len, len);
    assert_memory_equal(out->data, bytes, len);
    assert_true(accepts(type, bytes, len));
    enum kiln_record_type found;
    assert_int_equal(kiln_record_type_of(bytes, len, &found, NULL), 0);
    assert_int_equal(found, type);
}

static void encodes_as_another_implementation(void **state) {
    (void)state;
    struct kiln_job_submitted job_submitted = a_job_submitted();
    struct kiln_job_uploaded job_uploaded = {.job = job_id_of(0x11), .action_digest = digest_of(0xd1)};
    struct kiln_job_cancelled job_cancelled = {.job = job_id_of(0x11), .action_digest = digest_of(0xd1)};
    struct kiln_job_id waiters[] = {job_id_of(0x11), job_id_of(0x22)};
    char *reasons[] = {text_of("digest differs")};
    struct kiln_answer answer = {.jobs = waiters, .jobs_count = 2, .action_digest = digest_of(0xd1),
                                 .status = KILN_ANSWER_REJECTED, .reasons = reasons, .reasons_count = 1, .executed = job_id_of(0xe7)};
    struct kiln_credit credit = {.executor = text_of("executor-1"), .pool = text_of("local"), .incarnation = job_id_of(0x22),
                                 .credit = job_id_of(0x33), .expires_ms = 1789000060000};
    struct kiln_work work = a_work();
    struct kiln_lease lease = {.job = job_id_of(0x11), .incarnation = job_id_of(0x22), .attempt = 64, .at_ms = 1789000001000};
    struct kiln_candidate candidate = a_candidate();
    struct kiln_demand demand = {.partition = 7, .count = 12, .at_ms = 1789000003000};
    struct kiln_decline decline = {.job = job_id_of(0x11), .incarnation = job_id_of(0x22), .credit = job_id_of(0x33), .attempt = 2};
    unsigned char submission[] = {0, 0, 0, 3, 0xec, 'a', 'b', 'c'}, letter[] = {0xde, 0xad, 0xbe, 0xef, 0};
    struct kiln_state_waiter state_waiter = {.tenant = text_of("acme"), .principal = text_of("agent-1"),
                                             .incarnation = job_id_of(0x44), .received_ms = 1789000000500,
                                             .submission = submission, .submission_len = sizeof submission};
    struct kiln_state_flight state_flight = {.action_digest = digest_of(0xd1), .scope = text_of("acme"), .attempt = 2,
                                             .troubles = 1, .job = job_id_of(0x11), .incarnation = job_id_of(0x22),
                                             .executor = text_of("executor-1"), .pool = text_of("east"),
                                             .dispatched_ms = 1789000000900};
    struct kiln_ledger_entry ledger_entry = a_ledger_entry();
    struct kiln_event event = {.at_ms = 1789000005000, .source = text_of("verifier-1"), .severity = text_of("alert"),
                               .name = text_of("divergence"), .subject = text_of("executor-1"),
                               .detail = text_of("east: other outputs")};
    struct kiln_dead_letter dead_letter = {.at_ms = 1789000006000, .verifier = text_of("verifier-1"),
                                           .topic = text_of("kiln.jobs"), .partition = 5, .offset = 9007199254740993,
                                           .reason = text_of("form: not a record"), .size = 5, .value = letter,
                                           .value_len = sizeof letter};
#define ASSERT_GOLDEN(name)                                                                                            \
    {                                                                                                                  \
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);                                         \
        struct kiln_err err = {0};                                                                                     \
        if (kiln_##name##_encode(&name, &out, &err))                                                                   \
            fail_msg("%s: %s", #name, err.text);                                                                       \
        tell(#name, &out);                                                                                             \
        assert_golden(KILN_RECORD_##name, &out);                                                                       \
    }
    KILN_RECORD_TYPES(ASSERT_GOLDEN)
}

static void decodes_the_fields(void **state) {
    (void)state;
    size_t len;
    kiln_autofree unsigned char *job_bytes = golden_bytes(KILN_RECORD_job_submitted, &len);
    struct kiln_job_submitted job, expected = a_job_submitted();
    assert_int_equal(kiln_job_submitted_decode(job_bytes, len, &job, NULL), 0);
    assert_memory_equal(&job.job, &expected.job, sizeof job.job);
    assert_string_equal(job.tenant, "local");
    assert_string_equal(job.agent, "agent-1");
    assert_int_equal(job.waiter_partition, 3);
    assert_int_equal(job.submitted_ms, 1789000000123);
    assert_int_equal(job.deadline_ms, 600000);
    assert_int_equal(job.action_len, sizeof action - 1);
    assert_memory_equal(job.action, action, job.action_len);
    assert_int_equal(job.contents_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(job.contents[i].kind, expected.contents[i].kind);
        assert_int_equal(job.contents[i].size, expected.contents[i].size);
        assert_true(kiln_digest_equal(&job.contents[i].digest, &expected.contents[i].digest));
    }
    assert_int_equal(job.closure_count, 2);
    assert_string_equal(job.closure[1], closure[1]);
    assert_string_equal(job.build_id, "");
    assert_string_equal(job.scope, "public");
    kiln_job_submitted_release(&job);
    assert_null(job.tenant);

    kiln_autofree unsigned char *candidate_bytes = golden_bytes(KILN_RECORD_candidate, &len);
    struct kiln_candidate candidate;
    assert_int_equal(kiln_candidate_decode(candidate_bytes, len, &candidate, NULL), 0);
    assert_int_equal(candidate.status, KILN_RUN_EXITED);
    assert_int_equal(candidate.exit_code, -1);
    assert_true(candidate.outputs[0].executable);
    assert_false(candidate.outputs[1].executable);
    assert_int_equal(candidate.outputs[0].size, 123456789012);
    assert_null(candidate.reasons);
    assert_int_equal(candidate.reasons_count, 0);
    kiln_candidate_release(&candidate);
}

static void every_truncation_and_extension_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < RECORDS_COUNT; i++) {
        size_t len;
        kiln_autofree unsigned char *bytes = golden_bytes(golden[i].type, &len);
        for (size_t part = 0; part < len; part++) {
            unsigned char *exact = malloc(part ? part : 1); // so that a sanitizer sees a read past the end
            memcpy(exact, bytes, part);
            assert_false(accepts(golden[i].type, exact, part));
            free(exact);
        }
        bytes = realloc(bytes, len + 1);
        for (int extra = 0; extra < 256; extra++) {
            bytes[len] = (unsigned char)extra;
            assert_false(accepts(golden[i].type, bytes, len + 1));
        }
    }
}

static void only_the_own_type_is_taken(void **state) {
    (void)state;
    for (size_t i = 0; i < RECORDS_COUNT; i++) {
        size_t len;
        kiln_autofree unsigned char *bytes = golden_bytes(golden[i].type, &len);
        for (size_t other = 0; other < RECORDS_COUNT; other++)
            assert_int_equal(accepts(golden[other].type, bytes, len), other == i);
        enum kiln_record_type type = 0;
        bytes[1] = 0x7f;
        assert_false(accepts(golden[i].type, bytes, len));
        assert_int_equal(kiln_record_type_of(bytes, len, &type, NULL), KILN_E_CORRUPT);
        bytes[1] = 0;
        bytes[0] = 1;
        assert_false(accepts(golden[i].type, bytes, len));
        assert_int_equal(kiln_record_type_of(bytes, len, &type, NULL), KILN_E_CORRUPT);
        assert_int_equal(kiln_record_type_of(bytes, 4, &type, NULL), KILN_E_CORRUPT);
        assert_int_equal(type, 0);
    }
}

// A lease whose last two fields (attempt, at_ms) are given; the rest is 32 bytes of ids.
static bool accepts_lease(const char *tail, size_t len) {
    unsigned char bytes[96] = {0, 0, 0, 0x04, 0x11};
    memcpy(bytes + FRAME_BYTES + 32, tail, len);
    return accepts(KILN_RECORD_lease, bytes, FRAME_BYTES + 32 + len);
}

static void numbers_have_one_form(void **state) {
    (void)state;
    static const struct {
        const char *tail;
        size_t len;
        bool accepted;
    } cases[] = {
#define TAIL(text) text, sizeof(text) - 1
        {TAIL("\x02\x00"), true},                                             // 1, 0
        {TAIL("\x02\x80\x00"), false},                                        // 0 in two bytes
        {TAIL("\x82\x00\x00"), false},                                        // 1 in two bytes
        {TAIL("\x02\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), false},        // 0 in ten bytes
        {TAIL("\x00\x00"), false},                                            // attempt below its cap
        {TAIL("\x01\x00"), false},                                            // attempt -1
        {TAIL("\x80\x89\x7a\x00"), true},                                     // attempt 1000000
        {TAIL("\x82\x89\x7a\x00"), false},                                    // attempt 1000001
        {TAIL("\xfe\xff\xff\xff\x0f\x00"), false},                            // INT32_MAX: past the cap
        {TAIL("\xfe\xff\xff\xff\x1f\x00"), false},                            // 33 bits
        {TAIL("\x82\x80\x80\x80\x80\x01\x00"), false},                        // 36 bits, low part 1
        {TAIL("\x02\x01"), false},                                            // at_ms -1
        {TAIL("\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},        // INT64_MIN
        {TAIL("\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},        // INT64_MAX
        {TAIL("\x02\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"), false},        // 65 bits
        {TAIL("\x02\x82\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), false},    // eleven bytes
        {TAIL("\x02\x80"), false},                                            // ends in a number
        {TAIL("\x02\xfe\xef\xfe\xa1\xfa\x9d\x73"), true},                     // the year 9999
        {TAIL("\x02\x80\xf0\xfe\xa1\xfa\x9d\x73"), false},                    // and one ms more
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (accepts_lease(cases[i].tail, cases[i].len) != cases[i].accepted)
            fail_msg("case %zu", i);
    }
}

// An answer: one waiter, status, then what is given from `contents` on, then that it was not run.
static bool accepts_answer(int status, const char *tail, size_t len) {
    unsigned char bytes[256] = {0, 0, 0, 0x03, 0xf4, 0x02};
    size_t at = FRAME_BYTES + 1 + 16;
    bytes[at] = 0; // end of the array
    at += 1 + 32;
    bytes[at++] = (unsigned char)(2 * status);
    assert_true(at + len + 16 <= sizeof bytes);
    memcpy(bytes + at, tail, len);
    return accepts(KILN_RECORD_answer, bytes, at + len + 16);
}

static void arrays_texts_and_enums_have_one_form(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *tail; // contents, reasons, envelope
        size_t len;
        bool accepted;
    } cases[] = {
        {0, TAIL("\x00\x00\x00"), true},
        {3, TAIL("\x00\x00\x00"), true},
        {4, TAIL("\x00\x00\x00"), true},
        {5, TAIL("\x00\x00\x00"), false},                      // no such status
        {3, TAIL("\x00\x02\x02x\x00\x00"), true},              // one reason
        {3, TAIL("\x00\x04\x02x\x02y\x00\x00"), true},         // two in a block
        {3, TAIL("\x00\x02\x02x\x02\x02y\x00\x00"), false},    // two blocks
        {3, TAIL("\x00\x01\x04\x02x\x00\x00"), false},         // block with its size
        {3, TAIL("\x00\x06\x02x\x02y\x00\x00"), false},        // counts more than there is
        {3, TAIL("\x00\x02\x01x\x00\x00"), false},             // length -1
        {3, TAIL("\x00\x02\x03x\x00\x00"), false},             // length -2
        {3, TAIL("\x00\x02\x10x\x00\x00"), false},             // longer than the record
        {3, TAIL("\x00\x02\x00\x00\x00"), true},               // an empty reason
        {3, TAIL("\x00\x02\x02\x00\x00\x00"), false},          // NUL
        {3, TAIL("\x00\x02\x04\xc3\xbc\x00\x00"), true},       // u umlaut
        {3, TAIL("\x00\x02\x04\xc0\x80\x00\x00"), false},      // overlong
        {3, TAIL("\x00\x02\x04\xc1\xbf\x00\x00"), false},      // overlong
        {3, TAIL("\x00\x02\x06\xe0\x9f\xbf\x00\x00"), false},  // overlong
        {3, TAIL("\x00\x02\x06\xe0\xa0\x80\x00\x00"), true},   // U+0800
        {3, TAIL("\x00\x02\x06\xed\x9f\xbf\x00\x00"), true},   // U+D7FF
        {3, TAIL("\x00\x02\x06\xed\xa0\x80\x00\x00"), false},  // a surrogate
        {3, TAIL("\x00\x02\x06\xef\xbf\xbf\x00\x00"), true},   // U+FFFF
        {3, TAIL("\x00\x02\x08\xf0\x8f\xbf\xbf\x00\x00"), false}, // overlong
        {3, TAIL("\x00\x02\x08\xf0\x90\x80\x80\x00\x00"), true},  // U+10000
        {3, TAIL("\x00\x02\x08\xf4\x8f\xbf\xbf\x00\x00"), true},  // U+10FFFF
        {3, TAIL("\x00\x02\x08\xf4\x90\x80\x80\x00\x00"), false}, // beyond
        {3, TAIL("\x00\x02\x08\xf5\x80\x80\x80\x00\x00"), false},
        {3, TAIL("\x00\x02\x02\x80\x00\x00"), false},          // a lone continuation
        {3, TAIL("\x00\x02\x02\xc3\x00\x00"), false},          // cut
        {3, TAIL("\x00\x02\x04\xc3x\x00\x00"), false},
        {3, TAIL("\x00\x02\x02\xff\x00\x00"), false},
        {2, TAIL("\x00\x00\x04\x00\xff"), true},               // bytes are anything
        {2, TAIL("\x00\x00\x04\x00"), false},
        // One that declares 8 GiB, one of 200 million items, one of INT64_MAX items, one of INT64_MIN.
        {3, TAIL("\x00\x02\x80\x80\x80\x80\x40"), false},
        {3, TAIL("\x00\x80\x90\xde\xbe\x01"), false},
        {3, TAIL("\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},
        {3, TAIL("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (accepts_answer(cases[i].status, cases[i].tail, cases[i].len) != cases[i].accepted)
            fail_msg("case %zu", i);
    }
}

static void a_boolean_is_0_or_1(void **state) {
    (void)state;
    size_t len, at = 0;
    kiln_autofree unsigned char *bytes = golden_bytes(KILN_RECORD_candidate, &len);
    while (memcmp(bytes + at, "\x02\x01\x06" "foo", 6) != 0)
        at++;
    for (int value = 0; value < 256; value++) {
        bytes[at + 1] = (unsigned char)value;
        assert_int_equal(accepts(KILN_RECORD_candidate, bytes, len), value <= 1);
    }
}

static int encode_job(const struct kiln_job_submitted *job, size_t *len) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
    struct kiln_err err = {0};
    int rc = kiln_job_submitted_encode(job, &out, &err);
    assert_int_equal(err.code, rc);
    assert_true(rc == 0 || out.len == 0);
    if (rc == 0)
        assert_true(accepts(KILN_RECORD_job_submitted, out.data, out.len));
    if (len)
        *len = out.len;
    return rc;
}

static void encode_refuses_what_decode_refuses(void **state) {
    (void)state;
    char long_name[80];
    memset(long_name, 'n', sizeof long_name);
    long_name[65] = 0;
    static const char *const bad_names[] = {"", ".", "..", ".x", "a/b", "a b", "a\nb", "\xc3\xbc", "a:b"};
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
        struct kiln_job_submitted job = a_job_submitted();
        job.tenant = text_of(bad_names[i]);
        assert_int_equal(encode_job(&job, NULL), bad_names[i][0] ? KILN_E_INVAL : KILN_E_LIMIT);
    }
    struct kiln_job_submitted job = a_job_submitted();
    job.agent = long_name;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    long_name[64] = 0;
    assert_int_equal(encode_job(&job, NULL), 0);

    job = a_job_submitted(), job.build_id = NULL;
    assert_int_equal(encode_job(&job, NULL), KILN_E_INVAL);
    job = a_job_submitted(), job.build_id = text_of("\xff");
    assert_int_equal(encode_job(&job, NULL), KILN_E_INVAL);
    job = a_job_submitted(), job.waiter_partition = UINT32_MAX;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    job = a_job_submitted(), job.submitted_ms = UINT64_MAX;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    job = a_job_submitted(), job.action_len = 0;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    struct kiln_content_ref bad_ref = {.kind = 3};
    job = a_job_submitted(), job.contents = &bad_ref, job.contents_count = 1;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
}

static void sizes_at_the_caps(void **state) {
    (void)state;
    enum { CONTENTS = 6144, STEMS = 16384, ACTION = 240 << 10 };
    size_t len;
    struct kiln_content_ref *many = calloc(CONTENTS + 1, sizeof *many);
    for (size_t i = 0; i <= CONTENTS; i++)
        many[i].size = UINT64_C(1) << 40;
    struct kiln_job_submitted job = a_job_submitted();
    job.contents = many, job.contents_count = CONTENTS;
    assert_int_equal(encode_job(&job, &len), 0);
    assert_in_range(len, 200000, KILN_WIRE_BYTES_MAX);
    job.contents_count++;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);

    char **stems = calloc(STEMS + 1, sizeof *stems);
    for (size_t i = 0; i <= STEMS; i++)
        stems[i] = text_of("libabc-12345");
    job = a_job_submitted(), job.closure = stems, job.closure_count = STEMS;
    assert_int_equal(encode_job(&job, NULL), 0);
    job.closure_count++;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    job.closure_count--, job.contents = many, job.contents_count = CONTENTS;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT); // each within its cap, together past 256 KiB
    free(stems);
    free(many);

    unsigned char *big = calloc(1, ACTION + 1);
    job = a_job_submitted(), job.action = big, job.action_len = ACTION;
    assert_int_equal(encode_job(&job, NULL), 0);
    job.action_len++;
    assert_int_equal(encode_job(&job, NULL), KILN_E_LIMIT);
    free(big);
}

static void a_buffer_too_small_is_a_limit(void **state) {
    (void)state;
    struct kiln_work work = a_work();
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(64);
    assert_int_equal(kiln_buf_add_str(&out, "kept"), 0);
    assert_int_equal(kiln_work_encode(&work, &out, NULL), KILN_E_LIMIT);
    assert_int_equal(out.len, 4);
}

// A seeded generator, so that a failure comes again.
static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below ? seed % below : 0;
}

static void add_varint(struct kiln_buf *out, int64_t value) {
    uint64_t raw = (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
    for (; raw > 0x7f; raw >>= 7)
        kiln_buf_add_u8(out, (uint8_t)(raw | 0x80));
    kiln_buf_add_u8(out, (uint8_t)raw);
}

static int64_t draw_number(const struct kiln_cap *cap) {
    switch (draw(4)) {
    case 0:
        return cap->min;
    case 1:
        return cap->max;
    case 2:
        return cap->min + (int64_t)draw((uint64_t)(cap->max - cap->min) + 1);
    default:
        return cap->min + (int64_t)draw((uint64_t)(cap->max - cap->min < 100 ? cap->max - cap->min + 1 : 100));
    }
}

static void add_string(struct kiln_buf *out, const struct kiln_cap *cap) {
    static const char *const pieces[] = {"a", "Z9", "-", "_.", "\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x94\xa5", " "};
    char text[64];
    size_t len = 0, want = (size_t)cap->min + draw(24);
    while (len < want && len < (size_t)cap->max && len < 48) {
        const char *piece = pieces[draw(cap->form == KILN_FORM_NAME ? 3 : 8)];
        memcpy(text + len, piece, strlen(piece));
        len += strlen(piece);
    }
    add_varint(out, (int64_t)len);
    kiln_buf_add(out, text, len);
}

static void add_noise(struct kiln_buf *out, size_t len) {
    for (size_t i = 0; i < len; i++)
        kiln_buf_add_u8(out, (uint8_t)draw(256));
}

// Writes a random thing of the node, without avro-c.
static void add_random(const struct kiln_schema *schema, size_t index, struct kiln_buf *out) {
    const struct kiln_node *node = &schema->nodes[index];
    int64_t count;
    switch (node->kind) {
    case KILN_NODE_RECORD:
        for (size_t child = index + 1; child < node->end; child = schema->nodes[child].end)
            add_random(schema, child, out);
        break;
    case KILN_NODE_ARRAY:
        count = node->cap.min + (int64_t)draw(5);
        add_varint(out, count);
        for (int64_t i = 0; i < count; i++)
            add_random(schema, index + 1, out);
        if (count)
            add_varint(out, 0);
        break;
    case KILN_NODE_FIXED:
        add_noise(out, node->fixed_bytes);
        break;
    case KILN_NODE_BOOLEAN:
        kiln_buf_add_u8(out, (uint8_t)draw(2));
        break;
    case KILN_NODE_INT:
    case KILN_NODE_LONG:
        add_varint(out, draw_number(&node->cap));
        break;
    case KILN_NODE_STRING:
        add_string(out, &node->cap);
        break;
    case KILN_NODE_BYTES:
        count = node->cap.min + (int64_t)draw(40);
        add_varint(out, count);
        add_noise(out, (size_t)count);
        break;
    }
}

static void mutate(struct kiln_buf *bytes) {
    size_t at = draw(bytes->len);
    switch (draw(5)) {
    case 0: // one bit
        bytes->data[at] ^= (unsigned char)(1u << draw(8));
        break;
    case 1:
        bytes->data[at] = (unsigned char)draw(256);
        break;
    case 2: // a byte less
        memmove(bytes->data + at, bytes->data + at + 1, bytes->len - at - 1);
        bytes->len--;
        break;
    case 3: // a byte more
        kiln_buf_add_u8(bytes, 0);
        memmove(bytes->data + at + 1, bytes->data + at, bytes->len - at - 1);
        bytes->data[at] = (unsigned char)draw(256);
        break;
    default: // a number made longer
        bytes->data[at] |= 0x80;
        kiln_buf_add_u8(bytes, 0);
        memmove(bytes->data + at + 2, bytes->data + at + 1, bytes->len - at - 2);
        bytes->data[at + 1] = 0;
        break;
    }
}

static void random_records_and_mutations(void **state) {
    (void)state;
    enum { ROUNDS = 400, MUTATIONS = 40 };
    unsigned accepted = 0, refused = 0;
    for (size_t i = 0; i < kiln_schema_texts_count; i++) {
        struct kiln_schema schema = {0};
        assert_int_equal(kiln_schema_load(&kiln_schema_texts[i], &schema, NULL), 0);
        for (unsigned round = 0; round < ROUNDS; round++) {
            seed = 0x9e3779b97f4a7c15u * (i * ROUNDS + round + 1);
            kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
            kiln_buf_add_u8(&bytes, 0);
            kiln_buf_add_be32(&bytes, schema.text->type);
            add_random(&schema, 0, &bytes);
            if (!accepts(schema.text->type, bytes.data, bytes.len))
                fail_msg("%s, round %u: a valid record is refused", schema.text->name, round);
            for (unsigned j = 0; j < MUTATIONS; j++) {
                kiln_autobuf struct kiln_buf copy = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
                kiln_buf_add(&copy, bytes.data, bytes.len);
                mutate(&copy);
                bool taken = accepts(schema.text->type, copy.data, copy.len);
                accepted += taken;
                refused += !taken;
            }
        }
        kiln_schema_release(&schema);
    }
    assert_true(accepted > 1000 && refused > 1000); // both sides have been looked at
}

static void *recode_many(void *arg) {
    size_t len;
    kiln_autofree unsigned char *bytes = golden_bytes(*(const enum kiln_record_type *)arg, &len);
    intptr_t failed = 0;
    for (int i = 0; i < 500; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
        failed |= recode_of(*(const enum kiln_record_type *)arg)(bytes, len, &out, NULL);
        failed |= out.len != len || memcmp(out.data, bytes, len) != 0;
    }
    return (void *)failed;
}

static void threads_do_not_meet(void **state) {
    (void)state;
    static const enum kiln_record_type types[] = {KILN_RECORD_job_submitted, KILN_RECORD_candidate, KILN_RECORD_job_submitted,
                                                  KILN_RECORD_work};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, recode_many, (void *)(uintptr_t)&types[i]), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

// The bound is far above what it takes, and far below what a cost that grows with the number of calls would reach.
static void a_job_of_20_kb_is_quick(void **state) {
    (void)state;
    enum { ROUNDS = 1000, CONTENTS = 400 };
    struct kiln_content_ref *many = calloc(CONTENTS, sizeof *many);
    struct kiln_job_submitted job = a_job_submitted();
    unsigned char *big = calloc(1, 6000);
    job.contents = many, job.contents_count = CONTENTS, job.action = big, job.action_len = 6000;
    size_t len = 0;
    uint64_t start_us = kiln_clock_us();
    for (int i = 0; i < ROUNDS; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);
        struct kiln_job_submitted decoded;
        assert_int_equal(kiln_job_submitted_encode(&job, &out, NULL), 0);
        assert_int_equal(kiln_job_submitted_decode(out.data, out.len, &decoded, NULL), 0);
        kiln_job_submitted_release(&decoded);
        len = out.len;
    }
    unsigned us = (unsigned)((kiln_clock_us() - start_us) / ROUNDS);
    print_message("encode and decode %zu bytes: %u us\n", len, us);
    assert_in_range(us, 0, 20000);
    free(big);
    free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_as_another_implementation),
        cmocka_unit_test(decodes_the_fields),
        cmocka_unit_test(every_truncation_and_extension_is_refused),
        cmocka_unit_test(only_the_own_type_is_taken),
        cmocka_unit_test(numbers_have_one_form),
        cmocka_unit_test(arrays_texts_and_enums_have_one_form),
        cmocka_unit_test(a_boolean_is_0_or_1),
        cmocka_unit_test(encode_refuses_what_decode_refuses),
        cmocka_unit_test(sizes_at_the_caps),
        cmocka_unit_test(a_buffer_too_small_is_a_limit),
        cmocka_unit_test(random_records_and_mutations),
        cmocka_unit_test(threads_do_not_meet),
        cmocka_unit_test(a_job_of_20_kb_is_quick),
    };
    return cmocka_run_group_tests(tests, load_golden, drop_golden);
}
