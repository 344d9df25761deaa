// kiln.state of one partition, read from its beginning to its end as of now: the newest record of each key that may be
// believed. The end is the partition's end-of-file event, or the last offset there was: in a compacted topic the last
// offsets may hold nothing.
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus_kafka_handle.h"

#define KEYS_BYTES_MAX (512u << 20) // of all that a partition holds
#define WINDOW 4096u

struct kept {
    struct kiln_record record;
};

struct table {
    void *root; // of tsearch
    size_t bytes;
};

static int compare(const void *a, const void *b) {
    const struct kiln_record *one = &((const struct kept *)a)->record, *two = &((const struct kept *)b)->record;
    if (one->key_len != two->key_len)
        return one->key_len < two->key_len ? -1 : 1;
    return memcmp(one->key, two->key, one->key_len);
}

static void kept_free(void *kept) {
    kiln_record_release(&((struct kept *)kept)->record);
    free(kept);
}

static void forget(struct table *table, struct kept *kept) {
    table->bytes -= kept->record.value_len + sizeof *kept;
    tdelete(kept, &table->root, compare);
    kept_free(kept);
}

// Takes the record, also on failure.
static int keep(struct table *table, struct kiln_record *record, struct kiln_err *err) {
    struct kept *kept = calloc(1, sizeof *kept), **slot;
    if (kept)
        kept->record = *record;
    else
        kiln_record_release(record);
    if (kept && (slot = tfind(kept, &table->root, compare)))
        forget(table, *slot);
    if (kept && kept->record.value_len == 0) { // deleted
        kept_free(kept);
        return 0;
    }
    if (!kept || table->bytes > KEYS_BYTES_MAX || !tsearch(kept, &table->root, compare)) {
        if (kept)
            kept_free(kept);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the state of a partition");
    }
    table->bytes += kept->record.value_len + sizeof *kept;
    return 0;
}

struct visit {
    int (*visit)(void *context, const struct kiln_record *record);
    void *context;
    int rc;
};

// Told of as it comes, without what is in it.
static int refuse(const struct kiln_kafka_arrival *arrival, const char *why, const struct visit *visit) {
    const struct kiln_record record = {.topic = arrival->topic, .news = KILN_NEWS_REFUSED, .why = why,
                                       .partition = arrival->partition, .offset = arrival->offset};
    return visit->visit(visit->context, &record);
}

static int take(struct kiln_kafka *kafka, struct kiln_kafka_gate *gate, const rd_kafka_message_t *message, struct table *table,
                const struct visit *visit, struct kiln_err *err) {
    struct kiln_kafka_arrival arrival;
    struct kiln_author author;
    struct kiln_record record;
    kiln_kafka_describe(message, KILN_TOPIC_STATE, 0, &arrival);
    const char *why = kiln_kafka_gate_admit(gate, &arrival, &author);
    if (why) {
        kiln_kafka_count_refusal(kafka, why);
        return refuse(&arrival, why, visit);
    }
    int rc = kiln_kafka_record_from(&arrival, &record, err);
    if (rc)
        return rc;
    record.author = author;
    return keep(table, &record, err);
}

static int read_all(struct kiln_kafka *kafka, rd_kafka_queue_t *queue, uint64_t last, uint64_t deadline_ms,
                    struct table *table, const struct visit *visit, struct kiln_err *err) {
    const struct kiln_kafka_gate_options options = {
        .find = kafka->options.find, .context = kafka->options.context, .window_max = WINDOW};
    struct kiln_kafka_gate *gate;
    int rc = kiln_kafka_gate_new(&options, &gate, err);
    bool done = false;
    const int patience_ms = kiln_clock_left_ms(deadline_ms); // for each record: however much lies there is read to its end
    while (rc == 0 && !done) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(queue, patience_ms);
        if (!message) {
            rc = kiln_fail(err, KILN_E_TIMEOUT, "the state was not read to its end in time");
            break;
        }
        done = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF || (uint64_t)message->offset >= last;
        if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
            rc = kiln_fail(err, KILN_E_IO, "%s", rd_kafka_message_errstr(message));
        else if (!message->err)
            rc = take(kafka, gate, message, table, visit, err);
        rd_kafka_message_destroy(message);
    }
    kiln_kafka_gate_free(gate);
    return rc;
}

static int read_partition(struct kiln_kafka *kafka, const char *name, int32_t partition, uint64_t deadline_ms,
                          struct table *table, const struct visit *visit, struct kiln_err *err) {
    int64_t low, high;
    int rc = kiln_kafka_find_ends(kafka->restorer, name, partition, deadline_ms, &low, &high, err);
    if (rc || low >= high)
        return rc;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka->restorer, name, NULL);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(kafka->restorer);
    if (!topic || rd_kafka_consume_start_queue(topic, partition, low, queue)) {
        rc = kiln_fail(err, KILN_E_IO, "%s", rd_kafka_err2str(rd_kafka_last_error()));
    } else {
        rc = read_all(kafka, queue, (uint64_t)high - 1, deadline_ms, table, visit, err);
        rd_kafka_consume_stop(topic, partition);
    }
    rd_kafka_queue_destroy(queue);
    if (topic)
        rd_kafka_topic_destroy(topic);
    return rc;
}

static void visit_node(const void *node, VISIT which, void *closure) {
    struct visit *visit = closure;
    const struct kept *kept = *(const struct kept *const *)node;
    if ((which == postorder || which == leaf) && visit->rc == 0)
        visit->rc = visit->visit(visit->context, &kept->record);
}

static int make_restorer(struct kiln_kafka *kafka, struct kiln_err *err) {
    rd_kafka_conf_t *conf;
    int rc = kiln_kafka_conf_new(&kafka->options, KILN_KAFKA_READS, &conf, err);
    return rc ? rc : kiln_kafka_new(kafka, RD_KAFKA_CONSUMER, conf, &kafka->restorer, err);
}

int kiln_kafka_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                       int (*visit)(void *context, const struct kiln_record *record), void *context, struct kiln_err *err) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    char name[KILN_KAFKA_TOPIC_BYTES];
    struct table table = {0};
    struct visit walk = {.visit = visit, .context = context};
    if (!kiln_kafka_may_read(KILN_TOPIC_STATE, kafka->options.role))
        return kiln_fail(err, KILN_E_DENIED, "the role of %s may not", kafka->options.principal);
    int rc = kiln_kafka_topic_name(kafka->options.topic_prefix, KILN_TOPIC_STATE, NULL, name, err);
    if (rc == 0 && !kafka->restorer)
        rc = make_restorer(kafka, err);
    if (rc == 0)
        rc = read_partition(kafka, name, (int32_t)partition, deadline_ms, &table, &walk, err);
    if (rc == 0) {
        twalk_r(table.root, visit_node, &walk);
        rc = walk.rc;
    }
    tdestroy(table.root, kept_free);
    return rc;
}
