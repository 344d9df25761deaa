// CRC-64-AVRO (Avro specification 1.11, "Schema Fingerprints"): names a schema by its parsing canonical form. A lookup
// key, no authentication.
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t kiln_fingerprint(const void *canonical_form, size_t len);
