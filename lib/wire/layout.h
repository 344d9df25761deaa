// How the structs of records.h lie in memory, field by field in the order of the schema, so that one piece of code moves
// all records between struct and Avro value.
#pragma once

#include <stddef.h>

#include "lib/wire/records.h"

enum kiln_shape {
    KILN_SHAPE_FIXED,  // bytes in place
    KILN_SHAPE_BOOL,   // bool
    KILN_SHAPE_I32,    // int32_t
    KILN_SHAPE_U32,    // uint32_t or an enum; up to INT32_MAX on the wire
    KILN_SHAPE_U64,    // uint64_t; up to INT64_MAX on the wire
    KILN_SHAPE_TEXT,   // char *, never NULL
    KILN_SHAPE_BYTES,  // unsigned char * and a size_t; NULL when empty
    KILN_SHAPE_ARRAY,  // pointer to items and a size_t; NULL when empty
    KILN_SHAPE_RECORD, // a struct in place
};

struct kiln_field;

struct kiln_layout {
    enum kiln_shape shape;
    size_t size;                    // of the thing in memory
    const struct kiln_layout *item; // ARRAY
    const struct kiln_field *fields; // RECORD
    size_t fields_count;
};

struct kiln_field {
    const char *name; // as in the schema
    const struct kiln_layout *layout;
    size_t offset, count_offset; // count_offset: of the size_t of BYTES and ARRAY
};

const struct kiln_layout *kiln_layout_of(enum kiln_record_type type);
// Frees what the fields of a record own and zeroes it.
void kiln_layout_release(const struct kiln_layout *layout, void *record);
