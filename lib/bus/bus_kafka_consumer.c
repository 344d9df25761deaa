// Reading. One thread takes what the library has fetched, admits it and queues it for the caller's poll; it goes on however
// long the caller is busy, so the group never takes it for dead. All partitions lead into one queue of our own, which is
// left alone while there is no room; pausing and resuming instead would cost up to a second each time (librdkafka 2.0.2).
// Verifiers are a group. Others read partitions from absolute offsets through the simple consumer: no group, no rights on
// one, and a logical offset would cost half a second.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/bus/bus_kafka_handle.h"

enum { WAIT_MS = 50, BURST = 256, SUBSCRIBE_MS = 10000 };

#define WINDOW_OF_GROUP 16384u
#define WINDOW_OF_OTHERS 1024u

int kiln_kafka_count_partitions(rd_kafka_t *rk, rd_kafka_topic_t *topic, uint64_t deadline_ms, uint32_t *count,
                                struct kiln_err *err) {
    const struct rd_kafka_metadata *metadata;
    const char *name = rd_kafka_topic_name(topic);
    rd_kafka_resp_err_t error = rd_kafka_metadata(rk, 0, topic, &metadata, kiln_clock_left_ms(deadline_ms));
    int found = 0;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
            found = metadata->topics[0].partition_cnt;
        else if (metadata->topic_cnt == 1)
            error = metadata->topics[0].err;
        rd_kafka_metadata_destroy(metadata);
    }
    if (error)
        return kiln_fail(err, KILN_E_IO, "topic %s: %s", name, rd_kafka_err2str(error));
    if (found <= 0 || found > (int)KILN_BUS_KAFKA_PARTITIONS_MAX)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "topic %s has %d partitions", name, found);
    *count = (uint32_t)found;
    return 0;
}

int kiln_kafka_find_ends(rd_kafka_t *rk, const char *topic, int32_t partition, uint64_t deadline_ms, int64_t *low,
                         int64_t *high, struct kiln_err *err) {
    rd_kafka_resp_err_t error =
        rd_kafka_query_watermark_offsets(rk, topic, partition, low, high, kiln_clock_left_ms(deadline_ms));
    if (error)
        return kiln_fail(err, KILN_E_IO, "topic %s, partition %d: %s", topic, (int)partition, rd_kafka_err2str(error));
    return 0;
}

// Exactly one header of that name, or NULL.
static const void *only_header(const rd_kafka_headers_t *headers, const char *name, size_t *len) {
    const void *value, *second;
    size_t second_len;
    if (!headers || rd_kafka_header_get(headers, 0, name, &value, len) ||
        rd_kafka_header_get(headers, 1, name, &second, &second_len) == RD_KAFKA_RESP_ERR_NO_ERROR)
        return NULL;
    return value;
}

void kiln_kafka_describe(const rd_kafka_message_t *message, enum kiln_topic topic, uint64_t now_ms,
                         struct kiln_kafka_arrival *arrival) {
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_timestamp_type_t stamped;
    int64_t at_ms = rd_kafka_message_timestamp(message, &stamped);
    if (rd_kafka_message_headers(message, &headers))
        headers = NULL;
    // The broker's own stamp, where it sets one, tells when a record was written however late it is read.
    if (now_ms && stamped == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME && at_ms > 0)
        now_ms = (uint64_t)at_ms;
    *arrival = (struct kiln_kafka_arrival){
        .topic = topic,
        .topic_name = rd_kafka_topic_name(message->rkt),
        .partition = (uint32_t)message->partition,
        .offset = (uint64_t)message->offset,
        .key = message->key,
        .key_len = message->key_len,
        .value = message->payload,
        .value_len = message->len,
        .now_ms = now_ms,
    };
    arrival->signature = only_header(headers, KILN_KAFKA_HEADER_SIGNATURE, &arrival->signature_len);
    arrival->fingerprint = only_header(headers, KILN_KAFKA_HEADER_FINGERPRINT, &arrival->fingerprint_len);
}

