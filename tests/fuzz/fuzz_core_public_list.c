// What the decoder of the list of public packages accepts, the encoder gives back byte for byte, and each entry is found.
#include <stdlib.h>
#include <string.h>

#include "lib/core/public_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t no_root[1][KILN_PUBLIC_KEY_BYTES] = {{1}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_autopublic_list struct kiln_public_list opened = {0}, list = {0};
    const struct kiln_roots roots = {no_root, 1, 1};
    if (kiln_public_list_open(data, size, &roots, &opened, NULL) == 0)
        abort();
    if (kiln_public_list_decode(data, size, &list, NULL) == 0) {
        kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_PUBLIC_BYTES_MAX);
        if (kiln_public_list_encode(&list, &again, NULL) || again.len != size || memcmp(again.data, data, size) != 0)
            abort();
        for (size_t i = 0; i < list.count; i++)
            if (!kiln_public_list_has(&list, list.packages[i].package, &list.packages[i].tree))
                abort();
    }
    return 0;
}
