// Which content a store has seen present: a bounded memory, so that known content costs no request.
//
// A key is remembered for KILN_S3_PRESENCE_MS (content outlives that by days; but operators may delete) by a keyed hash, so that
// no chosen names can be taken for each other. When full, older entries give way. Thread: shared.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KILN_S3_PRESENCE_MS (60ull * 60 * 1000)

struct kiln_s3_presence;

int kiln_s3_presence_new(struct kiln_s3_presence **presence, struct kiln_err *err);
void kiln_s3_presence_free(struct kiln_s3_presence *presence);
void kiln_s3_presence_add(struct kiln_s3_presence *presence, unsigned space, const char *key, uint64_t now_ms);
void kiln_s3_presence_remove(struct kiln_s3_presence *presence, unsigned space, const char *key);
bool kiln_s3_presence_has(struct kiln_s3_presence *presence, unsigned space, const char *key, uint64_t now_ms);
