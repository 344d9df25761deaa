#include "lib/bus/bus_kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/bus/bus_kafka_handle.h"

enum { CLOSE_MS = 3000, FLUSH_MS = 1000 };

void kiln_kafka_count(struct kiln_kafka *kafka, uint64_t *counter) {
    pthread_mutex_lock(&kafka->stats_lock);
    ++*counter;
    pthread_mutex_unlock(&kafka->stats_lock);
}

void kiln_kafka_count_failure(struct kiln_kafka *kafka, uint64_t *counter, const char *what, const char *why) {
    pthread_mutex_lock(&kafka->stats_lock);
    ++*counter;
    snprintf(kafka->stats.last_failure, sizeof kafka->stats.last_failure, "%s: %s", what, why);
    pthread_mutex_unlock(&kafka->stats_lock);
}

void kiln_kafka_count_refusal(struct kiln_kafka *kafka, const char *why) {
    pthread_mutex_lock(&kafka->stats_lock);
    kafka->stats.refused++;
    snprintf(kafka->stats.last_refusal, sizeof kafka->stats.last_refusal, "%s", why);
    pthread_mutex_unlock(&kafka->stats_lock);
}

void kiln_bus_kafka_stats(struct kiln_bus *bus, struct kiln_kafka_stats *stats) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    pthread_mutex_lock(&kafka->stats_lock);
    *stats = kafka->stats;
    pthread_mutex_unlock(&kafka->stats_lock);
}

static uint64_t kafka_refused(struct kiln_bus *bus, char why[KILN_BUS_WHY_BYTES]) {
    struct kiln_kafka_stats stats;
    kiln_bus_kafka_stats(bus, &stats);
    memcpy(why, stats.last_refusal, sizeof stats.last_refusal);
    return stats.refused;
}

uint32_t kiln_kafka_result_partition(const char *principal, const struct kiln_job_id *incarnation, uint32_t partitions) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(256);
    struct kiln_digest digest;
    kiln_buf_add_field_str(&bytes, principal);
    kiln_buf_add(&bytes, incarnation->bytes, sizeof incarnation->bytes);
    kiln_digest_of(bytes.data, bytes.len, &digest);
    const uint8_t *first = digest.bytes;
    return ((uint32_t)first[0] << 24 | (uint32_t)first[1] << 16 | (uint32_t)first[2] << 8 | first[3]) % partitions;
}

void kiln_kafka_on_error(rd_kafka_t *rk, int error, const char *reason, void *opaque) {
    (void)rk;
    struct kiln_kafka *kafka = opaque;
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL)
        kiln_kafka_health_down(&kafka->health, reason);
}

int kiln_kafka_new(struct kiln_kafka *kafka, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **rk,
                   struct kiln_err *err) {
    char why[256];
    rd_kafka_conf_set_error_cb(conf, kiln_kafka_on_error);
    rd_kafka_conf_set_opaque(conf, kafka);
    rd_kafka_t *made = rd_kafka_new(type, conf, why, sizeof why);
    if (!made) {
        rd_kafka_conf_destroy(conf);
        return kiln_fail(err, KILN_E_INVAL, "Kafka: %s", why);
    }
    *rk = made;
    return 0;
}

static int kafka_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    int rc = kiln_kafka_queue_take(&kafka->queue, deadline_ms, record, err);
    if (rc == 0 && (record->news == KILN_NEWS_RECORD || record->news == KILN_NEWS_REFUSED)) {
        kiln_kafka_acks_take(&kafka->acks, record->topic, record->partition, record->offset);
        kiln_kafka_count(kafka, &kafka->stats.polled);
    }
    return rc;
}

static int kafka_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err) {
    if (record->news == KILN_NEWS_GAINED || record->news == KILN_NEWS_LOST)
        return 0;
    return kiln_kafka_acks_ack(&kiln_kafka_of(bus)->acks, record->topic, record->partition, record->offset, err);
}

static int kafka_healthy(struct kiln_bus *bus, struct kiln_err *err) {
    return kiln_kafka_health_check(&kiln_kafka_of(bus)->health, err);
}

