// Whatever is accepted is written again byte for byte, and mapped back without a sandbox name.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rustc/depinfo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct kiln_path_map map;

static void fill(void) {
    char *workspace = kiln_place(KILN_PLACE_WORKSPACE, NULL), *out = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    kiln_path_map_add(&map, "/home/a b", workspace, "/kiln/a-1.0.0-ws", NULL);
    kiln_path_map_add(&map, "/t/out", out, "/kiln/a-1.0.0.out", NULL);
    free(workspace);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (map.count == 0)
        fill();
    kiln_autodepinfo struct kiln_depinfo info = {0};
    if (kiln_depinfo_parse(data, len, &info, NULL))
        return 0;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(2 * KILN_DEPINFO_BYTES_MAX);
    if (kiln_depinfo_format(&info, &out, NULL) || out.len != len || memcmp(out.data, data, len) != 0)
        abort();
    if (kiln_depinfo_to_real(&info, &map, "deps", NULL))
        return 0;
    kiln_buf_reset(&out);
    if (kiln_depinfo_format(&info, &out, NULL) == 0 && strstr(kiln_buf_text(&out), kiln_sandbox_root()))
        abort();
    return 0;
}
