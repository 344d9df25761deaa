// A fleet's buses for tests: principals with keys, a trust record that is a table here, handles of each role, records with
// a frame, and waiting for what a bus gives.
#pragma once

#include <assert.h>
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus_kafka.h"
#include "lib/wire/frame.h"

enum { RIG_AGENT, RIG_AGENT_2, RIG_VERIFIER, RIG_VERIFIER_2, RIG_EXECUTOR, RIG_READER, RIG_STRANGER, RIG_PRINCIPALS };

struct rig_principal {
    struct kiln_principal enrolled;
    struct kiln_sign_key *key;
};

static struct {
    struct rig_principal all[RIG_PRINCIPALS];
    char brokers[128];
    char prefix[64];
    const char *tls_ca, *tls_dir; // certificates of each principal in tls_dir/NAME
    uint32_t partitions;
    char keys_dir[64];
} rig;

// What the fleet's keeper does: the stranger is not enrolled.
static inline bool rig_find(void *context, const char *name, struct kiln_principal *found) {
    (void)context;
    for (int i = 0; i < RIG_STRANGER; i++) {
        if (strcmp(rig.all[i].enrolled.name, name) == 0) {
            *found = rig.all[i].enrolled;
            return true;
        }
    }
    return false;
}

// Keys of all principals, from that directory or made in it.
static inline void rig_principals_load(const char *dir) {
    static const struct kiln_principal all[RIG_PRINCIPALS] = {
        [RIG_AGENT] = {.name = "agent-1", .role = KILN_ROLE_OF_AGENT, .tenant = "red"},
        [RIG_AGENT_2] = {.name = "agent-3", .role = KILN_ROLE_OF_AGENT, .tenant = "blue"},
        [RIG_VERIFIER] = {.name = "verifier-1", .role = KILN_ROLE_OF_VERIFIER},
        [RIG_VERIFIER_2] = {.name = "verifier-2", .role = KILN_ROLE_OF_VERIFIER},
        [RIG_EXECUTOR] = {.name = "executor-1", .role = KILN_ROLE_OF_EXECUTOR, .pool = "north"},
        [RIG_READER] = {.name = "reader", .role = KILN_ROLE_OF_READER},
        [RIG_STRANGER] = {.name = "stranger", .role = KILN_ROLE_OF_AGENT, .tenant = "red"},
    };
    kiln_autofd int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < RIG_PRINCIPALS; i++) {
        rig.all[i].enrolled = all[i];
        assert(kiln_sign_key_load_or_make(dirfd, all[i].name, &rig.all[i].key, NULL) == 0);
        kiln_sign_key_public(rig.all[i].key, rig.all[i].enrolled.record_key);
    }
}

static inline void rig_principals_new(void) {
    snprintf(rig.keys_dir, sizeof rig.keys_dir, "/tmp/kiln-rig-XXXXXX");
    assert(mkdtemp(rig.keys_dir));
    rig_principals_load(rig.keys_dir);
}

static inline void rig_principals_free(void) {
    char name[KILN_PRINCIPAL_BYTES + 8];
    kiln_autofd int dirfd = open(rig.keys_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < RIG_PRINCIPALS; i++) {
        kiln_sign_key_free(rig.all[i].key);
        snprintf(name, sizeof name, "%s.pub", rig.all[i].enrolled.name);
        unlinkat(dirfd, name, 0);
        unlinkat(dirfd, rig.all[i].enrolled.name, 0);
    }
    rmdir(rig.keys_dir);
}

static inline struct kiln_job_id rig_incarnation(uint8_t fill) {
    struct kiln_job_id id;
    memset(id.bytes, fill, sizeof id.bytes);
    return id;
}

struct rig_open {
    int who;
    uint8_t incarnation;
    const struct kiln_kafka_setting *settings;
    size_t settings_count;
};

static inline int rig_try_open(const struct rig_open *how, struct kiln_bus **bus, struct kiln_err *err) {
    const struct kiln_principal *me = &rig.all[how->who].enrolled;
    kiln_autofree char *cert = NULL, *key = NULL;
    if (rig.tls_ca)
        assert(asprintf(&cert, "%s/%s/tls.crt", rig.tls_dir, me->name) > 0 && asprintf(&key, "%s/%s/tls.key", rig.tls_dir, me->name) > 0);
    const struct kiln_kafka_options options = {
        .brokers = rig.brokers,
        .role = me->role,
        .principal = me->name,
        .tenant = me->tenant,
        .pool = me->pool,
        .incarnation = rig_incarnation(how->incarnation),
        .key = rig.all[how->who].key,
        .tls_ca = rig.tls_ca,
        .tls_cert = cert,
        .tls_key = key,
        .partitions = rig.partitions,
        .work_partitions = rig.partitions,
        .result_partitions = rig.partitions,
        .topic_prefix = rig.prefix,
        .settings = how->settings,
        .settings_count = how->settings_count,
        .find = rig_find,
    };
    return kiln_bus_open_kafka(&options, bus, err);
}

