// Publishing. Traps of librdkafka 2.0.2 met here: the first record to a topic by name waits up to a second (topic handles
// are made first, and producev is given the handle); an idempotent producer may end with a fatal error after a disconnect
// (it is made anew); without a dr_msg_cb flushing goes in steps of 10 ms.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/bus/bus_kafka_handle.h"
#include "lib/wire/frame.h"

enum { POLL_MS = 50, PROBE_EVERY_MS = 250, PROBE_MS = 1000, PURGE_MS = 200 };

// What a delivery report has to know travels in the message's opaque pointer.
#define TOPIC_BITS 4
_Static_assert(KILN_TOPIC_COUNT <= 1 << TOPIC_BITS, "a topic fits");

static void *opaque_of(uint64_t number, enum kiln_topic topic) {
    return (void *)(uintptr_t)(number << TOPIC_BITS | (uint64_t)topic);
}

// A topic that cannot be written is a mistake of the operator that no repetition heals, and a tenant without a topic must
// not hold up others. Only state is different: without it, acks would lose jobs.
static bool is_permanent(rd_kafka_resp_err_t error, enum kiln_topic topic) {
    switch (error) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
        return topic != KILN_TOPIC_STATE;
    default:
        return false;
    }
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    (void)rk;
    struct kiln_kafka *kafka = opaque;
    uint64_t packed = (uint64_t)(uintptr_t)message->_private;
    enum kiln_topic topic = packed & ((1 << TOPIC_BITS) - 1);
    bool failed = message->err != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (failed) {
        kiln_kafka_count_failure(kafka, &kafka->stats.failed, rd_kafka_topic_name(message->rkt), rd_kafka_err2str(message->err));
    } else {
        kiln_kafka_count(kafka, &kafka->stats.delivered);
        kiln_kafka_health_alive(&kafka->health);
    }
    kiln_kafka_acks_settle(&kafka->acks, packed >> TOPIC_BITS, failed && !is_permanent(message->err, topic));
}

// Under the lock. The handle asks for the topic's leader at once.
static rd_kafka_topic_t *find_topic(struct kiln_kafka_producer *producer, const char *name) {
    for (size_t i = 0; i < producer->topics_count; i++) {
        if (strcmp(producer->topics[i].name, name) == 0)
            return producer->topics[i].handle;
    }
    if (producer->topics_count == KILN_KAFKA_PRODUCED_TOPICS_MAX)
        return NULL;
    struct kiln_kafka_produced *added = &producer->topics[producer->topics_count];
    added->handle = rd_kafka_topic_new(producer->rk, name, NULL);
    if (!added->handle)
        return NULL;
    snprintf(added->name, sizeof added->name, "%s", name);
    producer->topics_count++;
    return added->handle;
}

static int make(struct kiln_kafka *kafka, rd_kafka_t **rk, struct kiln_err *err) {
    rd_kafka_conf_t *conf;
    int rc = kiln_kafka_conf_new(&kafka->options, KILN_KAFKA_PRODUCES, &conf, err);
    if (rc)
        return rc;
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return kiln_kafka_new(kafka, RD_KAFKA_PRODUCER, conf, rk, err);
}

// The topics that the role writes and whose names are known. For others (a reader's) one to ask for.
static void make_topics(struct kiln_kafka *kafka) {
    char name[KILN_KAFKA_TOPIC_BYTES];
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        if (topic != KILN_TOPIC_RESULTS && kiln_kafka_may_write(topic, kafka->options.role) &&
            kiln_kafka_topic_name(kafka->options.topic_prefix, topic, NULL, name, NULL) == 0)
            find_topic(&kafka->producer, name);
    }
    if (!kafka->producer.topics_count && kiln_kafka_topic_name(kafka->options.topic_prefix, KILN_TOPIC_EVENTS, NULL, name, NULL) == 0)
        find_topic(&kafka->producer, name);
}

static void drop_topics(struct kiln_kafka_producer *producer) {
    while (producer->topics_count)
        rd_kafka_topic_destroy(producer->topics[--producer->topics_count].handle);
}

static void *destroy_run(void *rk) {
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return NULL;
}

// The library's destroy may wait for ever on brokers that do not answer: it has a thread of its own.
static void destroy_detached(rd_kafka_t *rk) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, destroy_run, rk) == 0)
        pthread_detach(thread);
}

