// The topics of a fleet, as Kafka is to have them.
//
// Topics that go by action (jobs, credits, leases, candidates, state, ledger) have equal partition counts: the verifier that
// owns partition p of jobs owns p of the others. Settings are those that something depends on, and how long records are kept.
#pragma once

#include "lib/bus/kafka_admin.h"
#include "lib/core/trust_record.h"

struct kiln_topic_counts {
    uint32_t partitions, work_partitions, result_partitions, replication;
};

// *topics (heap, the caller's): one for each of the fleet and one results topic for each tenant of the record.
int kiln_topics_of_fleet(const struct kiln_topic_counts *counts, const char *prefix, const struct kiln_trust_record *record,
                         struct kiln_kafka_topic **topics, size_t *count, struct kiln_err *err);
