// Administration of a Kafka cluster: topics with their settings, and who may do what.
//
// All calls are idempotent: what is there as asked for is success. A topic that is there with another number of
// partitions or another cleanup policy is an error that says so, since changing either moves or loses records; other
// settings of a topic that is there are left to its operator.
// Thread: an admin handle belongs to one thread.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct kiln_kafka_admin;

struct kiln_kafka_admin_options {
    const char *brokers;
    const char *tls_ca, *tls_cert, *tls_key; // PEM files; all NULL: plaintext
    uint64_t request_ms;                     // 0: 20 s
};

int kiln_kafka_admin_open(const struct kiln_kafka_admin_options *options, struct kiln_kafka_admin **admin, struct kiln_err *err);
void kiln_kafka_admin_close(struct kiln_kafka_admin *admin);

#define KILN_KAFKA_TOPIC_SETTINGS_MAX 8u
struct kiln_kafka_topic {
    char name[250]; // Kafka's limit is 249
    uint32_t partitions, replication;
    struct {
        const char *name, *value; // borrowed
    } settings[KILN_KAFKA_TOPIC_SETTINGS_MAX]; // ended by a NULL name
};
int kiln_kafka_admin_make_topics(struct kiln_kafka_admin *admin, const struct kiln_kafka_topic *topics, size_t count,
                                 size_t *made, struct kiln_err *err);

enum kiln_kafka_thing { KILN_KAFKA_TOPIC, KILN_KAFKA_TOPICS_BELOW, KILN_KAFKA_GROUP, KILN_KAFKA_GROUPS_BELOW };
enum kiln_kafka_deed { KILN_KAFKA_READ, KILN_KAFKA_WRITE, KILN_KAFKA_DESCRIBE };
struct kiln_kafka_right {
    char principal[80]; // "User:agent-1"
    enum kiln_kafka_thing thing;
    char name[250];     // of the topic or group; the beginning of its name with ..._BELOW
    enum kiln_kafka_deed deed;
};
// Returns when a broker honours them.
int kiln_kafka_admin_allow(struct kiln_kafka_admin *admin, const struct kiln_kafka_right *rights, size_t count,
                           struct kiln_err *err);
// Takes away all rights of a principal on topics and groups. *taken: how many.
int kiln_kafka_admin_forbid(struct kiln_kafka_admin *admin, const char *principal, size_t *taken, struct kiln_err *err);
