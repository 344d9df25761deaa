// Between a struct of records.h and an Avro value of its schema.
#pragma once

#include <avro.h>

#include "lib/wire/layout.h"

// 0 or KILN_E_UNSUPPORTED: fields, their order or their types differ.
int kiln_convert_check(const struct kiln_layout *layout, avro_schema_t schema);
// Fills an empty value. KILN_E_INVAL: a text that is NULL; KILN_E_NOMEM: avro-c refused.
int kiln_convert_put(const struct kiln_layout *layout, const void *record, avro_value_t *value);
// Fills the zeroed record. On failure what it holds so far is to be released by the caller.
int kiln_convert_get(const struct kiln_layout *layout, avro_value_t *value, void *record);