int kiln_kafka_record_from(const struct kiln_kafka_arrival *arrival, struct kiln_record *record, struct kiln_err *err) {
    *record = (struct kiln_record){.topic = arrival->topic, .partition = arrival->partition, .offset = arrival->offset};
    record->key_len = arrival->key_len < sizeof record->key ? arrival->key_len : sizeof record->key;
    if (record->key_len)
        memcpy(record->key, arrival->key, record->key_len);
    record->value = malloc(arrival->value_len + 1);
    if (!record->value)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory for a record");
    if (arrival->value_len)
        memcpy(record->value, arrival->value, arrival->value_len);
    record->value_len = arrival->value_len;
    return 0;
}

static const struct kiln_kafka_source *source_of(const struct kiln_kafka_consumer *consumer, const char *name) {
    for (unsigned i = 0; i < consumer->sources_count; i++) {
        if (strcmp(consumer->sources[i].name, name) == 0)
            return &consumer->sources[i];
    }
    return NULL;
}

static void fail(struct kiln_kafka *kafka, int code, const char *why) {
    struct kiln_err failure = {0};
    kiln_fail(&failure, code, "bus: %s", why);
    failure.fatal = true;
    kiln_kafka_queue_fail(&kafka->queue, &failure);
    kiln_kafka_health_down(&kafka->health, why);
}

// Errors come as messages too: the end of a partition, what the broker refuses. Only a fatal one ends the handle.
static void on_consumer_error(struct kiln_kafka *kafka, const rd_kafka_message_t *message) {
    char why[200];
    if (rd_kafka_fatal_error(kafka->consumer.rk, why, sizeof why))
        fail(kafka, KILN_E_CLOSED, why);
    else if (message->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || message->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
             message->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        kiln_kafka_health_down(&kafka->health, rd_kafka_message_errstr(message));
}

static void on_message(struct kiln_kafka *kafka, const rd_kafka_message_t *message) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    const struct kiln_kafka_source *source = message->rkt ? source_of(consumer, rd_kafka_topic_name(message->rkt)) : NULL;
    if (message->err || !source) {
        if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
            on_consumer_error(kafka, message);
        return;
    }
    uint32_t partition = (uint32_t)message->partition;
    if (consumer->in_group && !kiln_kafka_acks_owned(&kafka->acks, source->topic, partition))
        return; // of an assignment that has ended
    struct kiln_kafka_arrival arrival;
    struct kiln_record record;
    struct kiln_author author;
    kiln_kafka_health_alive(&kafka->health);
    kiln_kafka_describe(message, source->topic, kiln_clock_wall_ms(), &arrival);
    const char *why = kiln_kafka_gate_admit(consumer->gate, &arrival, &author);
    if (why)
        kiln_kafka_count_refusal(kafka, why);
    if (why && !consumer->in_group)
        return;
    struct kiln_err err = {0};
    int rc = kiln_kafka_record_from(&arrival, &record, &err);
    if (rc == 0) {
        record.news = why ? KILN_NEWS_REFUSED : KILN_NEWS_RECORD;
        record.why = why;
        record.author = author;
        rc = kiln_kafka_queue_put(&kafka->queue, &record, &err);
    }
    if (rc)
        fail(kafka, rc, err.text); // a record left out would be acked with the next one
}

static void serve_group(struct kiln_kafka *kafka) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(kafka->consumer.rk, 0); // rebalances; records do not come here
    if (message) {
        on_message(kafka, message);
        rd_kafka_message_destroy(message);
    }
    kiln_kafka_lead_due(kafka);
    kiln_kafka_commit_due(kafka);
    kiln_kafka_rewind_due(kafka);
}

static void *run(void *arg) {
    struct kiln_kafka *kafka = arg;
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    while (!kafka->closing) {
        if (consumer->in_group)
            serve_group(kafka);
        else
            rd_kafka_poll(consumer->rk, 0);
        bool room = kiln_kafka_queue_wait_for_room(&kafka->queue, kiln_clock_ms() + WAIT_MS);
        rd_kafka_message_t *message = room ? rd_kafka_consume_queue(consumer->records, WAIT_MS) : NULL;
        for (int i = 0; message; i++) {
            on_message(kafka, message);
            rd_kafka_message_destroy(message);
            room = i < BURST && !kafka->closing && kiln_kafka_queue_wait_for_room(&kafka->queue, 0);
            message = room ? rd_kafka_consume_queue(consumer->records, 0) : NULL;
        }
    }
    return NULL;
}

