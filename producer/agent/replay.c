#include "producer/agent/replay.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/rustc/depinfo.h"
#include "lib/rustc/message.h"

// What others must have for a thread to be worth it: a third of a millisecond's hashing.
#define APART_BYTES ((uint64_t)512 << 10)

void kiln_replay_release(struct kiln_replay *replay) {
    for (size_t i = 0; i < replay->count; i++) {
        free(replay->files[i].path);
        if (replay->fds[i] >= 0)
            close(replay->fds[i]);
    }
    free(replay->files);
    free(replay->fds);
    free(replay->digests);
    kiln_buf_release(&replay->out);
    kiln_buf_release(&replay->errout);
    *replay = (struct kiln_replay){0};
}

static bool is_depinfo(const char *name) {
    size_t len = strlen(name);
    return len > 2 && !strcmp(name + len - 2, ".d");
}

static int check_depinfo(const struct kiln_unit *unit, const struct kiln_depinfo *info, struct kiln_err *err) {
    for (size_t i = 0; i < info->env_count; i++)
        if (!strcmp(info->env[i].name, "OUT_DIR") && (unit->facts.out_dir_as_value || !unit->facts.out_dir_used))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "path_value: OUT_DIR is used as more than the place of an included file");
    return 0;
}

// Clippy notes the manifest in its working directory when there is one; the sandbox's has none when that is not the package's.
static int add_manifest(const struct kiln_unit *unit, struct kiln_depinfo *info, struct kiln_err *err) {
    static const char name[] = "Cargo.toml";
    kiln_autofree char *path = kiln_path_join(unit->cwd, name);
    if (!unit->call.clippy || !path || access(path, F_OK))
        return 0;
    for (size_t i = 0; i < info->sources_count; i++)
        if (!strcmp(info->sources[i], name))
            return 0;
    char **grown = realloc(info->sources, (info->sources_count + 1) * sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "dep-info");
    info->sources = grown;
    grown[info->sources_count] = strdup(name);
    return grown[info->sources_count++] ? 0 : kiln_fail(err, KILN_E_NOMEM, "dep-info");
}

// The dep-info of a hit is written anew for this caller. A memfd opened again read-only, as every file that is handed out.
static int rewrite_depinfo(const struct kiln_unit *unit, int stored, int *fd, uint64_t *size, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX), text = KILN_BUF_INIT(2 * KILN_DEPINFO_BYTES_MAX);
    kiln_autodepinfo struct kiln_depinfo info = {0};
    int rc = kiln_fs_read_fd(stored, &bytes, err);
    if (rc == 0)
        rc = kiln_depinfo_parse(bytes.data, bytes.len, &info, err);
    if (rc == 0)
        rc = check_depinfo(unit, &info, err);
    if (rc == 0)
        rc = kiln_depinfo_to_real(&info, &unit->map, unit->out_dir, err);
    if (rc == 0)
        rc = add_manifest(unit, &info, err);
    if (rc == 0)
        rc = kiln_depinfo_format(&info, &text, err);
    if (rc)
        return rc;
    kiln_autofd int memory = memfd_create("kiln-depinfo", MFD_CLOEXEC);
    if (memory < 0)
        return kiln_fail_errno(err, KILN_E_IO, "dep-info");
    rc = kiln_fs_write_all(memory, text.data, text.len, err);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    int readable = rc ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (rc == 0 && readable < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "dep-info");
    if (rc)
        return rc;
    *fd = readable;
    *size = text.len;
    return 0;
}

// Opening is mostly hashing. The largest content is opened by a thread of its own while this one opens the others, where
// they are worth the thread.
struct apart {
    const struct kiln_lookup *lookup;
    const struct kiln_output *output;
    int fd, rc;
    struct kiln_err err;
};

static void *open_apart(void *argument) {
    struct apart *apart = argument;
    apart->rc = kiln_lookup_open(apart->lookup, apart->output, &apart->fd, &apart->err);
    return NULL;
}

// Position of the output to open apart; outputs_count for none.
static size_t choose_apart(const struct kiln_result *result) {
    size_t largest = 0;
    uint64_t all_bytes = 0;
    for (size_t i = 0; i < result->outputs_count; i++) {
        all_bytes += result->outputs[i].size;
        if (result->outputs[i].size > result->outputs[largest].size)
            largest = i;
    }
    return result->outputs_count && all_bytes - result->outputs[largest].size >= APART_BYTES ? largest : result->outputs_count;
}

