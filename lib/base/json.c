#include "lib/base/json.h"

// Length of the well-formed UTF-8 sequence at `at` (RFC 3629 section 4), 0 when there is none.
static size_t utf8_length(const unsigned char *at, size_t left) {
    static const struct {
        unsigned char first_low, first_high, second_low, second_high, length;
    } forms[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (at[0] < forms[i].first_low || at[0] > forms[i].first_high)
            continue;
        if (forms[i].length > left)
            return 0;
        if (forms[i].length > 1 && (at[1] < forms[i].second_low || at[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((at[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

void kiln_json_add_string(struct kiln_buf *buf, const char *text, size_t len) {
    const unsigned char *at = (const unsigned char *)text;
    kiln_buf_add_str(buf, "\"");
    for (size_t step; len; at += step, len -= step) {
        size_t sequence = utf8_length(at, len);
        step = sequence ? sequence : 1;
        if (sequence == 0)
            kiln_buf_add_str(buf, "\\ufffd");
        else if (*at == '"' || *at == '\\')
            kiln_buf_addf(buf, "\\%c", *at);
        else if (*at == '\n')
            kiln_buf_add_str(buf, "\\n");
        else if (*at == '\t')
            kiln_buf_add_str(buf, "\\t");
        else if (*at < 0x20 || *at == 0x7f)
            kiln_buf_addf(buf, "\\u%04x", *at);
        else
            kiln_buf_add(buf, at, sequence);
    }
    kiln_buf_add_str(buf, "\"");
}
