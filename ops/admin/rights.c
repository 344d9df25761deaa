#include "ops/admin/rights.h"

#include <stdio.h>
#include <string.h>

#include "lib/bus/bus.h"

#define GROUP "kiln-verifiers"

static const struct {
    enum kiln_role role;
    enum kiln_topic topic;
    enum kiln_kafka_deed deed;
} rules[] = {
    {KILN_ROLE_OF_AGENT, KILN_TOPIC_JOBS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_AGENT, KILN_TOPIC_RESULTS, KILN_KAFKA_READ},
    {KILN_ROLE_OF_AGENT, KILN_TOPIC_EVENTS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_EXECUTOR, KILN_TOPIC_WORK, KILN_KAFKA_READ},
    {KILN_ROLE_OF_EXECUTOR, KILN_TOPIC_CREDITS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_EXECUTOR, KILN_TOPIC_LEASES, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_EXECUTOR, KILN_TOPIC_CANDIDATES, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_EXECUTOR, KILN_TOPIC_EVENTS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_JOBS, KILN_KAFKA_READ},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_CREDITS, KILN_KAFKA_READ},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_LEASES, KILN_KAFKA_READ},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_CANDIDATES, KILN_KAFKA_READ},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_STATE, KILN_KAFKA_READ},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_STATE, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_WORK, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_RESULTS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_LEDGER, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_EVENTS, KILN_KAFKA_WRITE},
    {KILN_ROLE_OF_VERIFIER, KILN_TOPIC_DLQ, KILN_KAFKA_WRITE},
};

static int name_right(struct kiln_kafka_right *right, const struct kiln_principal *principal, const char *prefix, const char *name,
                      const char *tail, struct kiln_err *err) {
    int whose = snprintf(right->principal, sizeof right->principal, "User:%s", principal->name);
    int what = snprintf(right->name, sizeof right->name, "%s%s%s", prefix, name, tail);
    if (whose < 0 || what < 0 || (size_t)whose >= sizeof right->principal || (size_t)what >= sizeof right->name)
        return kiln_fail(err, KILN_E_INVAL, "rights of %s: a name is too long", principal->name);
    return 0;
}

static int add_topic(const struct kiln_principal *principal, const char *prefix, size_t rule, struct kiln_kafka_right *right,
                     struct kiln_err *err) {
    const char *name = kiln_topic_name(rules[rule].topic);
    right->deed = rules[rule].deed;
    right->thing = KILN_KAFKA_TOPIC;
    if (rules[rule].topic != KILN_TOPIC_RESULTS)
        return name_right(right, principal, prefix, name, "", err);
    char tail[KILN_PRINCIPAL_BYTES + 1];
    if (principal->role == KILN_ROLE_OF_VERIFIER)
        right->thing = KILN_KAFKA_TOPICS_BELOW;
    snprintf(tail, sizeof tail, ".%s", principal->role == KILN_ROLE_OF_AGENT ? principal->tenant : "");
    return name_right(right, principal, prefix, name, tail, err);
}

int kiln_rights_of(const struct kiln_principal *principal, const char *prefix, struct kiln_kafka_right rights[KILN_RIGHTS_MAX],
                   size_t *count, struct kiln_err *err) {
    size_t at = 0;
    int rc = 0;
    memset(rights, 0, KILN_RIGHTS_MAX * sizeof *rights);
    for (size_t rule = 0; rule < sizeof rules / sizeof *rules && !rc; rule++) {
        if (rules[rule].role == principal->role)
            rc = add_topic(principal, prefix, rule, &rights[at++], err);
    }
    if (!rc && principal->role == KILN_ROLE_OF_VERIFIER) {
        rights[at].thing = KILN_KAFKA_GROUP;
        rights[at].deed = KILN_KAFKA_READ;
        rc = name_right(&rights[at++], principal, prefix, GROUP, "", err);
    }
    if (!rc && principal->role == KILN_ROLE_OF_READER) {
        rights[at].thing = KILN_KAFKA_TOPICS_BELOW;
        rights[at].deed = KILN_KAFKA_READ;
        rc = name_right(&rights[at++], principal, prefix, "kiln.", "", err);
    }
    if (!rc)
        *count = at;
    return rc;
}
