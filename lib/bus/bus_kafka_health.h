// Whether the brokers can be reached, from what is seen anyway (delivery reports, records, answers) and, when somebody asks
// and nothing was seen for a second, from a question of our own. Thread: all functions lock; none waits.
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KILN_KAFKA_HEALTH_MS 1000u

struct kiln_kafka_health {
    pthread_mutex_t lock;
    uint64_t opened_ms, alive_ms; // alive_ms: last sign of life; 0: none yet
    bool down, wanted;            // wanted: somebody asks
    char why[200];
};

void kiln_kafka_health_init(struct kiln_kafka_health *health);
void kiln_kafka_health_release(struct kiln_kafka_health *health);
void kiln_kafka_health_alive(struct kiln_kafka_health *health);
void kiln_kafka_health_down(struct kiln_kafka_health *health, const char *why);
int kiln_kafka_health_check(struct kiln_kafka_health *health, struct kiln_err *err); // KILN_E_IO
bool kiln_kafka_health_is_wanted(struct kiln_kafka_health *health); // a question to the brokers should be asked now
