// A hash table of things that carry their own link: finding, adding and removing cost the same however many there are.
//
// Keyed by a seed, so that nobody who chooses the keys can make them fall together. Things with equal hashes are told apart
// by the caller: kiln_table_first, then kiln_table_next. Part of the plan: pure. Adding never fails: without memory to grow,
// the table only gets slower.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct kiln_table_link {
    struct kiln_table_link *next;
    uint64_t hash;
};

struct kiln_table {
    struct kiln_table_link **buckets;
    size_t buckets_count, count;
    uint64_t seed;
};

#define kiln_member_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

// 0, or -1 without memory.
int kiln_table_init(struct kiln_table *table, uint64_t seed);
void kiln_table_release(struct kiln_table *table); // not what is in it
uint64_t kiln_table_hash(const struct kiln_table *table, const void *bytes, size_t len, uint64_t more);
void kiln_table_add(struct kiln_table *table, struct kiln_table_link *link, uint64_t hash);
void kiln_table_remove(struct kiln_table *table, struct kiln_table_link *link);
struct kiln_table_link *kiln_table_first(const struct kiln_table *table, uint64_t hash);
struct kiln_table_link *kiln_table_next(const struct kiln_table_link *link);
