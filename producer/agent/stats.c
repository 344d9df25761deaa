#include "producer/agent/stats.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define BUILDS_MAX 64
#define REASONS_MAX 128
#define TIMES_MAX 1024
#define FILE_BYTES_MAX (4u << 20)

static const char *const stat_names[KILN_STAT_COUNT] = {"requests", "hits",           "misses", "executions",
                                                        "local",    "passed_through", "errors", "corrupt"};

struct reason {
    char word[64];
    char last[256];
    uint64_t count;
};

struct tally {
    char build_id[128]; // "" for the sum of all
    uint64_t counts[KILN_STAT_COUNT];
    struct reason reasons[REASONS_MAX];
    size_t reasons_count;
    uint64_t touched_ms;
};

struct kiln_stats {
    pthread_mutex_t lock;
    char *path;
    struct tally *all;
    struct tally *builds[BUILDS_MAX];
    uint32_t hit_micros[TIMES_MAX];
    size_t hits_timed;
    bool dirty;
};

static struct tally *tally_of(struct kiln_stats *stats, const char *build_id) {
    struct tally **oldest = &stats->builds[0];
    for (int i = 0; i < BUILDS_MAX; i++) {
        if (!stats->builds[i]) {
            oldest = &stats->builds[i];
            break;
        }
        if (!strcmp(stats->builds[i]->build_id, build_id))
            return stats->builds[i];
        if (stats->builds[i]->touched_ms < (*oldest)->touched_ms)
            oldest = &stats->builds[i];
    }
    struct tally *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return NULL;
    snprintf(fresh->build_id, sizeof fresh->build_id, "%s", build_id);
    free(*oldest);
    return *oldest = fresh;
}

static void count_reason(struct tally *tally, const char *reason, uint64_t times) {
    size_t len = strcspn(reason, ": ");
    struct reason *row = NULL;
    for (size_t i = 0; i < tally->reasons_count && !row; i++)
        if (strlen(tally->reasons[i].word) == len && !strncmp(tally->reasons[i].word, reason, len))
            row = &tally->reasons[i];
    if (!row && tally->reasons_count < REASONS_MAX) {
        row = &tally->reasons[tally->reasons_count++];
        snprintf(row->word, sizeof row->word, "%.*s", (int)len, reason);
    }
    if (!row)
        row = &tally->reasons[REASONS_MAX - 1];
    row->count += times;
    snprintf(row->last, sizeof row->last, "%s", reason);
}

static void change(struct kiln_stats *stats, const char *build_id, enum kiln_stat stat, int by) {
    pthread_mutex_lock(&stats->lock);
    stats->all->counts[stat] += (uint64_t)by;
    struct tally *tally = *build_id ? tally_of(stats, build_id) : NULL;
    if (tally) {
        tally->counts[stat] += (uint64_t)by;
        tally->touched_ms = kiln_clock_wall_ms();
    }
    stats->dirty = true;
    pthread_mutex_unlock(&stats->lock);
}

void kiln_stats_add(struct kiln_stats *stats, const char *build_id, enum kiln_stat stat) {
    change(stats, build_id, stat, 1);
}

void kiln_stats_take_back(struct kiln_stats *stats, const char *build_id, enum kiln_stat stat) {
    change(stats, build_id, stat, -1);
}

void kiln_stats_add_local(struct kiln_stats *stats, const char *build_id, const char *reason) {
    kiln_stats_add(stats, build_id, KILN_STAT_LOCAL);
    pthread_mutex_lock(&stats->lock);
    count_reason(stats->all, reason, 1);
    struct tally *tally = *build_id ? tally_of(stats, build_id) : NULL;
    if (tally)
        count_reason(tally, reason, 1);
    pthread_mutex_unlock(&stats->lock);
}

void kiln_stats_hit_time(struct kiln_stats *stats, uint64_t micros) {
    pthread_mutex_lock(&stats->lock);
    stats->hit_micros[stats->hits_timed++ % TIMES_MAX] = micros > UINT32_MAX ? UINT32_MAX : (uint32_t)micros;
    pthread_mutex_unlock(&stats->lock);
}

void kiln_stats_zero(struct kiln_stats *stats) {
    pthread_mutex_lock(&stats->lock);
    *stats->all = (struct tally){0};
    for (int i = 0; i < BUILDS_MAX; i++) {
        free(stats->builds[i]);
        stats->builds[i] = NULL;
    }
    stats->hits_timed = 0;
    stats->dirty = true;
    pthread_mutex_unlock(&stats->lock);
}

