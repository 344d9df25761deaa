#include "lib/bus/bus_kafka_admit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "lib/bus/bus_kafka_topics.h"
#include "lib/wire/frame.h"

#define SKEW_MS_DEFAULT (10u * 60 * 1000)

struct seen { // of one incarnation in one partition
    TAILQ_ENTRY(seen) by_age;
    LIST_ENTRY(seen) by_hash;
    struct kiln_digest id;
    uint64_t sequence, offset;
};
LIST_HEAD(bucket, seen);

struct kiln_kafka_gate {
    struct kiln_kafka_gate_options options;
    TAILQ_HEAD(, seen) ages; // the least recently used first
    struct seen *seen;
    size_t used;
    struct bucket *buckets; // window_max of them
};

int kiln_kafka_gate_new(const struct kiln_kafka_gate_options *options, struct kiln_kafka_gate **result,
                        struct kiln_err *err) {
    struct kiln_kafka_gate *gate = calloc(1, sizeof *gate);
    if (gate) {
        gate->options = *options;
        if (!gate->options.skew_ms)
            gate->options.skew_ms = SKEW_MS_DEFAULT;
        TAILQ_INIT(&gate->ages);
        gate->seen = calloc(options->window_max, sizeof *gate->seen);
        gate->buckets = calloc(options->window_max, sizeof *gate->buckets);
    }
    if (!gate || !gate->seen || !gate->buckets) {
        kiln_kafka_gate_free(gate);
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    }
    *result = gate;
    return 0;
}

void kiln_kafka_gate_free(struct kiln_kafka_gate *gate) {
    if (!gate)
        return;
    free(gate->seen);
    free(gate->buckets);
    free(gate);
}

// Fixed-size parts first, so that no two lists of names give the same bytes.
static void identify(const struct kiln_kafka_arrival *arrival, const struct kiln_author *author, struct kiln_digest *id) {
    unsigned char bytes[sizeof author->incarnation.bytes + 8 + sizeof author->principal] = {0};
    size_t at = sizeof author->incarnation.bytes;
    memcpy(bytes, author->incarnation.bytes, at);
    memcpy(bytes + at, &arrival->partition, sizeof arrival->partition);
    bytes[at + 4] = (unsigned char)arrival->topic;
    memcpy(bytes + at + 8, author->principal, strlen(author->principal));
    kiln_digest_of(bytes, sizeof bytes, id);
}

static struct bucket *bucket_of(struct kiln_kafka_gate *gate, const struct kiln_digest *id) {
    uint64_t hash;
    memcpy(&hash, id->bytes, sizeof hash);
    return &gate->buckets[hash % gate->options.window_max];
}

static struct seen *find_seen(struct kiln_kafka_gate *gate, const struct kiln_digest *id) {
    struct seen *seen;
    LIST_FOREACH(seen, bucket_of(gate, id), by_hash) if (kiln_digest_equal(&seen->id, id)) return seen;
    return NULL;
}

static struct seen *add_seen(struct kiln_kafka_gate *gate, const struct kiln_digest *id) {
    struct seen *seen;
    if (gate->used < gate->options.window_max) {
        seen = &gate->seen[gate->used++];
    } else {
        seen = TAILQ_FIRST(&gate->ages);
        TAILQ_REMOVE(&gate->ages, seen, by_age);
        LIST_REMOVE(seen, by_hash);
    }
    *seen = (struct seen){.id = *id};
    LIST_INSERT_HEAD(bucket_of(gate, id), seen, by_hash);
    TAILQ_INSERT_TAIL(&gate->ages, seen, by_age);
    return seen;
}

static bool is_replay(struct kiln_kafka_gate *gate, const struct kiln_kafka_arrival *arrival,
                      const struct kiln_author *author) {
    struct kiln_digest id;
    identify(arrival, author, &id);
    struct seen *seen = find_seen(gate, &id);
    if (!seen) {
        seen = add_seen(gate, &id);
    } else {
        TAILQ_REMOVE(&gate->ages, seen, by_age);
        TAILQ_INSERT_TAIL(&gate->ages, seen, by_age);
        if (author->sequence <= seen->sequence)
            return arrival->offset > seen->offset;
    }
    seen->sequence = author->sequence;
    seen->offset = arrival->offset;
    return false;
}

static const char *check_form(const struct kiln_kafka_arrival *arrival) {
    if (arrival->value_len > KILN_RECORD_BYTES_MAX)
        return "size: the record is larger than 256 KiB";
    if (arrival->key_len > KILN_BUS_KEY_BYTES_MAX)
        return "size: the key is longer than 64 bytes";
    if (!arrival->signature)
        return "signature: there is not exactly one header kiln-sig";
    return NULL;
}

static uint64_t be64(const unsigned char *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

static const char *check_fingerprint(const struct kiln_kafka_arrival *arrival) {
    if (arrival->value_len == 0) // deletes its key
        return arrival->topic == KILN_TOPIC_STATE ? NULL : "framing: the record is empty";
    struct kiln_frame frame;
    if (kiln_frame_describe(arrival->value, arrival->value_len, &frame, NULL))
        return "framing: the record names no schema that is known";
    if (!arrival->fingerprint || arrival->fingerprint_len != 8)
        return "fingerprint: there is not exactly one header kiln-fp of 8 bytes";
    if (be64(arrival->fingerprint) != frame.fingerprint)
        return "fingerprint: kiln-fp is not that of the schema the record names";
    return NULL;
}

static const char *check_signature(struct kiln_kafka_gate *gate, const struct kiln_kafka_arrival *arrival,
                                   struct kiln_author *author) {
    char name[KILN_PRINCIPAL_BYTES];
    struct kiln_principal principal;
    if (kiln_statement_principal(arrival->signature, arrival->signature_len, name, NULL))
        return "signature: kiln-sig is not of its form";
    if (!gate->options.find(gate->options.context, name, &principal))
        return "unknown_principal: the trust record in force does not have who signed it";
    const struct kiln_statement statement = {
        .topic = arrival->topic_name,
        .partition = arrival->partition,
        .key = arrival->key,
        .key_len = arrival->key_len,
        .value = arrival->value,
        .value_len = arrival->value_len,
    };
    if (kiln_statement_check(&statement, arrival->signature, arrival->signature_len, &principal, author, NULL))
        return "signature: kiln-sig does not hold for this record";
    return NULL;
}

static const char *check_clock(const struct kiln_kafka_gate *gate, uint64_t now_ms, uint64_t at_ms) {
    if (now_ms == 0)
        return NULL;
    if (at_ms > now_ms ? at_ms - now_ms > gate->options.skew_ms : now_ms - at_ms > gate->options.skew_ms)
        return at_ms > now_ms ? "clock: it was signed in the future" : "clock: it was signed too long ago";
    return NULL;
}

const char *kiln_kafka_gate_admit(struct kiln_kafka_gate *gate, const struct kiln_kafka_arrival *arrival,
                                  struct kiln_author *author) {
    *author = (struct kiln_author){0};
    const char *why = check_form(arrival);
    if (!why)
        why = check_signature(gate, arrival, author);
    if (!why && !kiln_kafka_may_write(arrival->topic, author->role))
        why = "wrong_role: who signed it may not write this topic";
    if (!why)
        why = check_clock(gate, arrival->now_ms, author->at_ms);
    if (!why && is_replay(gate, arrival, author))
        why = "replayed: its sequence is not above that of an earlier record";
    if (!why)
        why = check_fingerprint(arrival);
    return why;
}
