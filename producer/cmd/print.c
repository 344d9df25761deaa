#include "producer/cmd/print.h"

#include <unistd.h>

#include "lib/base/cli.h"
#include "lib/base/fs.h"

int kiln_cmd_print(const struct kiln_buf *text) {
    if (text->failed || kiln_fs_write_all(STDOUT_FILENO, text->data, text->len, NULL))
        return KILN_EXIT_FAILED;
    return KILN_EXIT_OK;
}

void kiln_cmd_add_json(struct kiln_buf *out, const char *text) {
    kiln_buf_add_str(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            kiln_buf_addf(out, "\\%c", c);
        else if (c < 0x20)
            kiln_buf_addf(out, "\\u%04x", c);
        else
            kiln_buf_add(out, &c, 1);
    }
    kiln_buf_add_str(out, "\"");
}
