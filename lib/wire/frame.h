// The frame of a record (0x00, be32 schema id, body), looked at from outside: which schema it names. The body is not read.
// Thread: re-entrant; unlike records.h it needs no avro-c.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct kiln_frame {
    uint32_t id;
    const char *name;     // of the record: "job_submitted"; static
    uint64_t fingerprint; // CRC-64-AVRO of the schema, as pinned in schemas/ids
};

// KILN_E_CORRUPT: no frame, or an id that is not in schemas/ids.
int kiln_frame_describe(const void *data, size_t len, struct kiln_frame *frame, struct kiln_err *err);
