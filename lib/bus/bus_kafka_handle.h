// What the files of the Kafka bus share: one handle, made of a producer, a consumer and what stands between them.
//
// Threads: the producer's (delivery reports, health), the consumer's (records, group), and the callers'. librdkafka calls
// back only in calls that these make.
#pragma once

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#include "lib/bus/bus_kafka.h"
#include "lib/bus/bus_kafka_acks.h"
#include "lib/bus/bus_kafka_admit.h"
#include "lib/bus/bus_kafka_health.h"
#include "lib/bus/bus_kafka_queue.h"
#include "lib/bus/bus_kafka_settings.h"
#include "lib/bus/bus_kafka_topics.h"
#include "lib/bus/bus_ops.h"

#define KILN_KAFKA_HEADER_SIGNATURE "kiln-sig"
#define KILN_KAFKA_HEADER_FINGERPRINT "kiln-fp"
#define KILN_KAFKA_PRODUCED_TOPICS_MAX 1024u // results topics of that many tenants, roughly

struct kiln_kafka_produced {
    char name[KILN_KAFKA_TOPIC_BYTES];
    rd_kafka_topic_t *handle;
};

struct kiln_kafka_producer {
    pthread_mutex_t lock; // of all below but the thread
    rd_kafka_t *rk;
    struct kiln_kafka_produced *topics;
    size_t topics_count;
    struct kiln_author self; // its sequence is that of the last record
    pthread_t thread;
    bool started;
};

struct kiln_kafka_source { // a topic that is read
    enum kiln_topic topic;
    char name[KILN_KAFKA_TOPIC_BYTES];
    rd_kafka_topic_t *handle; // READS
};

struct kiln_kafka_consumer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *records; // where all partitions lead: read only when our own queue has room
    bool in_group;
    struct kiln_kafka_source sources[KILN_TOPIC_COUNT];
    atomic_uint sources_count; // the thread may look while another source is added
    struct {
        unsigned source;
        int32_t partition;
    } *reading; // READS
    size_t reading_count;
    rd_kafka_topic_partition_list_t *assigned; // in_group; the thread's
    uint64_t commit_ms, rewound_ms, assigned_ms; // last; the thread's
    struct kiln_kafka_gate *gate;
    pthread_t thread;
    bool started;
};

struct kiln_kafka {
    struct kiln_bus bus;
    struct kiln_kafka_options options; // with copies of its strings
    struct kiln_kafka_producer producer;
    struct kiln_kafka_consumer consumer;
    rd_kafka_t *restorer; // made at the first restore
    struct kiln_kafka_acks acks;
    struct kiln_kafka_queue queue;
    struct kiln_kafka_health health;
    atomic_bool closing;
    pthread_mutex_t stats_lock;
    struct kiln_kafka_stats stats;
};

static inline struct kiln_kafka *kiln_kafka_of(struct kiln_bus *bus) { return (struct kiln_kafka *)bus; }

void kiln_kafka_count_failure(struct kiln_kafka *kafka, uint64_t *counter, const char *what, const char *why);
void kiln_kafka_count(struct kiln_kafka *kafka, uint64_t *counter);
void kiln_kafka_count_refusal(struct kiln_kafka *kafka, const char *why);
// error_cb of every librdkafka handle.
void kiln_kafka_on_error(rd_kafka_t *rk, int error, const char *reason, void *opaque);
int kiln_kafka_new(struct kiln_kafka *kafka, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **rk,
                   struct kiln_err *err); // takes conf

int kiln_kafka_producer_open(struct kiln_kafka *kafka, struct kiln_err *err);
int kiln_kafka_publish(struct kiln_bus *bus, const struct kiln_record *record, const char *tenant, struct kiln_err *err);
rd_kafka_t *kiln_kafka_producer_stop(struct kiln_kafka *kafka); // joins its thread; what is left is to be destroyed

int kiln_kafka_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                         struct kiln_err *err);
rd_kafka_t *kiln_kafka_consumer_stop(struct kiln_kafka *kafka, uint64_t deadline_ms);
// The partitions of a topic as the brokers have it.
int kiln_kafka_count_partitions(rd_kafka_t *rk, rd_kafka_topic_t *topic, uint64_t deadline_ms, uint32_t *count,
                                struct kiln_err *err);
int kiln_kafka_find_ends(rd_kafka_t *rk, const char *topic, int32_t partition, uint64_t deadline_ms, int64_t *low,
                         int64_t *high, struct kiln_err *err);
// What a message is to the gate. now_ms 0: its age does not matter.
void kiln_kafka_describe(const rd_kafka_message_t *message, enum kiln_topic topic, uint64_t now_ms,
                         struct kiln_kafka_arrival *arrival);
int kiln_kafka_record_from(const struct kiln_kafka_arrival *arrival, struct kiln_record *record, struct kiln_err *err);

// Assignment, commits: called by the consumer's thread.
void kiln_kafka_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *partitions,
                             void *opaque);
void kiln_kafka_on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *offsets, void *opaque);
void kiln_kafka_commit_due(struct kiln_kafka *kafka);
void kiln_kafka_commit_now(struct kiln_kafka *kafka, uint64_t deadline_ms); // waits for the answer
void kiln_kafka_rewind_due(struct kiln_kafka *kafka);
void kiln_kafka_lead_due(struct kiln_kafka *kafka);

int kiln_kafka_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                       int (*visit)(void *context, const struct kiln_record *record), void *context, struct kiln_err *err);
