// What commands write to standard output.
#pragma once

#include "lib/base/buf.h"

// Writes the text; KILN_EXIT_OK, or KILN_EXIT_FAILED when it could not be made or written.
int kiln_cmd_print(const struct kiln_buf *text);
// A JSON string with its quotes (RFC 8259); bytes that are not ASCII are passed as they are.
void kiln_cmd_add_json(struct kiln_buf *out, const char *text);
