#include "lib/wire/frame.h"

#include "lib/base/buf.h"
#include "lib/wire/schema.h"

int kiln_frame_describe(const void *data, size_t len, struct kiln_frame *frame, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    uint8_t magic = kiln_read_u8(&reader);
    uint32_t id = kiln_read_be32(&reader);
    if (reader.failed || magic != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not framed as a record");
    for (size_t i = 0; i < kiln_schema_texts_count; i++) {
        const struct kiln_schema_text *text = &kiln_schema_texts[i];
        if ((uint32_t)text->type == id) {
            *frame = (struct kiln_frame){.id = id, .name = text->name, .fingerprint = text->fingerprint};
            return 0;
        }
    }
    return kiln_fail(err, KILN_E_CORRUPT, "no schema has the id %u", id);
}
