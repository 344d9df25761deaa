// The bus on Kafka (librdkafka 2.0.2 or later; traps in each function that meets them).
//
// A verifier is a member of the group `kiln-verifiers` (dynamic membership, range assignment over jobs, credits, leases and
// candidates, whose partition counts are equal, so one owner has partition p of all four). Agents and executors assign()
// at the absolute end, which is known before kiln_bus_subscribe() returns. Every published record is framed with kiln-sig,
// kiln-fp and ce_* headers; every record polled has been checked: length, kiln-sig against the trust source, the role
// that may write that topic, its clock within `skew_ms`, its sequence (a sequence not above the last one of the same
// incarnation and partition, at a higher offset, is a replay). What fails comes as KILN_NEWS_REFUSED to verifiers
// (for kiln.dlq and an event) and is skipped and counted for others.
#pragma once

#include "lib/bus/bus.h"

struct kiln_kafka_setting {
    const char *name, *value;
};

struct kiln_kafka_options {
    const char *brokers;
    enum kiln_role role;           // AGENT, VERIFIER, EXECUTOR, READER (polls only), OPERATOR
    const char *principal, *tenant, *pool;
    struct kiln_job_id incarnation;
    const struct kiln_sign_key *key; // signs records; borrowed for the life of the handle; NULL for READER
    const char *tls_ca, *tls_cert, *tls_key; // PEM files; all NULL: plaintext (mock and loopback tests)
    uint32_t partitions, work_partitions, result_partitions;
    uint64_t skew_ms;                // 0: 10 minutes
    const char *topic_prefix;        // "" normally; two fleets on one cluster
    const struct kiln_kafka_setting *settings; // of [kafka]
    size_t settings_count;
    // The trust record now in force; false when the name is not (any more) a principal. Any thread.
    bool (*find)(void *context, const char *principal, struct kiln_principal *found);
    void *context;
};

// Fails on a setting that is not librdkafka's or that would break safety; does not wait for a broker. Strings are copied.
int kiln_bus_open_kafka(const struct kiln_kafka_options *options, struct kiln_bus **bus, struct kiln_err *err);
struct kiln_kafka_stats { // since it was opened
    uint64_t published, delivered, failed; // failed: taken by publish and then not by the brokers
    uint64_t polled, refused;              // refused: by the checks above
    uint64_t commits, commits_failed, rewinds, producers; // producers: made anew after a fatal error, and the first
    char last_failure[160];                // of a publish or commit; "" when none
    char last_refusal[KILN_BUS_WHY_BYTES]; // the reason
};
void kiln_bus_kafka_stats(struct kiln_bus *bus, struct kiln_kafka_stats *stats); // any thread
// Partition of the results topic where this principal and incarnation waits: the first four bytes (big-endian) of
// SHA-256(field principal, incarnation), mod partitions.
uint32_t kiln_kafka_result_partition(const char *principal, const struct kiln_job_id *incarnation, uint32_t partitions);
// KILN_E_DENIED with the reason when a name may not be set in [kafka].
int kiln_kafka_setting_check(const char *name, struct kiln_err *err);
