// Mapped output that is said to be clean holds no sandbox name; mapping it again changes nothing.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rustc/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct kiln_path_map map;

static void fill(void) {
    char *workspace = kiln_place(KILN_PLACE_WORKSPACE, NULL), *out = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    kiln_path_map_add(&map, "/home/a \"b", workspace, "/kiln/a-1.0.0-ws", NULL);
    kiln_path_map_add(&map, "/t/out", out, "/kiln/a-1.0.0.out", NULL);
    free(workspace);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (map.count == 0)
        fill();
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(64u << 20);
    kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(64u << 20);
    bool residue = false;
    if (kiln_message_to_real(data, len, &map, "../\"deps", &out, &residue, NULL) || residue)
        return 0;
    const char *root = kiln_sandbox_root();
    if (out.len && memmem(out.data, out.len, root, strlen(root)))
        abort();
    if (kiln_message_to_real(out.data, out.len, &map, "deps", &again, &residue, NULL) || residue ||
        out.len != again.len || (out.len && memcmp(out.data, again.data, out.len) != 0))
        abort();
    return 0;
}
