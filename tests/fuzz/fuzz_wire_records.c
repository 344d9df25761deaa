// For each record: what the decoder accepts, the encoder gives back byte for byte. The first byte chooses the record and
// the rest is its body, so that the fuzzer need not find the frame; from 0x80 up the rest is a whole frame.
#include <stdlib.h>
#include <string.h>

#include "lib/wire/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECODE(name)                                                                                                   \
    static void recode_##name(const void *framed, size_t len) {                                                        \
        struct kiln_##name record;                                                                                     \
        if (kiln_##name##_decode(framed, len, &record, NULL))                                                          \
            return;                                                                                                    \
        kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_WIRE_BYTES_MAX);                                       \
        if (kiln_##name##_encode(&record, &again, NULL) || again.len != len || memcmp(again.data, framed, len) != 0)   \
            abort();                                                                                                   \
        kiln_##name##_release(&record);                                                                                \
    }
KILN_RECORD_TYPES(RECODE)

static const struct {
    uint32_t id;
    void (*recode)(const void *framed, size_t len);
} records[] = {
#define ROW(name) {KILN_RECORD_##name, recode_##name},
    KILN_RECORD_TYPES(ROW)
};

static void recode_any(const void *framed, size_t len) {
    enum kiln_record_type type;
    if (kiln_record_type_of(framed, len, &type, NULL))
        return;
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        if (records[i].id == type) {
            records[i].recode(framed, len);
            return;
        }
    }
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > KILN_WIRE_BYTES_MAX + 16)
        return 0;
    if (data[0] & 0x80) {
        recode_any(data + 1, size - 1);
        return 0;
    }
    kiln_autobuf struct kiln_buf framed = KILN_BUF_INIT(2 * KILN_WIRE_BYTES_MAX);
    kiln_buf_add_u8(&framed, 0);
    kiln_buf_add_be32(&framed, records[data[0] % (sizeof records / sizeof *records)].id);
    kiln_buf_add(&framed, data + 1, size - 1);
    recode_any(framed.data, framed.len);
    return 0;
}
