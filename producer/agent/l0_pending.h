// Changes to the index that are not written yet, looked up by key. Private to l0.c.
//
// Two generations: changes come into the young one; kiln_l0_pending_turn() makes it the old one, which stays visible while
// it is written and is emptied by kiln_l0_pending_done(). The caller holds a lock around every call; between turn and
// done it may read the old generation's items without it.
#pragma once

#include "producer/agent/l0_index.h"

#define KILN_L0_PENDING_BYTES_MAX ((size_t)64 << 20)
#define KILN_L0_PENDING_BUCKETS 4096u

struct kiln_l0_generation {
    struct kiln_l0_change *buckets[KILN_L0_PENDING_BUCKETS];
    struct kiln_l0_change **items;
    size_t count, cap, bytes;
};

struct kiln_l0_pending {
    struct kiln_l0_generation *young, *old;
};

int kiln_l0_pending_init(struct kiln_l0_pending *pending, struct kiln_err *err);
void kiln_l0_pending_release(struct kiln_l0_pending *pending);
// Replaces an earlier change of the key; a TOUCH never does. KILN_E_LIMIT when too much waits.
int kiln_l0_pending_add(struct kiln_l0_pending *pending, enum kiln_l0_change_op op, const void *key, size_t key_len,
                        const void *value, size_t value_len, struct kiln_err *err);
// The change that decides the key's value, a PUT or a DELETE; NULL when none does. Borrowed until the next call.
const struct kiln_l0_change *kiln_l0_pending_find(const struct kiln_l0_pending *pending, const void *key,
                                                  size_t key_len);
void kiln_l0_pending_turn(struct kiln_l0_pending *pending);
void kiln_l0_pending_done(struct kiln_l0_pending *pending);
