#include "lib/bus/bus_kafka_settings.h"

#include <stdio.h>
#include <string.h>

// What an operator may not set: identity and addresses have settings of their own, the rest would break a promise.
static const struct {
    const char *name, *why;
} denied[] = {
    {"plugin.", "it loads code"},
    {"interceptors", "it loads code"},
    {"sasl.", "programs authenticate by certificate; some of these run commands"},
    {"security.protocol", "it follows from [tls]"},
    {"enable.ssl.certificate.verification", "brokers are always verified"},
    {"ssl.endpoint.identification.algorithm", "brokers are always verified"},
    {"ssl.ca.", "[tls] ca says it"},
    {"ssl.certificate.", "[tls] cert says it"},
    {"ssl.key.", "[tls] key says it"},
    {"ssl.keystore.", "[tls] cert and key say it"},
    {"ssl.engine.", "it loads code"},
    {"ssl.providers", "it loads code"},
    {"bootstrap.servers", "[fleet] brokers says it"},
    {"metadata.broker.list", "[fleet] brokers says it"},
    {"client.id", "it is the principal"},
    {"group.", "the group and its members follow from role and principal"},
    {"partition.assignment.strategy", "owners of a partition must own it in all topics"},
    {"auto.offset.reset", "records would be lost"},
    {"auto.commit.", "records would be lost"},
    {"enable.auto.commit", "records would be lost"},
    {"enable.auto.offset.store", "records would be lost"},
    {"offset.store.", "records would be lost"},
    {"enable.partition.eof", "a restore ends by it"},
    {"isolation.level", "aborted records would be read"},
    {"transactional.id", "records are not written in transactions"},
    {"acks", "records would be lost"},
    {"request.required.acks", "records would be lost"},
    {"enable.idempotence", "records would come twice and out of order"},
    {"enable.gapless.guarantee", "one lost record would end the program"},
    {"partitioner", "the partition of a record is chosen by its action"},
    {"allow.auto.create.topics", "topics are made by operators"},
    {"delivery.report.only.error", "acks wait for the reports"},
    {"dr_", "it is Kiln's own"},
    {"test.", "it replaces the brokers by imagined ones"},
    {"internal.", "it is the library's own"},
    {"log.queue", "it is Kiln's own"},
    {"enabled_events", "it is Kiln's own"},
};

// A name that ends in '.' or '_' stands for all that begin with it.
static bool matches(const char *rule, const char *name) {
    size_t len = strlen(rule);
    bool family = rule[len - 1] == '.' || rule[len - 1] == '_';
    return family ? strncmp(rule, name, len) == 0 : strcmp(rule, name) == 0;
}

int kiln_kafka_setting_check(const char *name, struct kiln_err *err) {
    for (size_t i = 0; i < sizeof denied / sizeof *denied; i++) {
        if (matches(denied[i].name, name))
            return kiln_fail(err, KILN_E_DENIED, "[kafka] %s may not be set: %s", name, denied[i].why);
    }
    return 0;
}

struct builder {
    rd_kafka_conf_t *conf;
    struct kiln_err *err;
    int rc;
};

static void set(struct builder *builder, const char *name, const char *value) {
    char why[256] = "";
    if (builder->rc == 0 && rd_kafka_conf_set(builder->conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        builder->rc = kiln_fail(builder->err, KILN_E_INVAL, "Kafka setting %s: %s", name, why);
}

static void set_all(struct builder *builder, const char *const (*pairs)[2]) {
    for (; (*pairs)[0]; pairs++)
        set(builder, (*pairs)[0], (*pairs)[1]);
}

// Before [kafka], which may choose otherwise. Each has its reason in latency or in a bounded wait.
static const char *const defaults[][2] = {
    {"socket.nagle.disable", "true"},
    {"socket.keepalive.enable", "true"},
    {"reconnect.backoff.ms", "50"},
    {"reconnect.backoff.max.ms", "1000"},
    {"linger.ms", "0"},
    {"retry.backoff.ms", "50"},
    {"message.max.bytes", "1048576"},
    {"queue.buffering.max.kbytes", "65536"}, // dead letters of large records must not fill the memory while brokers are slow
    {"fetch.wait.max.ms", "100"},
    {"fetch.error.backoff.ms", "10"},
    {"queued.min.messages", "1000"},
    {"queued.max.messages.kbytes", "16384"},
    {"max.poll.interval.ms", "300000"},
    {"session.timeout.ms", "6000"}, // a killed verifier's partitions lie still for so long: well below what agents wait
    {"heartbeat.interval.ms", "1000"}, // the others learn by it that one has left
    {NULL, NULL},
};

// After [kafka].
static const char *const fixed[][2] = {
    {"allow.auto.create.topics", "false"}, {"log_level", "3"}, {NULL, NULL},
};
static const char *const fixed_consumer[][2] = {
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    {"enable.partition.eof", "true"},
    {"isolation.level", "read_committed"},
    {"partition.assignment.strategy", "range"},
    {NULL, NULL},
};

static void set_tls(struct builder *builder, const struct kiln_kafka_options *options) {
    if (!options->tls_ca)
        return;
    set(builder, "security.protocol", "ssl");
    set(builder, "ssl.ca.location", options->tls_ca);
    set(builder, "ssl.certificate.location", options->tls_cert);
    set(builder, "ssl.key.location", options->tls_key);
    set(builder, "enable.ssl.certificate.verification", "true");
    set(builder, "ssl.endpoint.identification.algorithm", "https");
}

static void set_group(struct builder *builder, const struct kiln_kafka_options *options) {
    char group[KILN_KAFKA_GROUP_BYTES];
    snprintf(group, sizeof group, "%skiln-verifiers", options->topic_prefix);
    set(builder, "group.id", group);
    // No group.instance.id: static members do not leave, and a verifier that ends must leave its partitions to the others.
    set(builder, "auto.offset.reset", "earliest");
}

// The library would write to the standard error; and it may outlive the handle while it is destroyed.
static void say_nothing(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk, (void)level, (void)facility, (void)text;
}

int kiln_kafka_conf_new(const struct kiln_kafka_options *options, enum kiln_kafka_use use, rd_kafka_conf_t **conf,
                        struct kiln_err *err) {
    struct builder builder = {.conf = rd_kafka_conf_new(), .err = err};
    set_all(&builder, defaults);
    if (use == KILN_KAFKA_PRODUCES)
        set(&builder, "message.timeout.ms", options->role == KILN_ROLE_OF_AGENT ? "5000" : "60000");
    for (size_t i = 0; builder.rc == 0 && i < options->settings_count; i++) {
        builder.rc = kiln_kafka_setting_check(options->settings[i].name, err);
        set(&builder, options->settings[i].name, options->settings[i].value);
    }
    set_all(&builder, fixed);
    set(&builder, "bootstrap.servers", options->brokers);
    set(&builder, "client.id", options->principal);
    set_tls(&builder, options);
    if (use == KILN_KAFKA_PRODUCES) {
        set(&builder, "acks", "all");
        set(&builder, "enable.idempotence", options->role == KILN_ROLE_OF_READER ? "false" : "true");
    } else {
        set_all(&builder, fixed_consumer);
    }
    if (use == KILN_KAFKA_IN_GROUP)
        set_group(&builder, options);
    if (builder.rc) {
        rd_kafka_conf_destroy(builder.conf);
        return builder.rc;
    }
    rd_kafka_conf_set_log_cb(builder.conf, say_nothing);
    *conf = builder.conf;
    return 0;
}
