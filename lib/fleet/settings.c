// The settings of a fleet: the table, and what can be said of them without opening anything.
#include <inttypes.h>
#include <string.h>

#include "lib/fleet/fleet.h"

#define TEXT(name, fallback, help) {name, KILN_CONF_TEXT, fallback, NULL, NULL, false, help}
#define COUNT(name, fallback, help) {name, KILN_CONF_COUNT, fallback, NULL, NULL, false, help}
// No variable sets any of them: what an agent trusts must not come from the environment of a build.
const struct kiln_conf_key kiln_fleet_settings[] = {
    TEXT("fleet.brokers", "", "Kafka's bootstrap brokers, host:port with commas between; empty for the embedded default."),
    TEXT("fleet.principal", "", "The name under which this process is enrolled in the trust record."),
    TEXT("fleet.tenant", "", "An agent's tenant, as it is enrolled."),
    TEXT("fleet.pool", "", "An executor's pool, as it is enrolled; agreement counts pools."),
    TEXT("fleet.record_key", "", "File of the private key that signs this principal's records."),
    TEXT("fleet.sign_key", "", "File of the private key with which a verifier signs results."),
    TEXT("fleet.trust_roots", "", "Public keys of the roots that sign the trust record, in hex with commas between."),
    COUNT("fleet.trust_threshold", "1", "How many of the roots must have signed."),
    {"fleet.trust_refresh", KILN_CONF_MS, "60s", NULL, NULL, false, "How often the trust record is fetched: a revocation is known after at most that long."},
    COUNT("fleet.trust_version", "0", "Least version of the trust record that is believed, for machines that have seen none."),
    COUNT("fleet.partitions", "16", "Partitions of the topics that go by action, as the topics were made."),
    COUNT("fleet.work_partitions", "16", "Partitions of kiln.work, as it was made."),
    COUNT("fleet.result_partitions", "16", "Partitions of each tenant's result topic, as they were made."),
    COUNT("fleet.agreement_public", "1", "Pools that must give equal outputs before a public result is signed."),
    COUNT("fleet.agreement_tenant", "1", "Pools that must give equal outputs before a tenant's result is signed."),
    COUNT("fleet.quota_jobs", "20000", "Jobs that a tenant may have waiting; more are to be compiled locally."),
    {"fleet.quota_bytes", KILN_CONF_BYTES, "200G", NULL, NULL, false, "Bytes that a tenant may upload in 24 hours."},
    COUNT("fleet.pointer_days", "30", "Days for which a result is good."),
    COUNT("fleet.content_days", "60", "Days for which a result's content is locked; more than those of the result."),
    TEXT("fleet.topic_prefix", "", "What each topic's name begins with; for two fleets on one cluster."),
    TEXT("s3.endpoint", "", "URL of the S3 server, http:// or https://."),
    TEXT("s3.region", "us-east-1", "Region that requests are signed for."),
    TEXT("s3.bucket_prefix", "kiln", "The buckets are PREFIX-quarantine, PREFIX-inputs and PREFIX-vault."),
    TEXT("s3.access_key_file", "", "File of two lines: access key, secret key."),
    {"s3.libs3", KILN_CONF_BOOL, "false", NULL, NULL, false, "Move bulk content of the quarantine through libs3 where it is built in."},
    TEXT("tls.ca", "", "PEM file of the authorities that brokers are checked by; with tls.cert and tls.key."),
    TEXT("tls.cert", "", "PEM file of this principal's certificate for the brokers."),
    TEXT("tls.key", "", "PEM file of that certificate's private key."),
    TEXT("tls.s3_ca", "", "PEM file of the authorities that the S3 server is checked by; empty for the system's."),
    TEXT("kafka.*", NULL, "Passed to librdkafka under its own name, but for what would break safety."),
};
const size_t kiln_fleet_settings_count = sizeof kiln_fleet_settings / sizeof *kiln_fleet_settings;

bool kiln_fleet_configured(const struct kiln_conf *conf) { return *kiln_conf_text(conf, "fleet.brokers") != 0; }

int kiln_fleet_roots(const struct kiln_conf *conf, uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES],
                     struct kiln_roots *roots, struct kiln_err *err) {
    const char *rest = kiln_conf_text(conf, "fleet.trust_roots");
    size_t count = 0;
    for (size_t len; (rest += strspn(rest, ", ")), (len = strcspn(rest, ", ")) > 0; rest += len) {
        char hex[KILN_DIGEST_HEX_LEN + 1] = "";
        struct kiln_digest key;
        if (len == KILN_DIGEST_HEX_LEN)
            memcpy(hex, rest, len);
        if (kiln_digest_parse(hex, &key, NULL))
            return kiln_fail(err, KILN_E_INVAL, "fleet.trust_roots: \"%.*s\" is no public key: 64 lower-case hex digits",
                             (int)(len < 80 ? len : 80), rest);
        if (count == KILN_TRUST_ROOTS_MAX)
            return kiln_fail(err, KILN_E_INVAL, "fleet.trust_roots: at most %u", KILN_TRUST_ROOTS_MAX);
        for (size_t i = 0; i < count; i++)
            if (memcmp(keys[i], key.bytes, sizeof key.bytes) == 0)
                return kiln_fail(err, KILN_E_INVAL, "fleet.trust_roots: %s is there twice", hex);
        memcpy(keys[count++], key.bytes, sizeof key.bytes);
    }
    uint64_t threshold = kiln_conf_number(conf, "fleet.trust_threshold");
    if (!count || !threshold || threshold > count)
        return kiln_fail(err, KILN_E_INVAL, "fleet.trust_threshold: %" PRIu64 " of %zu fleet.trust_roots cannot sign", threshold,
                         count);
    *roots = (struct kiln_roots){(const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])keys, count, (size_t)threshold};
    return 0;
}

