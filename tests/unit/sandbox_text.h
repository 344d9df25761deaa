// Texts that name the sandbox: in a table '@' stands for the sandbox root, which no source file may hold.
#pragma once

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/rustc/paths.h"

static inline char *expand(const char *text) {
    struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    for (; *text; text++) {
        if (*text == '@')
            kiln_buf_add_str(&out, kiln_sandbox_root());
        else
            kiln_buf_add_u8(&out, (uint8_t)*text);
    }
    kiln_buf_add_u8(&out, 0);
    return (char *)kiln_buf_steal(&out, NULL);
}
