// What the action decoder accepts, the encoder gives back byte for byte; the seed can always be made.
#include <stdlib.h>
#include <string.h>

#include "lib/core/action.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_autoaction struct kiln_action action = {0};
    if (kiln_action_decode(data, size, &action, NULL))
        return 0;
    kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    if (kiln_action_encode(&action, &again, NULL) || again.len != size || memcmp(again.data, data, size) != 0)
        abort();
    struct kiln_digest seed;
    kiln_action_seed(&action, &seed);
    return 0;
}
