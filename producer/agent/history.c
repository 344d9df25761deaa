#include "producer/agent/history.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

// Few times say little about the next one.
#define FEW 4u
#define FACTOR_OF_FEW 12u
#define FACTOR 4u

// "serde_json-1.0.140" -> the length of "serde_json": a new version takes about as long.
static size_t name_length(const char *package) {
    const char *end = package + strlen(package);
    for (const char *at = package; (at = strchr(at, '-')); at++)
        if (at[1] >= '0' && at[1] <= '9')
            end = at;
    return (size_t)(end - package);
}

void kiln_history_key(const struct kiln_action *action, struct kiln_digest *kind) {
    kiln_autobuf struct kiln_buf key = KILN_BUF_INIT(1 << 16);
    kiln_buf_add_field(&key, action->package, name_length(action->package));
    kiln_buf_add_field_str(&key, action->crate_name);
    for (size_t i = 0; i < action->argc; i++)
        if (strstr(action->argv[i], "opt-level=") || !strncmp(action->argv[i], "--emit", 6))
            kiln_buf_add_field_str(&key, action->argv[i]);
    kiln_buf_add_be32(&key, kiln_action_links(action));
    kiln_digest_of(key.data, key.len, kind);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

uint64_t kiln_history_wait_ms(const struct kiln_history *history, uint64_t most_ms) {
    if (!history->count)
        return most_ms;
    struct kiln_history sorted = *history;
    qsort(sorted.times_ms, sorted.count, sizeof sorted.times_ms[0], by_value);
    const size_t at = (sorted.count * 95 + 99) / 100 - 1;
    uint64_t wait_ms = (uint64_t)sorted.times_ms[at] * (sorted.count < FEW ? FACTOR_OF_FEW : FACTOR);
    if (wait_ms < KILN_HISTORY_LEAST_MS)
        wait_ms = KILN_HISTORY_LEAST_MS;
    return wait_ms < most_ms ? wait_ms : most_ms;
}

void kiln_history_add(struct kiln_history *history, uint64_t took_ms) {
    if (history->count == KILN_HISTORY_MAX) {
        memmove(history->times_ms, history->times_ms + 1, (KILN_HISTORY_MAX - 1) * sizeof history->times_ms[0]);
        history->count--;
    }
    history->times_ms[history->count++] = took_ms < UINT32_MAX ? (uint32_t)took_ms : UINT32_MAX;
}

void kiln_history_load(struct kiln_l0 *l0, const struct kiln_digest *kind, struct kiln_history *history) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(KILN_HISTORY_MAX * 4);
    *history = (struct kiln_history){0};
    if (kiln_l0_memo_get(l0, KILN_MEMO_HISTORY, kind->bytes, sizeof kind->bytes, &value, NULL))
        return;
    struct kiln_reader reader = KILN_READER_INIT(value.data, value.len);
    for (size_t i = 0; i < value.len / 4 && i < KILN_HISTORY_MAX; i++)
        history->times_ms[history->count++] = kiln_read_be32(&reader);
}

void kiln_history_record(struct kiln_l0 *l0, const struct kiln_digest *kind, uint64_t took_ms) {
    struct kiln_history history;
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(KILN_HISTORY_MAX * 4);
    kiln_history_load(l0, kind, &history);
    kiln_history_add(&history, took_ms);
    for (size_t i = 0; i < history.count; i++)
        kiln_buf_add_be32(&value, history.times_ms[i]);
    kiln_l0_memo_put(l0, KILN_MEMO_HISTORY, kind->bytes, sizeof kind->bytes, value.data, value.len, NULL);
}