static inline struct kiln_bus *rig_open(int who, uint8_t incarnation, const struct kiln_kafka_setting *settings, size_t count) {
    struct kiln_bus *bus = NULL;
    struct kiln_err err = {0};
    const struct rig_open how = {who, incarnation, settings, count};
    if (rig_try_open(&how, &bus, &err))
        fprintf(stderr, "open: %s\n", err.text);
    assert(bus);
    return bus;
}

// A record with a frame that is known, whatever its body says: the bus does not read it.
static inline size_t rig_frame(enum kiln_record_type type, const char *body, unsigned char *out) {
    out[0] = 0;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (unsigned char)((uint32_t)type >> (24 - 8 * i));
    memcpy(out + 5, body, strlen(body));
    return 5 + strlen(body);
}

static inline int rig_try_put(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const char *key, const char *body,
                       struct kiln_err *err) {
    unsigned char value[4096];
    size_t len = rig_frame(KILN_RECORD_credit, body, value);
    return kiln_bus_publish(bus, topic, partition, key, strlen(key), value, len, err);
}

static inline void rig_put(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const char *key, const char *body) {
    struct kiln_err err = {0};
    if (rig_try_put(bus, topic, partition, key, body, &err))
        fprintf(stderr, "publish: %s\n", err.text);
    assert(err.code == 0);
}

static inline bool rig_is(const struct kiln_record *record, const char *body) {
    return record->value_len == 5 + strlen(body) && memcmp(record->value + 5, body, strlen(body)) == 0;
}

static inline void rig_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count) {
    struct kiln_err err = {0};
    if (kiln_bus_subscribe(bus, topics, count, &err))
        fprintf(stderr, "subscribe: %s\n", err.text);
    assert(err.code == 0);
}

static const struct kiln_bus_subscription rig_group[] = {
    {KILN_TOPIC_JOBS, false}, {KILN_TOPIC_CREDITS, false}, {KILN_TOPIC_LEASES, false}, {KILN_TOPIC_CANDIDATES, false}};
#define RIG_GROUP_COUNT (sizeof rig_group / sizeof *rig_group)

static inline int rig_next(struct kiln_bus *bus, uint64_t within_ms, struct kiln_record *record) {
    *record = (struct kiln_record){0};
    return kiln_bus_poll(bus, kiln_clock_ms() + within_ms, record, NULL);
}

// The next of that kind; news of other kinds on the way are dropped.
static inline bool rig_await(struct kiln_bus *bus, enum kiln_record_news news, uint64_t within_ms, struct kiln_record *record) {
    uint64_t until_ms = kiln_clock_ms() + within_ms;
    while (kiln_bus_poll(bus, until_ms, record, NULL) == 0) {
        if (record->news == news)
            return true;
        kiln_record_release(record);
    }
    return false;
}

// The partitions that a verifier has gained and not lost, after it gained `count`.
static inline bool rig_await_gained(struct kiln_bus *bus, unsigned count, uint64_t within_ms, uint64_t *mask) {
    struct kiln_record record;
    uint64_t until_ms = kiln_clock_ms() + within_ms;
    while ((unsigned)__builtin_popcountll(*mask) != count && kiln_bus_poll(bus, until_ms, &record, NULL) == 0) {
        if (record.news == KILN_NEWS_GAINED)
            *mask |= 1ull << record.partition;
        else if (record.news == KILN_NEWS_LOST)
            *mask &= ~(1ull << record.partition);
        kiln_record_release(&record);
    }
    return (unsigned)__builtin_popcountll(*mask) == count;
}

static inline bool rig_await_health(struct kiln_bus *bus, bool healthy, uint64_t within_ms) {
    uint64_t until_ms = kiln_clock_ms() + within_ms;
    struct kiln_record record;
    while ((kiln_bus_healthy(bus, NULL) == 0) != healthy && kiln_clock_ms() < until_ms) {
        if (kiln_bus_poll(bus, kiln_clock_ms() + 10, &record, NULL) == 0)
            kiln_record_release(&record);
    }
    return (kiln_bus_healthy(bus, NULL) == 0) == healthy;
}
