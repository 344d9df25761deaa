// Any bytes are scanned; names are what can be looked up, and come out sorted.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rustc/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    kiln_autoscan struct kiln_scan_facts facts = {0};
    if (kiln_scan_source(data, len, &facts, NULL))
        abort();
    kiln_scan_finish(&facts);
    for (size_t i = 0; i < facts.env_count; i++) {
        const char *name = facts.env_names[i];
        if (!*name || strchr(name, '=') || (i && strcmp(facts.env_names[i - 1], name) >= 0))
            abort();
    }
    if (facts.out_dir_as_value && !facts.out_dir_used)
        abort();
    return 0;
}
