#include "lib/bus/bus_kafka_topics.h"

#include <stdio.h>
#include <string.h>

#include "lib/bus/bus_topics.h"

static bool is_part(const char *text) {
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == 0;
}

int kiln_kafka_topic_name(const char *prefix, enum kiln_topic topic, const char *tenant, char name[KILN_KAFKA_TOPIC_BYTES],
                          struct kiln_err *err) {
    bool of_tenant = topic == KILN_TOPIC_RESULTS;
    if (!is_part(prefix))
        return kiln_fail(err, KILN_E_INVAL, "topic prefix '%s': letters, digits, '.', '_' and '-' only", prefix);
    if (of_tenant && (!tenant || !*tenant || *tenant == '.' || strlen(tenant) >= KILN_PRINCIPAL_BYTES || !is_part(tenant)))
        return kiln_fail(err, KILN_E_INVAL, "'%s' is no name of a tenant", tenant ? tenant : "");
    int len = snprintf(name, KILN_KAFKA_TOPIC_BYTES, "%s%s%s%s", prefix, kiln_topic_name(topic), of_tenant ? "." : "",
                       of_tenant ? tenant : "");
    if (len < 0 || len >= KILN_KAFKA_TOPIC_BYTES)
        return kiln_fail(err, KILN_E_INVAL, "topic prefix '%.64s...' is too long", prefix);
    return 0;
}

static bool bus_role(enum kiln_role role, enum kiln_bus_role *bus) {
    switch (role) {
    case KILN_ROLE_OF_AGENT:
        *bus = KILN_BUS_AGENT;
        return true;
    case KILN_ROLE_OF_VERIFIER:
        *bus = KILN_BUS_VERIFIER;
        return true;
    case KILN_ROLE_OF_EXECUTOR:
        *bus = KILN_BUS_EXECUTOR;
        return true;
    default:
        return false;
    }
}

bool kiln_kafka_may_write(enum kiln_topic topic, enum kiln_role role) {
    enum kiln_bus_role bus;
    if (role == KILN_ROLE_OF_OPERATOR)
        return topic == KILN_TOPIC_EVENTS;
    return bus_role(role, &bus) && kiln_bus_may_write(topic, bus);
}

bool kiln_kafka_may_read(enum kiln_topic topic, enum kiln_role role) {
    enum kiln_bus_role bus;
    if (role == KILN_ROLE_OF_READER || role == KILN_ROLE_OF_OPERATOR)
        return true;
    if (role == KILN_ROLE_OF_AGENT) // the other topics hold what other tenants did
        return topic == KILN_TOPIC_RESULTS;
    return bus_role(role, &bus) && kiln_bus_may_read(topic, bus);
}

bool kiln_kafka_of_group(enum kiln_topic topic) {
    return topic == KILN_TOPIC_JOBS || topic == KILN_TOPIC_CREDITS || topic == KILN_TOPIC_LEASES ||
           topic == KILN_TOPIC_CANDIDATES;
}
