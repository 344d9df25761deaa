// Counters of what the agent did, kept across restarts in DIR/stats.json.
//
// requests = hits + misses + local + passed_through. A miss is answered by a new or shared execution; a request that ends
// in a local compile counts under `local` (with its reason) whatever happened before, and under `errors` as well when a
// failure of ours was that reason. executions counts sandbox runs that this agent's submissions caused. Reasons are counted by their first word.
// Thread-safe.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

enum kiln_stat { KILN_STAT_REQUESTS, KILN_STAT_HITS, KILN_STAT_MISSES, KILN_STAT_EXECUTIONS, KILN_STAT_LOCAL,
                 KILN_STAT_PASSED_THROUGH, KILN_STAT_ERRORS, KILN_STAT_CORRUPT, KILN_STAT_COUNT };

struct kiln_stats;

int kiln_stats_open(const char *dir, struct kiln_stats **stats, struct kiln_err *err); // a damaged file starts at zero
void kiln_stats_close(struct kiln_stats *stats); // saves
int kiln_stats_save(struct kiln_stats *stats, struct kiln_err *err); // when something changed since the last time
// build_id "" for none; at most 64 build ids are kept, the oldest goes first.
void kiln_stats_add(struct kiln_stats *stats, const char *build_id, enum kiln_stat stat);
// What was counted too early did not come true.
void kiln_stats_take_back(struct kiln_stats *stats, const char *build_id, enum kiln_stat stat);
// `reason` is "word: detail"; the last detail of each word is kept for people.
void kiln_stats_add_local(struct kiln_stats *stats, const char *build_id, const char *reason);
void kiln_stats_hit_time(struct kiln_stats *stats, uint64_t micros); // for the median
int kiln_stats_show(struct kiln_stats *stats, bool json, struct kiln_buf *out, struct kiln_err *err);
void kiln_stats_zero(struct kiln_stats *stats);
