#include "lib/bus/bus_kafka_health.h"

#include <stdio.h>

#include "lib/base/clock.h"

void kiln_kafka_health_init(struct kiln_kafka_health *health) {
    *health = (struct kiln_kafka_health){.opened_ms = kiln_clock_ms(), .wanted = true};
    pthread_mutex_init(&health->lock, NULL);
}

void kiln_kafka_health_release(struct kiln_kafka_health *health) { pthread_mutex_destroy(&health->lock); }

void kiln_kafka_health_alive(struct kiln_kafka_health *health) {
    pthread_mutex_lock(&health->lock);
    health->alive_ms = kiln_clock_ms();
    health->down = health->wanted = false;
    pthread_mutex_unlock(&health->lock);
}

void kiln_kafka_health_down(struct kiln_kafka_health *health, const char *why) {
    pthread_mutex_lock(&health->lock);
    health->down = true;
    snprintf(health->why, sizeof health->why, "%s", why);
    pthread_mutex_unlock(&health->lock);
}

int kiln_kafka_health_check(struct kiln_kafka_health *health, struct kiln_err *err) {
    uint64_t now_ms = kiln_clock_ms();
    int rc = 0;
    pthread_mutex_lock(&health->lock);
    if (health->down)
        rc = kiln_fail(err, KILN_E_IO, "brokers: %s", health->why);
    else if (!health->alive_ms && now_ms - health->opened_ms > KILN_KAFKA_HEALTH_MS)
        rc = kiln_fail(err, KILN_E_IO, "brokers: not reached yet");
    else if (now_ms - health->alive_ms > KILN_KAFKA_HEALTH_MS)
        health->wanted = true;
    pthread_mutex_unlock(&health->lock);
    if (rc && err)
        err->retriable = true;
    return rc;
}

bool kiln_kafka_health_is_wanted(struct kiln_kafka_health *health) {
    pthread_mutex_lock(&health->lock);
    bool wanted = health->wanted || health->down;
    pthread_mutex_unlock(&health->lock);
    return wanted;
}
