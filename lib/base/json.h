// Text as a JSON string, for the few places of lib/ that print JSON without a JSON library.
#pragma once

#include <stddef.h>

#include "lib/base/buf.h"

// Appends the quoted, escaped string (RFC 8259). Bytes that are not UTF-8 become U+FFFD. A failure shows in buf->failed.
void kiln_json_add_string(struct kiln_buf *buf, const char *text, size_t len);
