// Opens when sandboxes cannot be had (or the store is unusable), so that each unit does not find out again: while it is open
// units are compiled locally at once, with the reason that opened it. Closes by itself after a while and lets one unit try.
// Pure but for its lock: `now_ms` is passed in. Thread-safe.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kiln_breaker;

struct kiln_breaker *kiln_breaker_new(uint64_t open_ms); // NULL on exhausted memory
void kiln_breaker_free(struct kiln_breaker *breaker);
// true: do not try; the reason is copied out. After open_ms one caller gets false and tries.
bool kiln_breaker_open(struct kiln_breaker *breaker, uint64_t now_ms, char *reason, size_t reason_size);
void kiln_breaker_trip(struct kiln_breaker *breaker, uint64_t now_ms, const char *reason);
void kiln_breaker_succeed(struct kiln_breaker *breaker);