static int make(struct kiln_kafka *kafka, bool in_group, struct kiln_err *err) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    const struct kiln_kafka_gate_options gate = {
        .find = kafka->options.find,
        .context = kafka->options.context,
        .skew_ms = kafka->options.skew_ms,
        .window_max = in_group ? WINDOW_OF_GROUP : WINDOW_OF_OTHERS,
    };
    rd_kafka_conf_t *conf;
    int rc = consumer->gate ? 0 : kiln_kafka_gate_new(&gate, &consumer->gate, err);
    if (rc == 0)
        rc = kiln_kafka_conf_new(&kafka->options, in_group ? KILN_KAFKA_IN_GROUP : KILN_KAFKA_READS, &conf, err);
    if (rc)
        return rc;
    if (in_group) {
        rd_kafka_conf_set_rebalance_cb(conf, kiln_kafka_on_rebalance);
        rd_kafka_conf_set_offset_commit_cb(conf, kiln_kafka_on_commit);
    }
    rc = kiln_kafka_new(kafka, RD_KAFKA_CONSUMER, conf, &consumer->rk, err);
    if (rc)
        return rc;
    consumer->in_group = in_group;
    consumer->records = rd_kafka_queue_new(consumer->rk);
    if (in_group)
        rd_kafka_poll_set_consumer(consumer->rk);
    return 0;
}

static int start(struct kiln_kafka *kafka, struct kiln_err *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    kafka->consumer.started = pthread_create(&kafka->consumer.thread, NULL, run, kafka) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return kafka->consumer.started ? 0 : kiln_fail(err, KILN_E_IO, "bus: cannot start the consumer");
}

static int join_group(struct kiln_kafka *kafka, struct kiln_err *err) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    rd_kafka_topic_partition_list_t *names = rd_kafka_topic_partition_list_new(KILN_TOPIC_COUNT);
    for (unsigned i = 0; i < consumer->sources_count; i++)
        rd_kafka_topic_partition_list_add(names, consumer->sources[i].name, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t error = rd_kafka_subscribe(consumer->rk, names);
    rd_kafka_topic_partition_list_destroy(names);
    return error ? kiln_fail(err, KILN_E_IO, "group: %s", rd_kafka_err2str(error)) : 0;
}

static int read_partition(struct kiln_kafka *kafka, unsigned index, int32_t partition, bool from_end, uint64_t deadline_ms,
                          struct kiln_err *err) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    struct kiln_kafka_source *source = &consumer->sources[index];
    int64_t low, high;
    int rc = kiln_kafka_find_ends(consumer->rk, source->name, partition, deadline_ms, &low, &high, err);
    if (rc)
        return rc;
    void *grown = reallocarray(consumer->reading, consumer->reading_count + 1, sizeof *consumer->reading);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    consumer->reading = grown;
    if (rd_kafka_consume_start_queue(source->handle, partition, from_end ? high : low, consumer->records))
        return kiln_fail(err, KILN_E_IO, "topic %s: %s", source->name, rd_kafka_err2str(rd_kafka_last_error()));
    consumer->reading[consumer->reading_count].source = index;
    consumer->reading[consumer->reading_count++].partition = partition;
    return 0;
}

// An agent waits on one partition for its answers; everything else is read whole.
static int read_source(struct kiln_kafka *kafka, unsigned index, bool from_end, uint64_t deadline_ms, struct kiln_err *err) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    struct kiln_kafka_source *source = &consumer->sources[index];
    rd_kafka_topic_conf_t *conf = rd_kafka_topic_conf_new();
    rd_kafka_topic_conf_set(conf, "auto.offset.reset", from_end ? "largest" : "smallest", NULL, 0); // if the offset has gone
    source->handle = rd_kafka_topic_new(consumer->rk, source->name, conf);
    if (!source->handle)
        return kiln_fail(err, KILN_E_IO, "topic %s: %s", source->name, rd_kafka_err2str(rd_kafka_last_error()));
    uint32_t first = 0, count;
    int rc = kiln_kafka_count_partitions(consumer->rk, source->handle, deadline_ms, &count, err);
    if (rc == 0 && source->topic == KILN_TOPIC_RESULTS && kafka->options.role == KILN_ROLE_OF_AGENT) {
        first = kiln_kafka_result_partition(kafka->options.principal, &kafka->options.incarnation, kafka->options.result_partitions);
        if (first >= count)
            return kiln_fail(err, KILN_E_UNSUPPORTED, "topic %s has %u partitions, fleet.result_partitions says %u", source->name,
                             count, kafka->options.result_partitions);
        count = first + 1;
    }
    for (uint32_t i = first; rc == 0 && i < count; i++)
        rc = read_partition(kafka, index, (int32_t)i, from_end, deadline_ms, err);
    return rc;
}

