// Whether a record from a topic may be believed: size, frame and fingerprint, signature against the trust record, the role
// that may write there, its clock, and that it was not seen before. Everything here is hostile until it has passed.
//
// A replay is a record whose sequence is not above the last one of the same incarnation in the same partition, at a higher
// offset; the same offset again is the bus's own at-least-once. The window is bounded: the least recently used incarnation
// is forgotten, and after that the clock bounds how old a repeated record can be. Thread: one per gate.
#pragma once

#include "lib/bus/bus_kafka.h"

struct kiln_kafka_arrival { // borrowed
    enum kiln_topic topic;
    const char *topic_name; // the real one
    uint32_t partition;
    uint64_t offset;
    const void *key, *value, *signature, *fingerprint; // NULL: absent (headers also: more than one)
    size_t key_len, value_len, signature_len, fingerprint_len;
    uint64_t now_ms; // the broker's clock when the topic is stamped by it, else ours; 0: any age is right (kiln.state)
};

struct kiln_kafka_gate;

struct kiln_kafka_gate_options {
    bool (*find)(void *context, const char *principal, struct kiln_principal *found);
    void *context;
    uint64_t skew_ms;  // 0: 10 minutes
    size_t window_max; // incarnations by partition that are remembered
};

int kiln_kafka_gate_new(const struct kiln_kafka_gate_options *options, struct kiln_kafka_gate **gate, struct kiln_err *err);
void kiln_kafka_gate_free(struct kiln_kafka_gate *gate);
// NULL: it may come in. Else the reason, a static text "word: detail". *author is filled once the signature holds, also
// for what is refused after that; else zeroed.
const char *kiln_kafka_gate_admit(struct kiln_kafka_gate *gate, const struct kiln_kafka_arrival *arrival,
                                  struct kiln_author *author);
