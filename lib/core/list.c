#include "lib/core/list.h"

#include <stdlib.h>
#include <string.h>

void *kiln_list_grow(void *items, size_t count, size_t item_bytes) {
    if (count & (count - 1))
        return items;
    return reallocarray(items, count ? count * 2 : 1, item_bytes);
}

void *kiln_list_read(struct kiln_reader *reader, size_t max, size_t min_bytes, size_t item_bytes, size_t *count) {
    size_t n = kiln_read_be32(reader);
    *count = 0;
    if (n > max || n > (reader->len - reader->at) / min_bytes)
        reader->failed = true;
    if (reader->failed)
        return NULL;
    size_t room = 1;
    while (room < n)
        room *= 2;
    void *items = calloc(room, item_bytes);
    if (!items)
        reader->failed = true;
    else
        *count = n;
    return items;
}

void kiln_buf_add_digest(struct kiln_buf *buf, const struct kiln_digest *digest) {
    kiln_buf_add(buf, digest->bytes, sizeof digest->bytes);
}

void kiln_read_digest(struct kiln_reader *reader, struct kiln_digest *digest) {
    const unsigned char *bytes = kiln_read_bytes(reader, sizeof digest->bytes);
    if (bytes)
        memcpy(digest->bytes, bytes, sizeof digest->bytes);
}