static int add_source(struct kiln_kafka *kafka, enum kiln_topic topic, struct kiln_err *err) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    unsigned count = consumer->sources_count;
    for (unsigned i = 0; i < count; i++) {
        if (consumer->sources[i].topic == topic)
            return kiln_fail(err, KILN_E_EXISTS, "%s is subscribed already", kiln_topic_name(topic));
    }
    if (!kiln_kafka_may_read(topic, kafka->options.role))
        return kiln_fail(err, KILN_E_DENIED, "the role of %s may not read %s", kafka->options.principal, kiln_topic_name(topic));
    struct kiln_kafka_source *source = &consumer->sources[count];
    *source = (struct kiln_kafka_source){.topic = topic};
    int rc = kiln_kafka_topic_name(kafka->options.topic_prefix, topic, kafka->options.tenant, source->name, err);
    if (rc == 0)
        consumer->sources_count = count + 1;
    return rc;
}

int kiln_kafka_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                         struct kiln_err *err) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    uint64_t deadline_ms = kiln_clock_ms() + SUBSCRIBE_MS;
    bool in_group = kafka->options.role == KILN_ROLE_OF_VERIFIER;
    unsigned before = consumer->sources_count;
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        if (in_group && (!kiln_kafka_of_group(topics[i].topic) || before))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "verifiers share jobs, credits, leases and candidates, all at once");
    }
    if (!consumer->rk)
        rc = make(kafka, in_group, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = add_source(kafka, topics[i].topic, err);
        if (rc == 0 && !in_group)
            rc = read_source(kafka, before + (unsigned)i, topics[i].from_end, deadline_ms, err);
    }
    if (rc == 0 && in_group)
        rc = join_group(kafka, err);
    if (rc == 0 && !consumer->started)
        rc = start(kafka, err);
    return rc;
}

static void leave_group(rd_kafka_t *rk, uint64_t deadline_ms) {
    rd_kafka_queue_t *events = rd_kafka_queue_new(rk);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(rk, events);
    if (error)
        rd_kafka_error_destroy(error);
    while (!rd_kafka_consumer_closed(rk) && kiln_clock_ms() < deadline_ms) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(events, 20);
        if (event && rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE)
            rd_kafka_assign(rk, NULL);
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(events);
}

// Closing while the coordinator is away may crash in this library and later ones: then the member is simply missed by the
// group after its session's end.
static void release_group(struct kiln_kafka *kafka, uint64_t deadline_ms) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    bool reachable = kiln_kafka_health_check(&kafka->health, NULL) == 0;
    if (reachable && consumer->started) {
        kiln_kafka_commit_now(kafka, kiln_clock_ms() + 500 < deadline_ms ? kiln_clock_ms() + 500 : deadline_ms);
        leave_group(consumer->rk, deadline_ms);
    }
    if (consumer->assigned)
        rd_kafka_topic_partition_list_destroy(consumer->assigned);
}

rd_kafka_t *kiln_kafka_consumer_stop(struct kiln_kafka *kafka, uint64_t deadline_ms) {
    struct kiln_kafka_consumer *consumer = &kafka->consumer;
    if (consumer->started)
        pthread_join(consumer->thread, NULL);
    if (consumer->rk && consumer->in_group)
        release_group(kafka, deadline_ms);
    for (size_t i = 0; i < consumer->reading_count; i++)
        rd_kafka_consume_stop(consumer->sources[consumer->reading[i].source].handle, consumer->reading[i].partition);
    for (unsigned i = 0; i < consumer->sources_count; i++) {
        if (consumer->sources[i].handle)
            rd_kafka_topic_destroy(consumer->sources[i].handle);
    }
    if (consumer->records)
        rd_kafka_queue_destroy(consumer->records);
    free(consumer->reading);
    kiln_kafka_gate_free(consumer->gate);
    return consumer->rk;
}
