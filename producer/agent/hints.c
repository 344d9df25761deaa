#include "producer/agent/hints.h"

#include <stdlib.h>
#include <string.h>

#include "lib/core/list.h"

static const char magic[] = "kiln-hints-1"; // with its NUL
#define ENTRY_BYTES 33u

void kiln_hints_release(struct kiln_hints *hints) {
    free(hints->all);
    *hints = (struct kiln_hints){0};
}

bool kiln_hints_have(const struct kiln_hints *hints, const struct kiln_digest *action) {
    for (size_t i = 0; i < hints->count; i++)
        if (kiln_digest_equal(&hints->all[i].action, action))
            return true;
    return false;
}

int kiln_hints_add(struct kiln_hints *hints, const struct kiln_hint *hint, struct kiln_err *err) {
    if (hints->count == KILN_HINTS_MAX || kiln_hints_have(hints, &hint->action))
        return 0;
    struct kiln_hint *grown = kiln_list_grow(hints->all, hints->count, sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "hints");
    hints->all = grown;
    grown[hints->count++] = *hint;
    return 0;
}

int kiln_hints_encode(const struct kiln_hints *hints, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add(out, magic, sizeof magic);
    kiln_buf_add_be32(out, (uint32_t)hints->count);
    for (size_t i = 0; i < hints->count; i++) {
        kiln_buf_add_u8(out, hints->all[i].is_public);
        kiln_buf_add_digest(out, &hints->all[i].action);
    }
    return kiln_buf_check(out, "hints", err);
}

static int by_action(const void *a, const void *b) {
    return kiln_digest_compare(&(*(const struct kiln_hint *const *)a)->action, &(*(const struct kiln_hint *const *)b)->action);
}

// Sorted apart, for the order of the hints says what to fetch first.
static bool are_distinct(const struct kiln_hints *hints) {
    const struct kiln_hint **sorted = malloc((hints->count + 1) * sizeof *sorted);
    bool distinct = sorted != NULL;
    for (size_t i = 0; distinct && i < hints->count; i++)
        sorted[i] = &hints->all[i];
    if (distinct && hints->count)
        qsort(sorted, hints->count, sizeof *sorted, by_action);
    for (size_t i = 1; distinct && i < hints->count; i++)
        distinct = by_action(&sorted[i - 1], &sorted[i]) != 0;
    free(sorted);
    return distinct;
}

int kiln_hints_decode(const void *data, size_t len, struct kiln_hints *hints, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    struct kiln_hints found = {0};
    const unsigned char *head = kiln_read_bytes(&reader, sizeof magic);
    bool good = head && !memcmp(head, magic, sizeof magic);
    if (good)
        found.all = kiln_list_read(&reader, KILN_HINTS_MAX, ENTRY_BYTES, sizeof *found.all, &found.count);
    for (size_t i = 0; good && !reader.failed && i < found.count; i++) {
        uint8_t scope = kiln_read_u8(&reader);
        good = scope <= 1;
        found.all[i].is_public = scope == 1;
        kiln_read_digest(&reader, &found.all[i].action);
    }
    if (!good || !kiln_reader_done(&reader) || !are_distinct(&found)) {
        kiln_hints_release(&found);
        return kiln_fail(err, KILN_E_CORRUPT, "hints are not what an agent writes");
    }
    *hints = found;
    return 0;
}
