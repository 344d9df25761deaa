#include "producer/agent/l0_pending.h"

#include <stdlib.h>
#include <string.h>

// FNV-1a: the keys are mostly digests, so any hash will do that looks at all bytes.
static uint64_t hash_key(const unsigned char *key, size_t len) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ key[i]) * 0x100000001b3u;
    return hash;
}

static struct kiln_l0_change **find_slot(struct kiln_l0_generation *generation, uint64_t hash, const void *key,
                                         size_t key_len) {
    struct kiln_l0_change **slot = &generation->buckets[hash % KILN_L0_PENDING_BUCKETS];
    while (*slot && ((*slot)->hash != hash || (*slot)->key_len != key_len || memcmp((*slot)->bytes, key, key_len) != 0))
        slot = &(*slot)->next;
    return slot;
}

static void generation_clear(struct kiln_l0_generation *generation) {
    for (size_t i = 0; i < generation->count; i++)
        free(generation->items[i]);
    free(generation->items);
    *generation = (struct kiln_l0_generation){0};
}

int kiln_l0_pending_init(struct kiln_l0_pending *pending, struct kiln_err *err) {
    *pending = (struct kiln_l0_pending){calloc(1, sizeof *pending->young), calloc(1, sizeof *pending->old)};
    if (pending->young && pending->old)
        return 0;
    kiln_l0_pending_release(pending);
    return kiln_fail(err, KILN_E_NOMEM, "no memory for the local cache");
}

void kiln_l0_pending_release(struct kiln_l0_pending *pending) {
    struct kiln_l0_generation *both[] = {pending->young, pending->old};
    for (size_t i = 0; i < 2; i++) {
        if (both[i])
            generation_clear(both[i]);
        free(both[i]);
    }
    *pending = (struct kiln_l0_pending){0};
}

static int make_room(struct kiln_l0_generation *generation) {
    if (generation->count < generation->cap)
        return 0;
    size_t cap = generation->cap ? generation->cap * 2 : 64;
    struct kiln_l0_change **items = realloc(generation->items, cap * sizeof *items);
    if (!items)
        return KILN_E_NOMEM;
    generation->items = items;
    generation->cap = cap;
    return 0;
}

static void replace(struct kiln_l0_generation *generation, struct kiln_l0_change **slot, struct kiln_l0_change *fresh) {
    struct kiln_l0_change *stale = *slot;
    fresh->next = stale->next;
    fresh->position = stale->position;
    generation->items[fresh->position] = fresh;
    generation->bytes -= stale->key_len + stale->value_len;
    *slot = fresh;
    free(stale);
}

int kiln_l0_pending_add(struct kiln_l0_pending *pending, enum kiln_l0_change_op op, const void *key, size_t key_len,
                        const void *value, size_t value_len, struct kiln_err *err) {
    struct kiln_l0_generation *young = pending->young;
    uint64_t hash = hash_key(key, key_len);
    struct kiln_l0_change **slot = find_slot(young, hash, key, key_len);
    if (*slot && op == KILN_L0_TOUCH)
        return 0;
    if (key_len + value_len > KILN_L0_PENDING_BYTES_MAX - young->bytes)
        return kiln_fail(err, KILN_E_LIMIT, "too many changes of the index wait to be written");
    struct kiln_l0_change *fresh = malloc(sizeof *fresh + key_len + value_len);
    if (!fresh || make_room(young)) {
        free(fresh);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the local cache");
    }
    *fresh = (struct kiln_l0_change){.hash = hash, .op = op, .key_len = key_len, .value_len = value_len};
    memcpy(fresh->bytes, key, key_len);
    if (value_len)
        memcpy(fresh->bytes + key_len, value, value_len);
    if (*slot) {
        replace(young, slot, fresh);
    } else {
        fresh->position = young->count;
        young->items[young->count++] = fresh;
        *slot = fresh;
    }
    young->bytes += key_len + value_len;
    return 0;
}

const struct kiln_l0_change *kiln_l0_pending_find(const struct kiln_l0_pending *pending, const void *key,
                                                  size_t key_len) {
    uint64_t hash = hash_key(key, key_len);
    struct kiln_l0_generation *const both[] = {pending->young, pending->old};
    for (size_t i = 0; i < 2; i++) {
        const struct kiln_l0_change *change = *find_slot(both[i], hash, key, key_len);
        if (change && change->op != KILN_L0_TOUCH)
            return change;
    }
    return NULL;
}

void kiln_l0_pending_turn(struct kiln_l0_pending *pending) {
    struct kiln_l0_generation *young = pending->young;
    pending->young = pending->old;
    pending->old = young;
}

void kiln_l0_pending_done(struct kiln_l0_pending *pending) { generation_clear(pending->old); }
