// Writes garbage on every topic of a stack, and tells what should become of each record. Driven by test_garbage.py.
//
//   fleet_garbage STACK COUNT SEED < valid      valid: lines "RECORD HEX", framed records (schemas/golden.json)
//   prints for each record: TOPIC PARTITION OFFSET SIZE WORD[|WORD]   why it is to be refused
//
// COUNT records on each topic, as many in each partition: every truncation of each valid record first, then the kinds below in turn.
// None of them would be taken by an honest reader: a flipped record that is still of the right form is flipped again.
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus.h"
#include "lib/wire/frame.h"
#include "tests/fleet/stack.h"

#define TYPES_MAX 3
#define HUGE_MAX 12u // of a topic: each is as large as hundreds of others
#define HUGE_BYTES (900u << 10)
#define AWAY_MS (3600u * 1000)
#define KEY_BYTES 48u // each record's own: none hides another one in a compacted topic

static const struct topic {
    const char *name, *author, *intruder; // who may write there, and who may not but is known; NULL: everybody known may
    enum kiln_record_type types[TYPES_MAX], misplaced;
} topics[] = {
    {"kiln.jobs", "agent-1", "executor-1", {KILN_RECORD_job_submitted, KILN_RECORD_job_uploaded, KILN_RECORD_job_cancelled}, KILN_RECORD_credit},
    {"kiln.work", "verifier-1", "agent-1", {KILN_RECORD_work, KILN_RECORD_demand}, KILN_RECORD_candidate},
    {"kiln.credits", "executor-1", "agent-1", {KILN_RECORD_credit}, KILN_RECORD_job_submitted},
    {"kiln.leases", "executor-2", "agent-1", {KILN_RECORD_lease, KILN_RECORD_decline}, KILN_RECORD_candidate},
    {"kiln.candidates", "executor-3", "agent-1", {KILN_RECORD_candidate}, KILN_RECORD_work},
    {"kiln.results.red", "verifier-1", "agent-1", {KILN_RECORD_answer}, KILN_RECORD_job_submitted},
    {"kiln.results.blue", "verifier-1", "executor-1", {KILN_RECORD_answer}, KILN_RECORD_job_submitted},
    {"kiln.state", "verifier-1", "agent-1", {KILN_RECORD_state_waiter, KILN_RECORD_state_flight}, KILN_RECORD_work},
    {"kiln.ledger", "verifier-1", "agent-1", {KILN_RECORD_ledger_entry}, KILN_RECORD_event},
    {"kiln.events", "agent-1", NULL, {KILN_RECORD_event}, KILN_RECORD_answer},
    {"kiln.dlq", "verifier-1", "executor-1", {KILN_RECORD_dead_letter}, KILN_RECORD_event},
};

enum kind { // of what is wrong
    CUT, FLIPPED, RANDOM_BODY, COUNTS, MISPLACED, // signed by who may write there: only decoding tells
    NO_FRAME, UNKNOWN_ID, RETIRED_ID, NO_PRINT, WRONG_PRINT, TWO_PRINTS, SHORT_PRINT, REPLAYED, CLOCK_BACK, CLOCK_AHEAD,
    HUGE_VALUE, LONG_KEY, FLIPPED_LATER, KEY_CHANGED, MOVED, OTHER_TOPIC, NO_SIGNATURE, TWO_SIGNATURES, EMPTY_SIGNATURE,
    CUT_SIGNATURE, FLIPPED_SIGNATURE, LONG_SIGNATURE, FORGED, UNKNOWN_NAME, WRONG_ROLE, NOTHING_AT_ALL, MANY_HEADERS, KINDS
};

struct valid {
    enum kiln_record_type type;
    unsigned char bytes[2048];
    size_t len;
};

static struct {
    struct stack stack;
    struct valid valid[32];
    size_t valid_count;
    struct kiln_author authors[8]; // by name, with their keys
    struct kiln_sign_key *keys[8], *stranger;
    size_t authors_count;
    uint64_t dice;
    rd_kafka_t *client;
} all;

static void must(bool good, const char *what) {
    if (!good) {
        fprintf(stderr, "fleet_garbage: %s\n", what);
        exit(2);
    }
}

static uint64_t roll(uint64_t sides) { // splitmix64
    uint64_t z = all.dice += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % sides;
}

static void fill(unsigned char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++)
        bytes[i] = (unsigned char)roll(256);
}