static int check_range(const struct kiln_conf *conf, const char *name, uint64_t least, uint64_t most, struct kiln_err *err) {
    uint64_t value = kiln_conf_number(conf, name);
    if (value < least || value > most)
        return kiln_fail(err, KILN_E_INVAL, "%s: %" PRIu64 " is not from %" PRIu64 " to %" PRIu64, name, value, least, most);
    return 0;
}

static int check_numbers(const struct kiln_conf *conf, struct kiln_err *err) {
    static const struct {
        const char *name;
        uint64_t least, most;
    } ranges[] = {
        {"fleet.trust_refresh", 100, 3600000},
        {"fleet.partitions", 1, KILN_BUS_KAFKA_PARTITIONS_MAX},
        {"fleet.work_partitions", 1, KILN_BUS_KAFKA_PARTITIONS_MAX},
        {"fleet.result_partitions", 1, KILN_BUS_KAFKA_PARTITIONS_MAX},
        {"fleet.agreement_public", 1, KILN_RESULT_ATTESTATIONS_MAX},
        {"fleet.agreement_tenant", 1, KILN_RESULT_ATTESTATIONS_MAX},
        {"fleet.quota_jobs", 1, UINT32_MAX},
        {"fleet.pointer_days", 1, 3650},
        {"fleet.content_days", 2, 36500},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        int rc = check_range(conf, ranges[i].name, ranges[i].least, ranges[i].most, err);
        if (rc)
            return rc;
    }
    if (kiln_conf_number(conf, "fleet.content_days") <= kiln_conf_number(conf, "fleet.pointer_days"))
        return kiln_fail(err, KILN_E_INVAL, "fleet.content_days: content must outlive fleet.pointer_days");
    return 0;
}

static int check_given(const struct kiln_conf *conf, const char *const *names, struct kiln_err *err) {
    for (; *names; names++)
        if (!*kiln_conf_text(conf, *names))
            return kiln_fail(err, KILN_E_INVAL, "%s: a fleet needs it", *names);
    return 0;
}

// What each role must name, beside what all must.
static int check_role(const struct kiln_conf *conf, enum kiln_role role, struct kiln_err *err) {
    static const char *const all[] = {"fleet.brokers",   "fleet.principal",    "fleet.trust_roots",
                                      "s3.endpoint",     "s3.access_key_file", "s3.region",
                                      "s3.bucket_prefix", NULL};
    static const char *const key[] = {"fleet.record_key", NULL}, *const agent[] = {"fleet.tenant", NULL},
                            *const executor[] = {"fleet.pool", NULL}, *const verifier[] = {"fleet.sign_key", NULL};
    int rc = check_given(conf, all, err);
    if (!rc && role != KILN_ROLE_OF_READER)
        rc = check_given(conf, key, err);
    if (!rc)
        rc = kiln_principal_check_name(kiln_conf_text(conf, "fleet.principal"), "fleet.principal", err);
    if (!rc && role == KILN_ROLE_OF_VERIFIER)
        rc = check_given(conf, verifier, err);
    if (!rc && role == KILN_ROLE_OF_AGENT)
        rc = check_given(conf, agent, err);
    if (!rc && role == KILN_ROLE_OF_AGENT)
        rc = kiln_principal_check_name(kiln_conf_text(conf, "fleet.tenant"), "fleet.tenant", err);
    if (!rc && role == KILN_ROLE_OF_EXECUTOR)
        rc = check_given(conf, executor, err);
    if (!rc && role == KILN_ROLE_OF_EXECUTOR)
        rc = kiln_principal_check_name(kiln_conf_text(conf, "fleet.pool"), "fleet.pool", err);
    return rc;
}

static int check_tls(const struct kiln_conf *conf, struct kiln_err *err) {
    static const char *const names[] = {"tls.ca", "tls.cert", "tls.key"};
    size_t given = 0;
    for (size_t i = 0; i < 3; i++)
        given += *kiln_conf_text(conf, names[i]) != 0;
    if (given && given < 3)
        return kiln_fail(err, KILN_E_INVAL, "tls.ca, tls.cert and tls.key belong together: all or none");
    return 0;
}

static int check_endpoint(const struct kiln_conf *conf, struct kiln_err *err) {
    const char *endpoint = kiln_conf_text(conf, "s3.endpoint");
    if (strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0)
        return kiln_fail(err, KILN_E_INVAL, "s3.endpoint: \"%.100s\" does not begin with http:// or https://", endpoint);
    return 0;
}

int kiln_fleet_check(const struct kiln_conf *conf, enum kiln_role role, struct kiln_err *err) {
    uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    struct kiln_roots roots;
    int rc = check_role(conf, role, err);
    if (!rc)
        rc = kiln_fleet_roots(conf, keys, &roots, err);
    if (!rc)
        rc = check_numbers(conf, err);
    if (!rc)
        rc = check_tls(conf, err);
    return rc ? rc : check_endpoint(conf, err);
}
