#include "consumer/executor/stage.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/content.h"
#include "consumer/executor/libraries.h"
#include "consumer/executor/trees.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

struct kiln_stages {
    struct kiln_store *store;
    struct kiln_trees *trees;
    struct kiln_libraries *libraries;
    char *jobs; // DIR/executor/jobs
    atomic_uint next_job;
};

int kiln_stages_open(const char *dir, struct kiln_store *store, uint64_t cache_bytes, struct kiln_stages **out,
                     struct kiln_err *err) {
    struct kiln_stages *stages = calloc(1, sizeof *stages);
    kiln_autofree char *own = kiln_path_join(dir, "executor");
    if (!stages || !own || !(stages->jobs = kiln_path_join(own, "jobs"))) {
        free(stages);
        return kiln_fail(err, KILN_E_NOMEM, "stages");
    }
    stages->store = store;
    int rc = kiln_fs_remove_tree(AT_FDCWD, stages->jobs, err);
    if (rc == 0)
        rc = kiln_fs_make_dirs(AT_FDCWD, stages->jobs, 0700, err);
    if (rc == 0)
        rc = kiln_trees_open(own, store, cache_bytes / 2, &stages->trees, err);
    if (rc == 0)
        rc = kiln_libraries_open(own, store, cache_bytes / 2, &stages->libraries, err);
    if (rc) {
        kiln_stages_close(stages);
        return rc;
    }
    *out = stages;
    return 0;
}

void kiln_stages_close(struct kiln_stages *stages) {
    if (!stages)
        return;
    kiln_trees_close(stages->trees);
    kiln_libraries_close(stages->libraries);
    free(stages->jobs);
    free(stages);
}

// The list, from `stored` or (-1) from the store.
static int read_list(struct kiln_stages *stages, int stored, const char *scope, const struct kiln_digest *digest,
                     struct kiln_tree *list, struct kiln_err *err) {
    kiln_autofd int opened = -1;
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest actual;
    int rc = stored >= 0 ? 0 : kiln_content_open(stages->store, KILN_CONTENT_LIST, scope, digest, &opened, err);
    if (rc == 0)
        rc = kiln_fs_read_fd(stored >= 0 ? stored : opened, &encoding, err);
    if (rc)
        return rc;
    kiln_digest_of(encoding.data, encoding.len, &actual);
    if (!kiln_digest_equal(&actual, digest))
        return kiln_fail(err, KILN_E_CORRUPT, "a stored list was changed");
    return kiln_tree_decode(encoding.data, encoding.len, list, err);
}

static int open_list_dir(const char *job_dir, size_t number, int *fd, struct kiln_err *err) {
    char name[24];
    snprintf(name, sizeof name, "%zu", number);
    kiln_autofree char *path = kiln_path_join(job_dir, name);
    if (!path)
        return kiln_fail(err, KILN_E_NOMEM, "stage");
    int rc = kiln_fs_make_dirs(AT_FDCWD, path, 0755, err);
    if (rc == 0 && (*fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    return rc;
}

// As in an unpacked package (kiln_tree_set_times); the time of access is the store's own record of use.
static int set_times(const struct kiln_stage_input *input, struct kiln_err *err) {
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = KILN_PACK_MTIME_S}};
    for (size_t i = 0; i < input->tree.count; i++)
        if (utimensat(input->fd, input->tree.entries[i].path, times, AT_SYMLINK_NOFOLLOW))
            return kiln_fail_errno(err, KILN_E_IO, "set the time of %s", input->tree.entries[i].path);
    return futimens(input->fd, times) ? kiln_fail_errno(err, KILN_E_IO, "set the time of a list") : 0;
}

static int link_libraries(struct kiln_stages *stages, const char *scope, struct kiln_stage_input *input, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < input->tree.count; i++) {
        const struct kiln_tree_entry *entry = &input->tree.entries[i];
        rc = kiln_libraries_link(stages->libraries, scope, &entry->digest, entry->size, input->fd, entry->path, err);
    }
    return rc ? rc : set_times(input, err);
}

static int check_list(const struct kiln_tree *list, struct kiln_err *err) {
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].kind != KILN_TREE_FILE || strchr(list->entries[i].path, '/'))
            return kiln_fail(err, KILN_E_INVAL, "a list of libraries holds more than files");
    return 0;
}

// What is to be fetched for a job: its wants, and the inputs that they are of.
struct errand {
    struct kiln_content_want *wants;
    size_t count, cap;
};

static void release_errand(struct errand *errand) {
    for (size_t i = 0; i < errand->count; i++)
        if (errand->wants[i].fd >= 0)
            close(errand->wants[i].fd);
    free(errand->wants);
}

static int want(struct errand *errand, enum kiln_content_kind kind, const struct kiln_digest *digest, uint64_t size,
                struct kiln_err *err) {
    for (size_t i = 0; i < errand->count; i++)
        if (errand->wants[i].kind == kind && kiln_digest_equal(&errand->wants[i].digest, digest))
            return 0;
    if (errand->count == errand->cap) {
        size_t cap = errand->cap ? 2 * errand->cap : 32;
        struct kiln_content_want *grown = realloc(errand->wants, cap * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "stage");
        errand->wants = grown;
        errand->cap = cap;
    }
    errand->wants[errand->count++] = (struct kiln_content_want){.kind = kind, .digest = *digest, .size = size, .fd = -1};
    return 0;
}

