#include "lib/blob/s3_presence.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lib/core/digest.h"

#define SETS 16384u
#define WAYS 4u
#define NAME_BYTES 16

struct entry {
    uint8_t name[NAME_BYTES];
    uint64_t until_ms; // 0: free
};

struct kiln_s3_presence {
    pthread_mutex_t mutex;
    uint8_t secret[32];
    struct entry sets[SETS][WAYS];
};

int kiln_s3_presence_new(struct kiln_s3_presence **presence, struct kiln_err *err) {
    struct kiln_s3_presence *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to remember keys");
    if (getrandom(made->secret, sizeof made->secret, 0) != sizeof made->secret) {
        free(made);
        return kiln_fail_errno(err, KILN_E_IO, "no random bytes");
    }
    pthread_mutex_init(&made->mutex, NULL);
    *presence = made;
    return 0;
}

void kiln_s3_presence_free(struct kiln_s3_presence *presence) {
    if (!presence)
        return;
    pthread_mutex_destroy(&presence->mutex);
    free(presence);
}

static struct entry *set_of(struct kiln_s3_presence *presence, unsigned space, const char *key, uint8_t name[NAME_BYTES]) {
    uint8_t salted[sizeof presence->secret + 1];
    struct kiln_digest digest;
    memcpy(salted, presence->secret, sizeof presence->secret);
    salted[sizeof presence->secret] = (uint8_t)space;
    kiln_hmac(salted, sizeof salted, key, strlen(key), &digest);
    memcpy(name, digest.bytes, NAME_BYTES);
    return presence->sets[(digest.bytes[30] << 8 | digest.bytes[31]) % SETS];
}

static struct entry *find(struct entry *set, const uint8_t name[NAME_BYTES]) {
    for (size_t i = 0; i < WAYS; i++)
        if (set[i].until_ms && memcmp(set[i].name, name, NAME_BYTES) == 0)
            return &set[i];
    return NULL;
}

void kiln_s3_presence_add(struct kiln_s3_presence *presence, unsigned space, const char *key, uint64_t now_ms) {
    uint8_t name[NAME_BYTES];
    struct entry *set = set_of(presence, space, key, name);
    pthread_mutex_lock(&presence->mutex);
    struct entry *entry = find(set, name);
    if (!entry) {
        entry = set;
        for (size_t i = 1; i < WAYS; i++)
            if (set[i].until_ms < entry->until_ms)
                entry = &set[i];
    }
    memcpy(entry->name, name, NAME_BYTES);
    entry->until_ms = now_ms + KILN_S3_PRESENCE_MS;
    pthread_mutex_unlock(&presence->mutex);
}

void kiln_s3_presence_remove(struct kiln_s3_presence *presence, unsigned space, const char *key) {
    uint8_t name[NAME_BYTES];
    struct entry *set = set_of(presence, space, key, name);
    pthread_mutex_lock(&presence->mutex);
    struct entry *entry = find(set, name);
    if (entry)
        entry->until_ms = 0;
    pthread_mutex_unlock(&presence->mutex);
}

bool kiln_s3_presence_has(struct kiln_s3_presence *presence, unsigned space, const char *key, uint64_t now_ms) {
    uint8_t name[NAME_BYTES];
    struct entry *set = set_of(presence, space, key, name);
    pthread_mutex_lock(&presence->mutex);
    struct entry *entry = find(set, name);
    bool has = entry && entry->until_ms > now_ms;
    pthread_mutex_unlock(&presence->mutex);
    return has;
}
