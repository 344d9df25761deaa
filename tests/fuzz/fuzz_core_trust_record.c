// What the trust record's decoder accepts, the encoder gives back byte for byte; no fuzzed envelope opens.
#include <stdlib.h>
#include <string.h>

#include "lib/core/trust_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t no_root[1][KILN_PUBLIC_KEY_BYTES] = {{1}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_autotrust_record struct kiln_trust_record opened = {0}, record = {0};
    if (kiln_trust_record_open(data, size, no_root, 1, 1, &opened, NULL) == 0)
        abort();
    if (kiln_trust_record_decode(data, size, &record, NULL) == 0) {
        kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX);
        if (kiln_trust_record_encode(&record, &again, NULL) || again.len != size || memcmp(again.data, data, size) != 0)
            abort();
        for (size_t i = 0; i < record.principals_count; i++)
            if (kiln_trust_record_enrolled(&record, record.principals[i].name) != &record.principals[i])
                abort();
        for (size_t i = 0; i < record.revocations_count; i++)
            if (!kiln_trust_record_revokes(&record, record.revocations[i].kind, record.revocations[i].what,
                                           record.revocations[i].since_ms))
                abort();
    }
    return 0;
}