static uint32_t kafka_partitions(const struct kiln_bus *bus, enum kiln_topic topic) {
    const struct kiln_kafka_options *options = &((const struct kiln_kafka *)bus)->options;
    switch (topic) {
    case KILN_TOPIC_WORK:
        return options->work_partitions;
    case KILN_TOPIC_RESULTS:
        return options->result_partitions;
    case KILN_TOPIC_EVENTS:
    case KILN_TOPIC_DLQ:
        return 1; // that are written
    default:
        return options->partitions;
    }
}

static uint32_t kafka_partitions_max(const struct kiln_bus *bus, enum kiln_topic topic) {
    (void)bus, (void)topic;
    return KILN_BUS_KAFKA_PARTITIONS_MAX;
}

static int kafka_fd(const struct kiln_bus *bus) { return ((const struct kiln_kafka *)bus)->queue.event_fd; }

static void *destroy_run(void *rk) {
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return NULL;
}

// The library may not come back from destroying a handle whose brokers are away. Such a handle is left to its own thread,
// which touches nothing of ours: no callback runs without somebody who polls.
static void destroy_all(rd_kafka_t **handles, size_t count, uint64_t deadline_ms) {
    pthread_t threads[3];
    bool started[3] = {0};
    for (size_t i = 0; i < count; i++)
        started[i] = handles[i] && pthread_create(&threads[i], NULL, destroy_run, handles[i]) == 0;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t left_ms = (uint64_t)kiln_clock_left_ms(deadline_ms) + (uint64_t)until.tv_nsec / 1000000;
    until.tv_sec += (time_t)(left_ms / 1000);
    until.tv_nsec = (long)(left_ms % 1000) * 1000000;
    for (size_t i = 0; i < count; i++) {
        if (started[i] && pthread_timedjoin_np(threads[i], NULL, &until))
            pthread_detach(threads[i]);
    }
}

static void options_release(struct kiln_kafka_options *options) {
    free((void *)(uintptr_t)options->brokers);
    free((void *)(uintptr_t)options->principal);
    free((void *)(uintptr_t)options->tenant);
    free((void *)(uintptr_t)options->pool);
    free((void *)(uintptr_t)options->tls_ca);
    free((void *)(uintptr_t)options->tls_cert);
    free((void *)(uintptr_t)options->tls_key);
    free((void *)(uintptr_t)options->topic_prefix);
    for (size_t i = 0; options->settings && i < options->settings_count; i++) {
        free((void *)(uintptr_t)options->settings[i].name);
        free((void *)(uintptr_t)options->settings[i].value);
    }
    free((void *)(uintptr_t)options->settings);
}

static void kafka_free(struct kiln_kafka *kafka) {
    kiln_kafka_acks_release(&kafka->acks);
    kiln_kafka_queue_release(&kafka->queue);
    kiln_kafka_health_release(&kafka->health);
    pthread_mutex_destroy(&kafka->producer.lock);
    pthread_mutex_destroy(&kafka->stats_lock);
    options_release(&kafka->options);
    free(kafka);
}

static void kafka_close(struct kiln_bus *bus) {
    struct kiln_kafka *kafka = kiln_kafka_of(bus);
    uint64_t now_ms = kiln_clock_ms(), deadline_ms = now_ms + CLOSE_MS;
    kiln_kafka_queue_close(&kafka->queue);
    if (kafka->producer.started && kiln_kafka_health_check(&kafka->health, NULL) == 0)
        kiln_kafka_acks_wait_settled(&kafka->acks, now_ms + FLUSH_MS);
    kafka->closing = true;
    rd_kafka_t *handles[3] = {
        kiln_kafka_consumer_stop(kafka, deadline_ms - 800),
        kiln_kafka_producer_stop(kafka),
        kafka->restorer,
    };
    destroy_all(handles, 3, deadline_ms);
    kafka_free(kafka);
}

static const struct kiln_bus_ops kafka_ops = {
    .publish = kiln_kafka_publish,
    .subscribe = kiln_kafka_subscribe,
    .poll = kafka_poll,
    .ack = kafka_ack,
    .healthy = kafka_healthy,
    .restore = kiln_kafka_restore,
    .partitions = kafka_partitions,
    .partitions_max = kafka_partitions_max,
    .refused = kafka_refused,
    .fd = kafka_fd,
    .close = kafka_close,
};