// The records of the old producer get their reports here, as failed when they were not delivered.
static void settle_all(rd_kafka_t *rk) {
    uint64_t until_ms = kiln_clock_ms() + PURGE_MS;
    rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (rd_kafka_outq_len(rk) > 0 && kiln_clock_ms() < until_ms)
        rd_kafka_poll(rk, 10);
}

// After a fatal error. Without memory for another one the old one stays, and every publish fails.
static void make_anew(struct kiln_kafka *kafka) {
    struct kiln_kafka_producer *producer = &kafka->producer;
    rd_kafka_t *fresh, *old = producer->rk;
    struct kiln_err err = {0};
    char why[200];
    rd_kafka_fatal_error(old, why, sizeof why);
    kiln_kafka_count_failure(kafka, &kafka->stats.producers, "producer", why);
    if (make(kafka, &fresh, &err))
        return;
    pthread_mutex_lock(&producer->lock);
    uint64_t last = kiln_kafka_acks_last(&kafka->acks); // of the old one: numbers are given under this lock
    producer->rk = fresh;
    drop_topics(producer);
    make_topics(kafka);
    pthread_mutex_unlock(&producer->lock);
    settle_all(old);
    kiln_kafka_acks_abandon(&kafka->acks, last);
    destroy_detached(old);
}

static void probe(struct kiln_kafka *kafka) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = rd_kafka_metadata(kafka->producer.rk, 0, kafka->producer.topics[0].handle, &metadata, PROBE_MS);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_metadata_destroy(metadata);
        kiln_kafka_health_alive(&kafka->health);
    } else {
        kiln_kafka_health_down(&kafka->health, rd_kafka_err2str(error));
    }
}

static void *run(void *arg) {
    struct kiln_kafka *kafka = arg;
    uint64_t probed_ms = 0;
    while (!kafka->closing) {
        rd_kafka_poll(kafka->producer.rk, POLL_MS); // only this thread replaces rk
        if (rd_kafka_fatal_error(kafka->producer.rk, NULL, 0))
            make_anew(kafka);
        if (kiln_kafka_health_is_wanted(&kafka->health) && kiln_clock_ms() - probed_ms >= PROBE_EVERY_MS && !kafka->closing) {
            probe(kafka);
            probed_ms = kiln_clock_ms();
        }
    }
    return NULL;
}

int kiln_kafka_producer_open(struct kiln_kafka *kafka, struct kiln_err *err) {
    struct kiln_kafka_producer *producer = &kafka->producer;
    producer->self.role = kafka->options.role;
    snprintf(producer->self.principal, sizeof producer->self.principal, "%s", kafka->options.principal);
    producer->self.incarnation = kafka->options.incarnation;
    producer->topics = calloc(KILN_KAFKA_PRODUCED_TOPICS_MAX, sizeof *producer->topics);
    if (!producer->topics)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    int rc = make(kafka, &producer->rk, err);
    if (rc)
        return rc;
    kafka->stats.producers = 1;
    make_topics(kafka);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the program's own threads
    producer->started = producer->topics_count && pthread_create(&producer->thread, NULL, run, kafka) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return producer->started ? 0 : kiln_fail(err, KILN_E_IO, "bus: cannot start the producer");
}

