// What the result decoder accepts, the encoder gives back byte for byte; no fuzzed envelope opens.
#include <stdlib.h>
#include <string.h>

#include "lib/core/result.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// RFC 8032, section 7.1, test 1
static const uint8_t public_key[KILN_PUBLIC_KEY_BYTES] = {
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a};

static void skip_outputs(struct kiln_reader *reader) {
    size_t len;
    uint32_t count = kiln_read_be32(reader);
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        kiln_read_bytes(reader, 2);
        kiln_read_field(reader, 255, &len);
        kiln_read_bytes(reader, 8 + 32);
    }
}

// The digest of the outputs, in the core and in its attestations, keeps a fuzzer out of the outputs: it is mended before
// decoding, so that they are reached too.
static void mend(uint8_t *data, size_t size) {
    struct kiln_reader reader = KILN_READER_INIT(data, size);
    struct kiln_digest digest;
    size_t len;
    kiln_read_bytes(&reader, 14 + 32);
    kiln_read_field(&reader, 255, &len);
    kiln_read_bytes(&reader, 8 + 8 + 8);
    kiln_read_field(&reader, 255, &len);
    kiln_read_bytes(&reader, 3 * 32);
    kiln_read_field(&reader, 255, &len);
    kiln_read_bytes(&reader, 1 + 4 + 32);
    size_t digest_at = reader.at;
    kiln_read_bytes(&reader, 32);
    size_t from = reader.at;
    skip_outputs(&reader);
    if (reader.failed)
        return;
    kiln_digest_of(data + from, reader.at - from, &digest);
    memcpy(data + digest_at, digest.bytes, sizeof digest.bytes);
    kiln_read_bytes(&reader, 32 + 8);
    kiln_read_field(&reader, 127, &len);
    uint32_t count = kiln_read_be32(&reader);
    for (uint32_t i = 0; i < count && !reader.failed; i++) {
        for (int name = 0; name < 3; name++)
            kiln_read_field(&reader, 255, &len);
        kiln_read_bytes(&reader, 8);
        size_t at = reader.at;
        if (kiln_read_bytes(&reader, 32))
            memcpy(data + at, digest.bytes, sizeof digest.bytes);
        kiln_read_bytes(&reader, 64);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct kiln_trust *trust; // reachable at exit: no leak
    if (!trust && (kiln_trust_new(&trust, NULL) || kiln_trust_add_public(trust, public_key, NULL)))
        abort();
    struct kiln_digest action = {{0}};
    kiln_autoresult struct kiln_result opened = {0}, result = {0};
    if (kiln_result_open(data, size, trust, &action, &opened, NULL) == 0)
        abort();
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    mend(copy, size);
    if (kiln_result_decode(copy, size, &result, NULL) == 0) {
        kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
        if (kiln_result_encode(&result, &again, NULL) || again.len != size || memcmp(again.data, copy, size) != 0)
            abort();
    }
    free(copy);
    return 0;
}
