#include "verifier/plan_table.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_AT_FIRST 64u // a power of two, and so are all later counts

int kiln_table_init(struct kiln_table *table, uint64_t seed) {
    struct kiln_table_link **buckets = calloc(BUCKETS_AT_FIRST, sizeof(struct kiln_table_link *));
    if (!buckets)
        return -1;
    *table = (struct kiln_table){.buckets = buckets, .buckets_count = BUCKETS_AT_FIRST, .seed = seed};
    return 0;
}

void kiln_table_release(struct kiln_table *table) {
    free(table->buckets);
    *table = (struct kiln_table){0};
}

// Both halves of the 128-bit product: every bit of the inputs reaches every bit of the result.
static uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t kiln_table_hash(const struct kiln_table *table, const void *bytes, size_t len, uint64_t more) {
    const unsigned char *at = bytes;
    uint64_t hash = mix(table->seed ^ 0x9e3779b97f4a7c15u, more ^ 0xd1b54a32d192ed03u) ^ len;
    for (; len; ) {
        uint64_t word = 0;
        size_t taken = len < sizeof word ? len : sizeof word;
        memcpy(&word, at, taken);
        hash = mix(hash ^ word ^ 0xa0761d6478bd642fu, table->seed ^ 0xe7037ed1a0b428dbu);
        at += taken;
        len -= taken;
    }
    return mix(hash ^ 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u);
}

static void insert(struct kiln_table *table, struct kiln_table_link *link) {
    struct kiln_table_link **bucket = &table->buckets[link->hash & (table->buckets_count - 1)];
    link->next = *bucket;
    *bucket = link;
}

static void grow(struct kiln_table *table) {
    struct kiln_table_link **former = table->buckets;
    size_t former_count = table->buckets_count;
    struct kiln_table_link **buckets = calloc(former_count * 2, sizeof(struct kiln_table_link *));
    if (!buckets)
        return;
    table->buckets = buckets;
    table->buckets_count = former_count * 2;
    for (size_t i = 0; i < former_count; i++) {
        for (struct kiln_table_link *link = former[i], *next; link; link = next) {
            next = link->next;
            insert(table, link);
        }
    }
    free(former);
}

void kiln_table_add(struct kiln_table *table, struct kiln_table_link *link, uint64_t hash) {
    if (table->count >= table->buckets_count)
        grow(table);
    link->hash = hash;
    insert(table, link);
    table->count++;
}

void kiln_table_remove(struct kiln_table *table, struct kiln_table_link *link) {
    struct kiln_table_link **at = &table->buckets[link->hash & (table->buckets_count - 1)];
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    table->count--;
}

static struct kiln_table_link *with_hash(struct kiln_table_link *link, uint64_t hash) {
    while (link && link->hash != hash)
        link = link->next;
    return link;
}

struct kiln_table_link *kiln_table_first(const struct kiln_table *table, uint64_t hash) {
    return with_hash(table->buckets[hash & (table->buckets_count - 1)], hash);
}

struct kiln_table_link *kiln_table_next(const struct kiln_table_link *link) { return with_hash(link->next, link->hash); }
