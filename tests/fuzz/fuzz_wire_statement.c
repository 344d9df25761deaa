// A header from anybody: read or refused, and what names a principal is either refused or of that principal. The first byte
// tells how much of the input is the header; the rest is the record.
#include <stdlib.h>
#include <string.h>

#include "lib/wire/frame.h"
#include "lib/wire/statement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > 4096)
        return 0;
    size_t header_len = data[0] < size - 1 ? data[0] : size - 1;
    const uint8_t *header = data + 1, *value = header + header_len;
    size_t value_len = size - 1 - header_len;
    struct kiln_frame frame;
    (void)kiln_frame_describe(value, value_len, &frame, NULL);
    struct kiln_principal principal = {.role = KILN_ROLE_OF_AGENT};
    if (kiln_statement_principal(header, header_len, principal.name, NULL))
        return 0;
    if (!memchr(principal.name, 0, sizeof principal.name) || !*principal.name)
        abort();
    struct kiln_statement statement = {.topic = "kiln.jobs", .value = value, .value_len = value_len};
    struct kiln_author author;
    memset(principal.record_key, 0x5a, sizeof principal.record_key);
    if (kiln_statement_check(&statement, header, header_len, &principal, &author, NULL) == 0 &&
        strcmp(author.principal, principal.name) != 0)
        abort();
    return 0;
}