static rd_kafka_headers_t *make_headers(const struct kiln_author *self, const struct kiln_record *record,
                                        const struct kiln_buf *signature) {
    static const char *const role_names[] = {"nobody", "agent", "verifier", "executor", "reader", "operator"};
    char text[3 * KILN_PRINCIPAL_BYTES];
    rd_kafka_headers_t *headers = rd_kafka_headers_new(8);
    struct kiln_frame frame;
    rd_kafka_header_add(headers, KILN_KAFKA_HEADER_SIGNATURE, -1, signature->data, (ssize_t)signature->len);
    rd_kafka_header_add(headers, "content-type", -1, "application/avro", -1);
    rd_kafka_header_add(headers, "ce_specversion", -1, "1.0", -1);
    snprintf(text, sizeof text, "kiln/%s/%s", role_names[self->role], self->principal);
    rd_kafka_header_add(headers, "ce_source", -1, text, -1);
    size_t at = 0;
    for (size_t i = 0; i < sizeof self->incarnation.bytes; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%02x", self->incarnation.bytes[i]);
    snprintf(text + at, sizeof text - at, "-%llx", (unsigned long long)self->sequence);
    rd_kafka_header_add(headers, "ce_id", -1, text, -1);
    if (kiln_frame_describe(record->value, record->value_len, &frame, NULL) == 0) {
        unsigned char fingerprint[8];
        for (int i = 0; i < 8; i++)
            fingerprint[i] = (unsigned char)(frame.fingerprint >> (56 - 8 * i));
        rd_kafka_header_add(headers, KILN_KAFKA_HEADER_FINGERPRINT, -1, fingerprint, sizeof fingerprint);
        snprintf(text, sizeof text, "kiln.%s.v1", frame.name);
    } else {
        snprintf(text, sizeof text, "kiln.deletion.v1");
    }
    rd_kafka_header_add(headers, "ce_type", -1, text, -1);
    return headers;
}

static int explain(rd_kafka_resp_err_t error, struct kiln_err *err) {
    bool full = error == RD_KAFKA_RESP_ERR__QUEUE_FULL;
    int rc = kiln_fail(err, full ? KILN_E_LIMIT : KILN_E_IO, "%s", rd_kafka_err2str(error));
    if (err)
        err->retriable = full || error == RD_KAFKA_RESP_ERR__FATAL;
    return rc;
}

// Under the lock, so that sequences rise in the order in which records are queued.
static int produce(struct kiln_kafka *kafka, const struct kiln_record *record, const char *name, struct kiln_err *err) {
    struct kiln_kafka_producer *producer = &kafka->producer;
    rd_kafka_topic_t *topic = find_topic(producer, name);
    if (!topic)
        return kiln_fail(err, KILN_E_LIMIT, "no handle for topic %s", name);
    producer->self.sequence++;
    producer->self.at_ms = kiln_clock_wall_ms();
    const struct kiln_statement statement = {
        .topic = name,
        .partition = record->partition,
        .key = record->key,
        .key_len = record->key_len,
        .value = record->value,
        .value_len = record->value_len,
    };
    kiln_autobuf struct kiln_buf signature = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    int rc = kiln_statement_sign(&statement, &producer->self, kafka->options.key, &signature, err);
    if (rc)
        return rc;
    uint64_t number = kiln_kafka_acks_begin(&kafka->acks);
    if (!number)
        return explain(RD_KAFKA_RESP_ERR__QUEUE_FULL, err);
    rd_kafka_headers_t *headers = make_headers(&producer->self, record, &signature);
    rd_kafka_resp_err_t error = rd_kafka_producev(
        producer->rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION((int32_t)record->partition),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(record->key_len ? record->key : NULL, record->key_len),
        RD_KAFKA_V_VALUE(record->value_len ? record->value : NULL, record->value_len), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_OPAQUE(opaque_of(number, record->topic)), RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    rd_kafka_headers_destroy(headers);
    kiln_kafka_acks_settle(&kafka->acks, number, false); // the caller knows
    return explain(error, err);
}

int kiln_kafka_publish(struct kiln_bus *bus, const struct kiln_record *record, const char *tenant, struct kiln_err *err) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    char name[KILN_KAFKA_TOPIC_BYTES];
    if (!kiln_kafka_may_write(record->topic, kafka->options.role))
        return kiln_fail(err, KILN_E_DENIED, "the role of %s may not", kafka->options.principal);
    struct kiln_frame frame;
    int rc = 0;
    if (record->value_len || record->topic != KILN_TOPIC_STATE) // what every reader would refuse
        rc = kiln_frame_describe(record->value, record->value_len, &frame, err);
    if (rc == 0)
        rc = kiln_kafka_topic_name(kafka->options.topic_prefix, record->topic, tenant ? tenant : kafka->options.tenant, name, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&kafka->producer.lock);
    rc = produce(kafka, record, name, err);
    pthread_mutex_unlock(&kafka->producer.lock);
    if (rc == 0)
        kiln_kafka_count(kafka, &kafka->stats.published);
    return rc;
}

rd_kafka_t *kiln_kafka_producer_stop(struct kiln_kafka *kafka) {
    struct kiln_kafka_producer *producer = &kafka->producer;
    if (producer->started)
        pthread_join(producer->thread, NULL);
    if (producer->topics)
        drop_topics(producer);
    free(producer->topics);
    rd_kafka_t *rk = producer->rk;
    producer->rk = NULL;
    return rk;
}