static bool has_form(enum kiln_record_type type, const void *data, size_t len) {
    union {
#define MEMBER(name) struct kiln_##name name;
        KILN_RECORD_TYPES(MEMBER)
    } record;
    switch (type) {
#define CASE(name)                                                                                                     \
    case KILN_RECORD_##name:                                                                                           \
        if (kiln_##name##_decode(data, len, &record.name, NULL))                                                       \
            return false;                                                                                              \
        kiln_##name##_release(&record.name);                                                                           \
        return true;
        KILN_RECORD_TYPES(CASE)
    }
    return false;
}

static const struct valid *valid_of(enum kiln_record_type type) {
    for (size_t i = 0; i < all.valid_count; i++)
        if (all.valid[i].type == type)
            return &all.valid[i];
    must(false, "a type without a valid record");
    return NULL;
}

static size_t author_of(const char *name) {
    for (size_t i = 0; i < all.authors_count; i++)
        if (!strcmp(all.authors[i].principal, name))
            return i;
    size_t at = all.authors_count++;
    struct kiln_author *author = &all.authors[at];
    kiln_autofree char *file = stack_role_file(&all.stack, name, "record.key");
    must(kiln_sign_key_load(AT_FDCWD, file, &all.keys[at], NULL) == 0, file);
    snprintf(author->principal, sizeof author->principal, "%s", name);
    must(getrandom(&author->incarnation, sizeof author->incarnation, 0) == sizeof author->incarnation, "random bytes");
    return at;
}

// One record on its way, and why it is to be refused.
struct draft {
    const struct topic *topic;
    uint32_t partition;
    unsigned char key[4096];
    size_t key_len;
    struct kiln_buf value, signature;
    unsigned char print[16];
    size_t print_len;
    unsigned signatures, prints, others; // how often each header comes
    const char *words;
};

static void set_value(struct draft *draft, const void *bytes, size_t len) {
    kiln_buf_reset(&draft->value);
    kiln_buf_add(&draft->value, bytes, len);
}

// The header kiln-fp of what the value says it is.
static void set_print(struct draft *draft) {
    struct kiln_frame frame;
    draft->prints = kiln_frame_describe(draft->value.data, draft->value.len, &frame, NULL) == 0;
    for (int i = 0; draft->prints && i < 8; i++)
        draft->print[i] = (unsigned char)(frame.fingerprint >> (56 - 8 * i));
    draft->print_len = 8;
}

static void sign(struct draft *draft, const char *name, int64_t away_ms, const char *topic, uint32_t partition) {
    size_t at = author_of(name);
    struct kiln_author *author = &all.authors[at];
    author->sequence++;
    author->at_ms = (uint64_t)((int64_t)kiln_clock_wall_ms() + away_ms);
    const struct kiln_statement statement = {.topic = topic, .partition = partition, .key = draft->key, .key_len = draft->key_len,
                                             .value = draft->value.data, .value_len = draft->value.len};
    kiln_buf_reset(&draft->signature);
    must(kiln_statement_sign(&statement, author, all.keys[at], &draft->signature, NULL) == 0, "cannot sign");
    draft->signatures = 1;
}

static void sign_rightly(struct draft *draft) { sign(draft, draft->topic->author, 0, draft->topic->name, draft->partition); }

static const char *word_of_form(const struct draft *draft) {
    struct kiln_frame frame;
    return kiln_frame_describe(draft->value.data, draft->value.len, &frame, NULL) ? "framing" : "form";
}

static const struct valid *some_valid(const struct topic *topic) {
    size_t count = 0;
    while (count < TYPES_MAX && topic->types[count])
        count++;
    return valid_of(topic->types[roll(count)]);
}

static bool is_taken(const struct draft *draft) { // by an honest reader
    for (size_t i = 0; i < TYPES_MAX; i++)
        if (draft->topic->types[i] && has_form(draft->topic->types[i], draft->value.data, draft->value.len))
            return true;
    return false;
}

static void flip_bits(struct draft *draft, const struct valid *from) {
    do {
        set_value(draft, from->bytes, from->len);
        for (uint64_t times = 1 + roll(3); times; times--)
            draft->value.data[roll(from->len)] ^= (unsigned char)(1u << roll(8));
    } while (is_taken(draft));
}

static void set_body(struct draft *draft, const struct valid *from, bool counts) {
    unsigned char bytes[512];
    size_t len;
    do {
        len = 5 + roll(sizeof bytes - 5);
        fill(bytes, len);
        memcpy(bytes, from->bytes, 5);
        // Lengths and counts of 2^62, negative ones, numbers that never end; deep in the record, too.
        size_t at = 5 + roll(from->len - 5);
        if (counts) {
            static const unsigned char numbers[][10] = {
                {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
                {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01},
                {0xfe, 0xff, 0xff, 0xff, 0x0f}, {0x81, 0x80, 0x80, 0x10}};
            if (at > sizeof bytes - 10)
                at = sizeof bytes - 10;
            memcpy(bytes, from->bytes, at);
            memcpy(bytes + at, numbers[roll(sizeof numbers / sizeof *numbers)], 10);
            len = at + 10;
        }
        set_value(draft, bytes, len);
    } while (is_taken(draft));
}

// A valid record, not signed yet: what is wrong shall be made so.
static void start(struct draft *draft, const struct valid *from) {
    set_value(draft, from->bytes, from->len);
    draft->key_len = KEY_BYTES;
    fill(draft->key, KEY_BYTES);
    draft->others = 0;
    set_print(draft);
}

static void finish_signed(struct draft *draft, const char *words) {
    set_print(draft);
    sign_rightly(draft);
    draft->words = words ? words : word_of_form(draft);
}

static void cut(struct draft *draft, const struct valid *from, size_t len) {
    start(draft, from);
    draft->value.len = len;
    finish_signed(draft, NULL);
    must(!is_taken(draft), "a truncated record has the right form");
}

static void make_signed(struct draft *draft, enum kind kind, const struct valid *from) {
    unsigned char *value = draft->value.data;
    switch (kind) {
    case CUT: cut(draft, from, 1 + roll(from->len - 1)); return;
    case FLIPPED: flip_bits(draft, from); break;
    case RANDOM_BODY: set_body(draft, from, false); break;
    case COUNTS: set_body(draft, from, true); break;
    case MISPLACED: set_value(draft, valid_of(draft->topic->misplaced)->bytes, valid_of(draft->topic->misplaced)->len); break;
    case NO_FRAME: fill(value, 5), value[0] = (unsigned char)(1 + roll(255)); break;
    case UNKNOWN_ID: fill(value + 1, 4), value[1] |= 0x80; break;
    default: value[3] = 0x03, value[4] = 0xe9; break; // RETIRED_ID: 1001
    }
    finish_signed(draft, NULL);
}

static void make_unprinted(struct draft *draft, enum kind kind) {
    draft->words = "fingerprint";
    if (kind == NO_PRINT)
        draft->prints = 0;
    else if (kind == WRONG_PRINT)
        draft->print[roll(8)] ^= (unsigned char)(1u << roll(8));
    else if (kind == TWO_PRINTS)
        draft->prints = 2;
    else
        draft->print_len = roll(2) ? roll(8) : 9;
}

static void make_unsigned(struct draft *draft, enum kind kind) {
    draft->words = "signature";
    const char *topic = draft->topic->name;
    switch (kind) {
    case FLIPPED_LATER: draft->value.data[roll(draft->value.len)] ^= (unsigned char)(1u << roll(8)); break;
    case KEY_CHANGED: draft->key[roll(draft->key_len)] ^= 1; break;
    case MOVED: sign(draft, draft->topic->author, 0, topic, draft->partition + 1); break;
    case OTHER_TOPIC: sign(draft, draft->topic->author, 0, strcmp(topic, "kiln.jobs") ? "kiln.jobs" : "kiln.work", draft->partition); break;
    case NO_SIGNATURE: draft->signatures = 0; break;
    case TWO_SIGNATURES: draft->signatures = 2; break;
    case EMPTY_SIGNATURE: draft->signature.len = 0; break;
    case CUT_SIGNATURE: draft->signature.len = roll(draft->signature.len); break;
    case FLIPPED_SIGNATURE: draft->signature.data[roll(draft->signature.len)] ^= (unsigned char)(1u << roll(8));
        draft->words = "signature|unknown_principal"; break;
    case LONG_SIGNATURE: {
        unsigned char more[8000];
        fill(more, sizeof more);
        kiln_buf_add(&draft->signature, more, 1 + roll(sizeof more - 1));
        break;
    }
    case FORGED: { // with a key that is not the principal's
        size_t at = author_of(draft->topic->author);
        struct kiln_sign_key *own = all.keys[at];
        all.keys[at] = all.stranger;
        sign_rightly(draft);
        all.keys[at] = own;
        break;
    }
    case MANY_HEADERS: draft->signatures = 0, draft->others = 100; break;
    default: // NOTHING_AT_ALL
        draft->signatures = draft->prints = 0;
        draft->key_len = strcmp(topic, "kiln.state") ? 0 : KEY_BYTES; // brokers want a key in a compacted topic
        fill(draft->value.data, draft->value.len);
        draft->value.len = roll(2) ? 0 : roll(draft->value.len);
    }
}

static void make_unknown(struct draft *draft) {
    size_t at = author_of(draft->topic->author);
    struct kiln_author *author = &all.authors[at], before = *author;
    snprintf(author->principal, sizeof author->principal, "nobody-%u", (unsigned)roll(1000));
    const struct kiln_statement statement = {.topic = draft->topic->name, .partition = draft->partition, .key = draft->key,
                                             .key_len = draft->key_len, .value = draft->value.data, .value_len = draft->value.len};
    kiln_buf_reset(&draft->signature);
    must(kiln_statement_sign(&statement, author, all.stranger, &draft->signature, NULL) == 0, "cannot sign");
    *author = before;
    draft->words = "unknown_principal";
}

static void make_huge(struct draft *draft) {
    size_t len = (KILN_RECORD_BYTES_MAX + 1) + roll(HUGE_BYTES - KILN_RECORD_BYTES_MAX);
    kiln_autofree unsigned char *bytes = malloc(len);
    fill(bytes, 4096);
    for (size_t at = 4096; at < len; at += 4096)
        memcpy(bytes + at, bytes, len - at < 4096 ? len - at : 4096);
    memcpy(bytes, draft->value.data, 5);
    set_value(draft, bytes, len);
    sign_rightly(draft);
    draft->words = "size";
}

static void make(struct draft *draft, enum kind kind, const struct valid *from) {
    start(draft, from);
    bool inside = kind <= MISPLACED || kind == NO_FRAME || kind == UNKNOWN_ID || kind == RETIRED_ID;
    if (!inside)
        sign_rightly(draft);
    if (inside) {
        make_signed(draft, kind, from);
    } else if (kind >= NO_PRINT && kind <= SHORT_PRINT) {
        make_unprinted(draft, kind);
    } else if (kind == CLOCK_BACK || kind == CLOCK_AHEAD) {
        draft->value.len = 1 + roll(from->len - 1);
        set_print(draft);
        sign(draft, draft->topic->author, kind == CLOCK_BACK ? -(int64_t)AWAY_MS : AWAY_MS, draft->topic->name, draft->partition);
        draft->words = "clock";
    } else if (kind == HUGE_VALUE) {
        make_huge(draft);
    } else if (kind == LONG_KEY) {
        draft->key_len = KILN_BUS_KEY_BYTES_MAX + 1 + roll(sizeof draft->key - KILN_BUS_KEY_BYTES_MAX);
        fill(draft->key, draft->key_len);
        draft->words = "size";
    } else if (kind == UNKNOWN_NAME) {
        make_unknown(draft);
    } else if (kind == WRONG_ROLE && draft->topic->intruder) {
        sign(draft, draft->topic->intruder, 0, draft->topic->name, draft->partition);
        draft->words = "wrong_role";
    } else {
        make_unsigned(draft, kind);
    }
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    must(message->err == 0, rd_kafka_err2str(message->err));
    printf("%s %d %lld %zu %s\n", rd_kafka_topic_name(message->rkt), (int)message->partition, (long long)message->offset, message->len,
           (const char *)message->_private);
}

static void produce(const struct draft *draft) {
    rd_kafka_headers_t *headers = rd_kafka_headers_new(8);
    for (unsigned i = 0; i < draft->others; i++) {
        char name[24];
        snprintf(name, sizeof name, "kiln-sig%c%u", (int)('a' + roll(26)), i);
        rd_kafka_header_add(headers, name, -1, draft->key, (ssize_t)roll(KEY_BYTES));
    }
    for (unsigned i = 0; i < draft->signatures; i++)
        rd_kafka_header_add(headers, "kiln-sig", -1, draft->signature.data, (ssize_t)draft->signature.len);
    for (unsigned i = 0; i < draft->prints; i++)
        rd_kafka_header_add(headers, "kiln-fp", -1, draft->print, (ssize_t)draft->print_len);
    for (;;) {
        rd_kafka_resp_err_t error = rd_kafka_producev(
            all.client, RD_KAFKA_V_TOPIC(draft->topic->name), RD_KAFKA_V_PARTITION((int32_t)draft->partition),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(draft->key_len ? draft->key : NULL, draft->key_len),
            RD_KAFKA_V_VALUE(draft->value.len ? draft->value.data : NULL, draft->value.len), RD_KAFKA_V_HEADERS(headers),
            RD_KAFKA_V_OPAQUE((void *)(uintptr_t)draft->words), RD_KAFKA_V_END);
        if (!error)
            return;
        must(error == RD_KAFKA_RESP_ERR__QUEUE_FULL, rd_kafka_err2str(error));
        rd_kafka_poll(all.client, 100);
    }
}

static uint32_t partitions_of(const char *name) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(all.client, name, NULL);
    must(rd_kafka_metadata(all.client, 0, topic, &metadata, 20000) == 0 && metadata->topic_cnt == 1, name);
    uint32_t count = (uint32_t)metadata->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(topic);
    must(count > 0, name);
    return count;
}

// The one before in the same partition comes once more when it got as far as the look at its sequence.
static bool may_come_again(const struct draft *draft) {
    return draft->words && (!strcmp(draft->words, "form") || !strcmp(draft->words, "framing") || !strcmp(draft->words, "fingerprint")) &&
           draft->signatures == 1;
}

static void fill_topic(const struct topic *topic, uint64_t count) {
    struct draft *drafts = calloc(256, sizeof *drafts);
    uint32_t partitions = partitions_of(topic->name);
    uint64_t huge = 0;
    size_t type = 0, len = !strcmp(topic->name, "kiln.state"); // an empty record there deletes its key
    for (uint32_t i = 0; i < partitions; i++)
        drafts[i] = (struct draft){.topic = topic, .partition = i, .value = KILN_BUF_INIT(1 << 20), .signature = KILN_BUF_INIT(1 << 14)};
    for (uint64_t i = 0, kind = 0; i < count; i++) {
        struct draft *draft = &drafts[i % partitions];
        if (type < TYPES_MAX && topic->types[type]) {
            const struct valid *from = valid_of(topic->types[type]);
            cut(draft, from, len++);
            if (len == from->len)
                type++, len = !strcmp(topic->name, "kiln.state");
        } else {
            enum kind wanted = (enum kind)(kind++ % KINDS);
            if (wanted == HUGE_VALUE && huge++ >= HUGE_MAX)
                wanted = FLIPPED;
            if (wanted == REPLAYED && may_come_again(draft))
                draft->words = "replayed";
            else
                make(draft, wanted == REPLAYED ? COUNTS : wanted, some_valid(topic));
        }
        produce(draft);
        rd_kafka_poll(all.client, 0);
    }
    must(rd_kafka_flush(all.client, 120000) == 0, "the brokers do not take it");
    for (uint32_t i = 0; i < partitions; i++) {
        kiln_buf_release(&drafts[i].value);
        kiln_buf_release(&drafts[i].signature);
    }
    free(drafts);
}

static void read_valid(void) {
    char name[64], hex[4096];
    while (all.valid_count < 32 && scanf("%63s %4095s", name, hex) == 2) {
        struct valid *valid = &all.valid[all.valid_count++];
        for (valid->len = 0; hex[2 * valid->len]; valid->len++) {
            unsigned byte;
            must(sscanf(hex + 2 * valid->len, "%2x", &byte) == 1, "no hex");
            valid->bytes[valid->len] = (unsigned char)byte;
        }
        must(kiln_record_type_of(valid->bytes, valid->len, &valid->type, NULL) == 0 && has_form(valid->type, valid->bytes, valid->len), name);
    }
}

static void connect_as_operator(void) {
    char why[512];
    kiln_autofree char *brokers = stack_env(&all.stack, "KILN_STACK_BROKERS"), *ca = stack_role_file(&all.stack, "operator", "ca.crt"),
                       *cert = stack_role_file(&all.stack, "operator", "tls.crt"), *key = stack_role_file(&all.stack, "operator", "tls.key");
    const char *settings[][2] = {{"bootstrap.servers", brokers}, {"security.protocol", "ssl"}, {"ssl.ca.location", ca},
                                 {"ssl.certificate.location", cert}, {"ssl.key.location", key}, {"enable.idempotence", "true"},
                                 {"linger.ms", "5"}, {"message.max.bytes", "1048576"}, {"queue.buffering.max.kbytes", "65536"}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        must(rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why) == RD_KAFKA_CONF_OK, settings[i][0]);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    must((all.client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why)) != NULL, why);
}

int main(int argc, char **argv) {
    must(argc == 4, "STACK COUNT SEED");
    snprintf(all.stack.dir, sizeof all.stack.dir, "%s", argv[1]);
    all.dice = strtoull(argv[3], NULL, 10);
    read_valid();
    char root[300]; // a key that is no principal's
    snprintf(root, sizeof root, "%s/roots/root-1", all.stack.dir);
    must(kiln_sign_key_load(AT_FDCWD, root, &all.stranger, NULL) == 0, root);
    connect_as_operator();
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        fill_topic(&topics[i], strtoull(argv[2], NULL, 10));
    rd_kafka_destroy(all.client);
    for (size_t i = 0; i < all.authors_count; i++)
        kiln_sign_key_free(all.keys[i]);
    kiln_sign_key_free(all.stranger);
    return 0;
}
