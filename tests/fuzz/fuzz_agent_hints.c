// Hints come from wherever agents of the tenant may write: what the decoder accepts, the encoder gives back byte for byte.
#include <stdlib.h>
#include <string.h>

#include "producer/agent/hints.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_hints hints = {0};
    if (kiln_hints_decode(data, size, &hints, NULL) == 0) {
        kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
        if (kiln_hints_encode(&hints, &again, NULL) || again.len != size || memcmp(again.data, data, size) != 0)
            abort();
    }
    kiln_hints_release(&hints);
    return 0;
}