struct opened {
    int *fds;
    size_t count;
};

static void release_opened(struct opened *opened) {
    for (size_t i = 0; i < opened->count; i++)
        if (opened->fds[i] >= 0)
            close(opened->fds[i]);
    free(opened->fds);
}

static int open_all(const struct kiln_lookup *lookup, const struct kiln_result *result, struct opened *opened,
                    struct kiln_err *err) {
    if (!(opened->fds = malloc((result->outputs_count + 1) * sizeof *opened->fds)))
        return kiln_fail(err, KILN_E_NOMEM, "replay");
    for (opened->count = 0; opened->count < result->outputs_count; opened->count++)
        opened->fds[opened->count] = -1;
    size_t chosen = choose_apart(result);
    struct apart apart = {.lookup = lookup, .output = result->outputs + chosen, .fd = -1};
    pthread_t thread;
    if (chosen < opened->count && pthread_create(&thread, NULL, open_apart, &apart))
        chosen = opened->count;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < opened->count; i++)
        if (i != chosen && (result->outputs[i].size || result->outputs[i].kind == KILN_OUTPUT_FILE))
            rc = kiln_lookup_open(lookup, &result->outputs[i], &opened->fds[i], err);
    if (chosen == opened->count)
        return rc;
    pthread_join(thread, NULL);
    opened->fds[chosen] = apart.fd;
    if (rc == 0 && apart.rc && err)
        *err = apart.err;
    return rc ? rc : apart.rc;
}

// Takes the descriptor on success.
static int add_file(const struct kiln_unit *unit, const struct kiln_output *output, int *opened, struct kiln_replay *replay,
                    struct kiln_err *err) {
    size_t at = replay->count;
    kiln_autofd int rewritten = -1;
    uint64_t size = output->size;
    bool depinfo = is_depinfo(output->name);
    int rc = depinfo ? rewrite_depinfo(unit, *opened, &rewritten, &size, err) : 0;
    if (rc)
        return rc;
    if (!depinfo)
        replay->digests[at] = output->digest;
    char *path = kiln_path_join(unit->out_dir, output->name);
    if (!path)
        return kiln_fail(err, KILN_E_NOMEM, "replay");
    replay->files[at] = (struct kiln_place_file){.path = path, .executable = output->executable, .size = size};
    replay->fds[at] = kiln_steal_fd(depinfo ? &rewritten : opened);
    replay->count++;
    return 0;
}

static int add_text(const struct kiln_unit *unit, int opened, struct kiln_buf *out, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_MESSAGE_BYTES_MAX);
    int rc = kiln_fs_read_fd(opened, &bytes, err);
    bool residue = false;
    if (rc == 0)
        rc = kiln_message_to_real(bytes.data, bytes.len, &unit->map, unit->out_dir, out, &residue, err);
    if (rc == 0 && residue)
        rc = kiln_fail(err, KILN_E_UNSUPPORTED, "foreign_path: a message names a source of another package");
    return rc;
}

int kiln_replay_build(const struct kiln_lookup *lookup, const struct kiln_unit *unit, const struct kiln_result *result,
                      struct kiln_replay *replay, struct kiln_err *err) {
    *replay = (struct kiln_replay){.out = KILN_BUF_INIT(2 * KILN_MESSAGE_BYTES_MAX),
                                   .errout = KILN_BUF_INIT(2 * KILN_MESSAGE_BYTES_MAX)};
    replay->files = calloc(result->outputs_count + 1, sizeof *replay->files);
    replay->fds = calloc(result->outputs_count + 1, sizeof *replay->fds);
    replay->digests = calloc(result->outputs_count + 1, sizeof *replay->digests);
    int rc = replay->files && replay->fds && replay->digests ? 0 : kiln_fail(err, KILN_E_NOMEM, "replay");
    kiln_auto(release_opened) struct opened opened = {0};
    if (rc == 0)
        rc = open_all(lookup, result, &opened, err);
    for (size_t i = 0; rc == 0 && i < result->outputs_count; i++) {
        const struct kiln_output *output = &result->outputs[i];
        if (output->kind == KILN_OUTPUT_FILE)
            rc = add_file(unit, output, &opened.fds[i], replay, err);
        else if (output->size)
            rc = add_text(unit, opened.fds[i], output->kind == KILN_OUTPUT_STDOUT ? &replay->out : &replay->errout, err);
    }
    if (rc)
        kiln_replay_release(replay);
    return rc;
}
