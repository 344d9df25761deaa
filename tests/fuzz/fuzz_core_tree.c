// What the tree decoder accepts, the encoder gives back byte for byte.
#include <stdlib.h>
#include <string.h>

#include "lib/core/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_autotree struct kiln_tree tree = {0};
    if (kiln_tree_decode(data, size, &tree, NULL))
        return 0;
    kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    if (kiln_tree_encode(&tree, &again, NULL) || again.len != size || memcmp(again.data, data, size) != 0)
        abort();
    for (size_t i = 0; i < tree.count; i++) {
        if (kiln_tree_find(&tree, tree.entries[i].path) != &tree.entries[i])
            abort();
    }
    return 0;
}
