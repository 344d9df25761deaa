// Topics as Kafka knows them: real names, and which role of a fleet writes and reads which (schemas/README.md).
#pragma once

#include "lib/bus/bus.h"

#define KILN_KAFKA_TOPIC_BYTES 250 // Kafka's limit is 249

// PREFIXkiln.jobs; results: PREFIXkiln.results.TENANT. KILN_E_INVAL: prefix or tenant is no part of a name.
int kiln_kafka_topic_name(const char *prefix, enum kiln_topic topic, const char *tenant, char name[KILN_KAFKA_TOPIC_BYTES],
                          struct kiln_err *err);
bool kiln_kafka_may_write(enum kiln_topic topic, enum kiln_role role);
bool kiln_kafka_may_read(enum kiln_topic topic, enum kiln_role role);
// Topics that the group of verifiers shares: jobs, credits, leases, candidates.
bool kiln_kafka_of_group(enum kiln_topic topic);
