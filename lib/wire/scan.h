// The strict pre-scan: reads an Avro body along a schema without allocating, before avro-c sees a byte of it.
//
// avro-c 1.11.1 takes overlong numbers, split blocks, trailing bytes and lengths that cost gigabytes; the scan takes only
// the one encoding that kiln_*_encode writes: minimal varints, one block per array (or none), lengths and counts within
// the caps and within what is left, boolean 0 or 1, UTF-8 (RFC 3629) without NUL, and the end exactly at the end.
#pragma once

#include "lib/wire/schema.h"

// 0; KILN_E_CORRUPT for a wrong form, KILN_E_LIMIT for a cap that is exceeded; the text names the field.
int kiln_scan(const struct kiln_schema *schema, const void *body, size_t len, struct kiln_err *err);
