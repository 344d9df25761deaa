#include "ops/admin/topics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/bus/bus.h"

#define GIBIBYTE "1073741824"
#define HOUR "3600000"
#define DAY "86400000"
#define WEEK "604800000"
#define QUARTER "7776000000"
#define YEAR "31536000000"

enum counted { BY_ACTION, BY_EXECUTOR, BY_WAITER, ONE };

static const struct {
    enum kiln_topic topic;
    enum counted counted;
    const char *policy, *kept_ms, *segment_ms, *kept_bytes;
} rules[] = {
    {KILN_TOPIC_JOBS, BY_ACTION, "delete", WEEK, DAY, NULL},
    {KILN_TOPIC_WORK, BY_EXECUTOR, "delete", DAY, HOUR, NULL},
    {KILN_TOPIC_CREDITS, BY_ACTION, "delete", DAY, HOUR, NULL},
    {KILN_TOPIC_LEASES, BY_ACTION, "delete", DAY, HOUR, NULL},
    {KILN_TOPIC_CANDIDATES, BY_ACTION, "delete", WEEK, DAY, NULL},
    {KILN_TOPIC_RESULTS, BY_WAITER, "delete", DAY, HOUR, NULL},
    // Verifiers read a partition of it from the beginning when they gain it: little is left uncompacted.
    {KILN_TOPIC_STATE, BY_ACTION, "compact", NULL, HOUR, NULL},
    {KILN_TOPIC_LEDGER, BY_ACTION, "delete", YEAR, DAY, NULL},
    // Whoever may write anywhere can make these grow: the oldest go.
    {KILN_TOPIC_EVENTS, ONE, "delete", QUARTER, DAY, GIBIBYTE},
    {KILN_TOPIC_DLQ, ONE, "delete", QUARTER, DAY, GIBIBYTE},
};
#define RULES_COUNT (sizeof rules / sizeof *rules)
_Static_assert(RULES_COUNT == KILN_TOPIC_COUNT, "a topic has no rule");

static uint32_t partitions_of(enum counted counted, const struct kiln_topic_counts *counts) {
    switch (counted) {
    case BY_ACTION: return counts->partitions;
    case BY_EXECUTOR: return counts->work_partitions;
    case BY_WAITER: return counts->result_partitions;
    case ONE: break;
    }
    return 1;
}

static int fill(struct kiln_kafka_topic *topic, size_t rule, const struct kiln_topic_counts *counts, const char *prefix,
                const char *tenant, struct kiln_err *err) {
    memset(topic, 0, sizeof *topic);
    int len = snprintf(topic->name, sizeof topic->name, "%s%s%s%s", prefix, kiln_topic_name(rules[rule].topic), *tenant ? "." : "",
                       tenant);
    if (len < 0 || (size_t)len >= sizeof topic->name)
        return kiln_fail(err, KILN_E_INVAL, "topic_prefix: too long");
    topic->partitions = partitions_of(rules[rule].counted, counts);
    topic->replication = counts->replication;
    size_t at = 0;
    topic->settings[at].name = "cleanup.policy";
    topic->settings[at++].value = rules[rule].policy;
    topic->settings[at].name = "segment.ms";
    topic->settings[at++].value = rules[rule].segment_ms;
    if (rules[rule].kept_ms) {
        topic->settings[at].name = "retention.ms";
        topic->settings[at++].value = rules[rule].kept_ms;
    } else {
        topic->settings[at].name = "min.cleanable.dirty.ratio";
        topic->settings[at++].value = "0.1";
        topic->settings[at].name = "delete.retention.ms";
        topic->settings[at++].value = DAY;
    }
    if (rules[rule].kept_bytes) {
        topic->settings[at].name = "retention.bytes";
        topic->settings[at++].value = rules[rule].kept_bytes;
    }
    topic->settings[at].name = "message.timestamp.type"; // a record's age is the broker's word, not its writer's
    topic->settings[at++].value = "LogAppendTime";
    if (counts->replication >= 3) {
        topic->settings[at].name = "min.insync.replicas";
        topic->settings[at++].value = "2";
    }
    return 0;
}

static bool named_before(const struct kiln_trust_record *record, size_t index) {
    for (size_t i = 0; i < index; i++) {
        if (!strcmp(record->principals[i].tenant, record->principals[index].tenant))
            return true;
    }
    return false;
}

int kiln_topics_of_fleet(const struct kiln_topic_counts *counts, const char *prefix, const struct kiln_trust_record *record,
                         struct kiln_kafka_topic **topics, size_t *count, struct kiln_err *err) {
    kiln_autofree struct kiln_kafka_topic *made = calloc(RULES_COUNT + record->principals_count, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "topics: out of memory");
    size_t at = 0;
    int rc = 0;
    for (size_t rule = 0; rule < RULES_COUNT && !rc; rule++) {
        if (rules[rule].topic != KILN_TOPIC_RESULTS) {
            rc = fill(&made[at++], rule, counts, prefix, "", err);
            continue;
        }
        for (size_t i = 0; i < record->principals_count && !rc; i++) {
            if (*record->principals[i].tenant && !named_before(record, i))
                rc = fill(&made[at++], rule, counts, prefix, record->principals[i].tenant, err);
        }
    }
    if (rc)
        return rc;
    *count = at;
    *topics = KILN_STEAL(made);
    return 0;
}
