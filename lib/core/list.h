// Counted lists of the canonical records: growing them one by one, and reading them with the input bounding the memory.
//
// A list has no capacity of its own: it always has room for its count rounded up to a power of two. Both functions keep
// that, so that a decoded list can be added to. Items are plain structs; the caller owns what they hold.
#pragma once

#include "lib/base/buf.h"
#include "lib/core/digest.h"

// Room for one more item: the (perhaps moved) list; NULL on exhausted memory, and then `items` is as before.
void *kiln_list_grow(void *items, size_t count, size_t item_bytes);
// Reads a be32 count and gives zeroed room for that many. The reader fails, and NULL is given, when the count is over
// max, or when fewer than count * min_bytes bytes follow (min_bytes: the shortest encoding of an item).
void *kiln_list_read(struct kiln_reader *reader, size_t max, size_t min_bytes, size_t item_bytes, size_t *count);

void kiln_buf_add_digest(struct kiln_buf *buf, const struct kiln_digest *digest);
void kiln_read_digest(struct kiln_reader *reader, struct kiln_digest *digest);