static bool copy_text(const char **slot) {
    if (!*slot)
        return true;
    *slot = strdup(*slot);
    return *slot != NULL;
}

static int options_copy(const struct kiln_kafka_options *from, struct kiln_kafka_options *to, struct kiln_err *err) {
    *to = *from;
    if (!to->topic_prefix)
        to->topic_prefix = "";
    struct kiln_kafka_setting *settings = calloc(from->settings_count + 1, sizeof *settings);
    bool whole = settings != NULL;
    // Each is copied even if one before it failed: what is released must be ours.
    const char **texts[] = {&to->brokers, &to->principal, &to->tenant, &to->pool, &to->tls_ca, &to->tls_cert, &to->tls_key,
                            &to->topic_prefix};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        whole &= copy_text(texts[i]);
    for (size_t i = 0; settings && i < from->settings_count; i++) {
        settings[i] = from->settings[i];
        whole &= copy_text(&settings[i].name);
        whole &= copy_text(&settings[i].value);
    }
    to->settings = settings;
    return whole ? 0 : kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
}

static int check_partitions(const char *name, uint32_t count, struct kiln_err *err) {
    if (count == 0 || count > KILN_BUS_KAFKA_PARTITIONS_MAX)
        return kiln_fail(err, KILN_E_INVAL, "fleet.%s: %u is not within 1 and %u", name, count, KILN_BUS_KAFKA_PARTITIONS_MAX);
    return 0;
}

static int check_options(const struct kiln_kafka_options *options, struct kiln_err *err) {
    bool tls = options->tls_ca || options->tls_cert || options->tls_key;
    if (!options->brokers || !*options->brokers || !options->principal || !*options->principal ||
        strlen(options->principal) >= KILN_PRINCIPAL_BYTES)
        return kiln_fail(err, KILN_E_INVAL, "Kafka: brokers and a principal are needed");
    if (tls && !(options->tls_ca && options->tls_cert && options->tls_key))
        return kiln_fail(err, KILN_E_INVAL, "Kafka: [tls] needs all of ca, cert and key");
    if (!options->key && options->role != KILN_ROLE_OF_READER)
        return kiln_fail(err, KILN_E_INVAL, "Kafka: %s needs a record key", options->principal);
    char name[KILN_KAFKA_TOPIC_BYTES];
    int rc = check_partitions("partitions", options->partitions, err);
    if (rc == 0)
        rc = check_partitions("work_partitions", options->work_partitions, err);
    if (rc == 0)
        rc = check_partitions("result_partitions", options->result_partitions, err);
    if (rc == 0)
        rc = kiln_kafka_topic_name(options->topic_prefix ? options->topic_prefix : "", KILN_TOPIC_JOBS, NULL, name, err);
    if (rc == 0 && options->role == KILN_ROLE_OF_AGENT)
        rc = kiln_kafka_topic_name("", KILN_TOPIC_RESULTS, options->tenant, name, err);
    return rc;
}

int kiln_bus_open_kafka(const struct kiln_kafka_options *options, struct kiln_bus **bus, struct kiln_err *err) {
    int rc = check_options(options, err);
    if (rc)
        return rc;
    struct kiln_kafka *kafka = calloc(1, sizeof *kafka);
    if (!kafka)
        return kiln_fail(err, KILN_E_NOMEM, "bus: no memory");
    kafka->bus.ops = &kafka_ops;
    rc = kiln_kafka_queue_init(&kafka->queue, err);
    if (rc) {
        free(kafka);
        return rc;
    }
    rc = kiln_kafka_acks_init(&kafka->acks, err);
    if (rc) {
        kiln_kafka_queue_release(&kafka->queue);
        free(kafka);
        return rc;
    }
    kiln_kafka_health_init(&kafka->health);
    pthread_mutex_init(&kafka->producer.lock, NULL);
    pthread_mutex_init(&kafka->stats_lock, NULL);
    rc = options_copy(options, &kafka->options, err);
    if (rc == 0)
        rc = kiln_kafka_producer_open(kafka, err);
    if (rc) {
        kafka_close(&kafka->bus);
        return rc;
    }
    *bus = &kafka->bus;
    return 0;
}