static int fetched_of(const struct errand *errand, const struct kiln_digest *digest) {
    for (size_t i = 0; i < errand->count; i++)
        if (errand->wants[i].kind == KILN_CONTENT_LIST && kiln_digest_equal(&errand->wants[i].digest, digest))
            return errand->wants[i].fd;
    return -1;
}

static int run_errand(struct kiln_stages *stages, const char *scope, struct errand *errand, struct kiln_err *err) {
    int rc = errand->count ? kiln_content_fetch(stages->store, scope, errand->wants, errand->count, err) : 0;
    for (size_t i = 0; rc == 0 && i < errand->count; i++) {
        struct kiln_content_want *one = &errand->wants[i];
        char hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(&one->digest, hex);
        if (one->fd < 0)
            rc = kiln_fail(err, one->err.code ? one->err.code : KILN_E_IO, "content %s of scope %s: %s", hex, scope, one->err.text);
        else if (one->kind == KILN_CONTENT_PACK)
            rc = kiln_trees_add(stages->trees, one->fd, &one->digest, err);
        else if (one->kind == KILN_CONTENT_BLOB)
            rc = kiln_libraries_add(stages->libraries, one->fd, &one->digest, one->size, err);
    }
    return rc;
}

static int fetch_inputs(struct kiln_stages *stages, const struct kiln_action *action, const char *scope, struct errand *errand,
                        struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        if (input->form != KILN_INPUT_PACK)
            rc = want(errand, KILN_CONTENT_LIST, &input->tree, 0, err);
        else if (!kiln_trees_has(stages->trees, &input->tree))
            rc = want(errand, KILN_CONTENT_PACK, &input->tree, 0, err);
    }
    return rc ? rc : run_errand(stages, scope, errand, err);
}

static int fetch_libraries(struct kiln_stages *stages, const char *scope, const struct kiln_tree *list, struct kiln_err *err) {
    kiln_auto(release_errand) struct errand errand = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < list->count; i++) {
        const struct kiln_tree_entry *entry = &list->entries[i];
        if (!kiln_libraries_has(stages->libraries, &entry->digest, entry->size))
            rc = want(&errand, KILN_CONTENT_BLOB, &entry->digest, entry->size, err);
    }
    return rc ? rc : run_errand(stages, scope, &errand, err);
}

static int stage_list(struct kiln_stages *stages, const char *scope, const struct errand *errand,
                      const struct kiln_digest *digest, const char *job_dir, size_t number, struct kiln_stage_input *input,
                      struct kiln_err *err) {
    int rc = read_list(stages, fetched_of(errand, digest), scope, digest, &input->tree, err);
    if (rc == 0)
        rc = check_list(&input->tree, err);
    if (rc == 0 && kiln_store_wants_bundles(stages->store))
        rc = fetch_libraries(stages, scope, &input->tree, err);
    if (rc == 0)
        rc = open_list_dir(job_dir, number, &input->fd, err);
    return rc ? rc : link_libraries(stages, scope, input, err);
}

static int stage_inputs(struct kiln_stages *stages, const struct kiln_action *action, const char *scope,
                        struct kiln_stage *stage, struct kiln_err *err) {
    kiln_auto(release_errand) struct errand errand = {0};
    int rc = kiln_store_wants_bundles(stages->store) ? fetch_inputs(stages, action, scope, &errand, err) : 0;
    for (size_t i = 0; rc == 0 && i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        struct kiln_stage_input *staged = &stage->inputs[stage->count++];
        *staged = (struct kiln_stage_input){.mount = input->mount, .fd = -1};
        if (input->form == KILN_INPUT_PACK)
            rc = kiln_trees_get(stages->trees, scope, &input->tree, &staged->fd, &staged->tree, err);
        else
            rc = stage_list(stages, scope, &errand, &input->tree, stage->job_dir, i, staged, err);
        if (rc == 0 && input->form == KILN_INPUT_PACK)
            staged->package = &input->tree;
        if (rc)
            rc = kiln_wrap(err, rc, "input %s", input->mount);
    }
    return rc;
}

int kiln_stage_make(struct kiln_stages *stages, const struct kiln_action *action, const char *scope, struct kiln_stage *stage,
                    struct kiln_err *err) {
    struct kiln_stage made = {.stages = stages, .inputs = calloc(action->inputs_count + 1, sizeof *made.inputs)};
    if (asprintf(&made.job_dir, "%s/%u", stages->jobs, atomic_fetch_add(&stages->next_job, 1)) < 0)
        made.job_dir = NULL;
    int rc = made.inputs && made.job_dir ? kiln_fs_make_dirs(AT_FDCWD, made.job_dir, 0755, err)
                                         : kiln_fail(err, KILN_E_NOMEM, "stage");
    if (rc == 0)
        rc = stage_inputs(stages, action, scope, &made, err);
    if (rc) {
        kiln_stage_release(&made);
        return rc;
    }
    *stage = made;
    return 0;
}

void kiln_stage_release(struct kiln_stage *stage) {
    for (size_t i = 0; i < stage->count; i++) {
        if (stage->inputs[i].fd >= 0)
            close(stage->inputs[i].fd);
        if (stage->inputs[i].package)
            kiln_trees_give_back(stage->stages->trees, stage->inputs[i].package);
        kiln_tree_release(&stage->inputs[i].tree);
    }
    free(stage->inputs);
    if (stage->job_dir)
        kiln_fs_remove_tree(AT_FDCWD, stage->job_dir, NULL); // else the next process does
    free(stage->job_dir);
    *stage = (struct kiln_stage){0};
}