static json_t *tally_json(const struct tally *tally) {
    json_t *object = json_object(), *reasons = json_object(), *last = json_object();
    for (int i = 0; i < KILN_STAT_COUNT; i++)
        json_object_set_new(object, stat_names[i], json_integer((json_int_t)tally->counts[i]));
    for (size_t i = 0; i < tally->reasons_count; i++) {
        json_object_set_new(reasons, tally->reasons[i].word, json_integer((json_int_t)tally->reasons[i].count));
        json_object_set_new(last, tally->reasons[i].word, json_stringn_nocheck(tally->reasons[i].last, strlen(tally->reasons[i].last)));
    }
    json_object_set_new(object, "local_reasons", reasons);
    json_object_set_new(object, "local_last", last);
    return object;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t median_hit(const struct kiln_stats *stats) {
    size_t count = stats->hits_timed < TIMES_MAX ? stats->hits_timed : TIMES_MAX;
    uint32_t sorted[TIMES_MAX];
    if (!count)
        return 0;
    memcpy(sorted, stats->hit_micros, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_value);
    return sorted[count / 2];
}

static json_t *stats_json(const struct kiln_stats *stats) {
    json_t *root = tally_json(stats->all), *builds = json_object();
    for (int i = 0; i < BUILDS_MAX && stats->builds[i]; i++)
        json_object_set_new(builds, stats->builds[i]->build_id, tally_json(stats->builds[i]));
    json_object_set_new(root, "builds", builds);
    json_object_set_new(root, "hit_median_us", json_integer(median_hit(stats)));
    return root;
}

static void load_tally(struct tally *tally, json_t *object) {
    for (int i = 0; i < KILN_STAT_COUNT; i++)
        tally->counts[i] = (uint64_t)json_integer_value(json_object_get(object, stat_names[i]));
    const char *word;
    json_t *value, *last = json_object_get(object, "local_last");
    json_object_foreach(json_object_get(object, "local_reasons"), word, value) {
        const char *text = json_string_value(json_object_get(last, word));
        count_reason(tally, text && !strncmp(text, word, strlen(word)) ? text : word, (uint64_t)json_integer_value(value));
    }
}

static void load(struct kiln_stats *stats) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(FILE_BYTES_MAX);
    if (kiln_fs_read_file(AT_FDCWD, stats->path, &text, NULL))
        return;
    json_t *root = json_loadb((const char *)text.data, text.len, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return;
    }
    load_tally(stats->all, root);
    const char *build_id;
    json_t *value;
    json_object_foreach(json_object_get(root, "builds"), build_id, value) {
        struct tally *tally = tally_of(stats, build_id);
        if (tally)
            load_tally(tally, value);
    }
    json_decref(root);
}

int kiln_stats_open(const char *dir, struct kiln_stats **out, struct kiln_err *err) {
    struct kiln_stats *stats = calloc(1, sizeof *stats);
    if (!stats || !(stats->all = calloc(1, sizeof *stats->all)) || !(stats->path = kiln_path_join(dir, "stats.json"))) {
        if (stats)
            free(stats->all);
        free(stats);
        return kiln_fail(err, KILN_E_NOMEM, "statistics");
    }
    pthread_mutex_init(&stats->lock, NULL);
    load(stats);
    *out = stats;
    return 0;
}

int kiln_stats_save(struct kiln_stats *stats, struct kiln_err *err) {
    pthread_mutex_lock(&stats->lock);
    bool dirty = stats->dirty;
    stats->dirty = false;
    json_t *root = dirty ? stats_json(stats) : NULL;
    pthread_mutex_unlock(&stats->lock);
    if (!dirty)
        return 0;
    kiln_autofree char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!text)
        return kiln_fail(err, KILN_E_NOMEM, "statistics");
    return kiln_fs_write_file(AT_FDCWD, stats->path, text, strlen(text), 0600, err);
}

void kiln_stats_close(struct kiln_stats *stats) {
    if (!stats)
        return;
    kiln_stats_save(stats, NULL);
    for (int i = 0; i < BUILDS_MAX; i++)
        free(stats->builds[i]);
    free(stats->all);
    free(stats->path);
    pthread_mutex_destroy(&stats->lock);
    free(stats);
}

static void show_text(const struct kiln_stats *stats, struct kiln_buf *out) {
    for (int i = 0; i < KILN_STAT_COUNT; i++)
        kiln_buf_addf(out, "%-15s %llu\n", stat_names[i], (unsigned long long)stats->all->counts[i]);
    if (stats->hits_timed)
        kiln_buf_addf(out, "%-15s %.2f ms\n", "hit median", median_hit(stats) / 1000.0);
    if (stats->all->reasons_count)
        kiln_buf_add_str(out, "\ncompiled locally, by reason (the last case of each):\n");
    for (size_t i = 0; i < stats->all->reasons_count; i++)
        kiln_buf_addf(out, "%7llu  %s\n", (unsigned long long)stats->all->reasons[i].count, stats->all->reasons[i].last);
}

int kiln_stats_show(struct kiln_stats *stats, bool json, struct kiln_buf *out, struct kiln_err *err) {
    pthread_mutex_lock(&stats->lock);
    json_t *root = json ? stats_json(stats) : NULL;
    if (!json)
        show_text(stats, out);
    pthread_mutex_unlock(&stats->lock);
    if (root) {
        kiln_autofree char *text = json_dumps(root, JSON_INDENT(1));
        json_decref(root);
        if (text)
            kiln_buf_addf(out, "%s\n", text);
    }
    return kiln_buf_check(out, "statistics", err);
}
