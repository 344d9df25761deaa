// What Kafka lets each role do: the access control lists of a fleet. Nothing else is allowed to anybody.
#pragma once

#include "lib/bus/kafka_admin.h"
#include "lib/core/trust_record.h"

#define KILN_RIGHTS_MAX 16u // of one principal

// The rights of one principal; the principal of Kafka is "User:" and its name (the CN of its certificate). Operators have
// none here: who administers a cluster is the cluster's own affair.
int kiln_rights_of(const struct kiln_principal *principal, const char *prefix, struct kiln_kafka_right rights[KILN_RIGHTS_MAX],
                   size_t *count, struct kiln_err *err);
