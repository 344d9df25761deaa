// Limits of each field of each record: one table, enforced on what is decoded and on what is encoded. The table in
// schemas/README.md repeats it; a test compares the two.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/wire/records.h"

enum kiln_form {
    KILN_FORM_NUMBER, // min and max are values
    KILN_FORM_COUNT,  // of array items
    KILN_FORM_BYTES,  // length
    KILN_FORM_TEXT,   // length in bytes; UTF-8 without NUL
    KILN_FORM_NAME,   // text of letters, digits, '.', '_', '-' that does not begin with '.'
};

struct kiln_cap {
    enum kiln_record_type type;
    const char *path; // "contents", "contents[].size", "closure[]"
    enum kiln_form form;
    int64_t min, max;
};

extern const struct kiln_cap kiln_caps[];
extern const size_t kiln_caps_count;

const struct kiln_cap *kiln_cap_find(enum kiln_record_type type, const char *path); // NULL when there is none
const char *kiln_form_name(enum kiln_form form);
