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

int kiln_stages_open(const char *dir, struct kiln_store *store, struct kiln_stages **out, struct kiln_err *err) {
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
        rc = kiln_trees_open(own, store, &stages->trees, err);
    if (rc == 0)
        rc = kiln_libraries_open(own, store, &stages->libraries, err);
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

static int read_list(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest,
                     struct kiln_tree *list, struct kiln_err *err) {
    kiln_autofd int stored = -1;
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest actual;
    int rc = kiln_content_open(stages->store, KILN_CONTENT_LIST, scope, digest, &stored, err);
    if (rc == 0)
        rc = kiln_fs_read_fd(stored, &encoding, err);
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

static int stage_list(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest, size_t number,
                      const char *job_dir, struct kiln_stage_input *input, struct kiln_err *err) {
    int rc = read_list(stages, scope, digest, &input->tree, err);
    if (rc == 0)
        rc = open_list_dir(job_dir, number, &input->fd, err);
    for (size_t i = 0; rc == 0 && i < input->tree.count; i++) {
        const struct kiln_tree_entry *entry = &input->tree.entries[i];
        if (entry->kind != KILN_TREE_FILE || strchr(entry->path, '/'))
            return kiln_fail(err, KILN_E_INVAL, "a list of libraries holds more than files");
        rc = kiln_libraries_link(stages->libraries, scope, &entry->digest, entry->size, input->fd, entry->path, err);
    }
    return rc ? rc : set_times(input, err);
}

static int stage_inputs(struct kiln_stages *stages, const struct kiln_action *action, const char *scope,
                        struct kiln_stage *stage, struct kiln_err *err) {
    for (size_t i = 0; i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        struct kiln_stage_input *staged = &stage->inputs[stage->count++];
        *staged = (struct kiln_stage_input){.mount = input->mount, .fd = -1};
        int rc = input->form == KILN_INPUT_PACK
                     ? kiln_trees_get(stages->trees, scope, &input->tree, &staged->fd, &staged->tree, err)
                     : stage_list(stages, scope, &input->tree, i, stage->job_dir, staged, err);
        if (rc)
            return kiln_wrap(err, rc, "input %s", input->mount);
    }
    return 0;
}

int kiln_stage_make(struct kiln_stages *stages, const struct kiln_action *action, const char *scope, struct kiln_stage *stage,
                    struct kiln_err *err) {
    struct kiln_stage made = {.inputs = calloc(action->inputs_count + 1, sizeof *made.inputs)};
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
        kiln_tree_release(&stage->inputs[i].tree);
    }
    free(stage->inputs);
    if (stage->job_dir)
        kiln_fs_remove_tree(AT_FDCWD, stage->job_dir, NULL); // else the next process does
    free(stage->job_dir);
    *stage = (struct kiln_stage){0};
}
