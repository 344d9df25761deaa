#include "consumer/executor/macros.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/macro/macro_object.h"

#define KEPT_MAX 20000u // beyond that all are looked at again

// What is kept of a verdict: the looking may change.
#define SEEN "1 seen\n"
#define UNSEEN "1 unseen\n"

struct kiln_macros {
    int dir;
};

static size_t count_entries(int dirfd) {
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    size_t count = 0;
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

int kiln_macros_open(const char *dir, struct kiln_macros **out, struct kiln_err *err) {
    kiln_autofree char *own = kiln_path_join(dir, "executor/macros");
    kiln_autofree struct kiln_macros *macros = calloc(1, sizeof *macros);
    if (!own || !macros)
        return kiln_fail(err, KILN_E_NOMEM, "macros");
    kiln_autofd int fd = -1;
    int rc = kiln_fs_make_dirs(AT_FDCWD, own, 0700, err);
    if (rc == 0)
        rc = kiln_fs_open_dir(own, &fd, err);
    if (rc == 0 && count_entries(fd) > KEPT_MAX) {
        close(kiln_steal_fd(&fd));
        rc = kiln_fs_remove_tree(AT_FDCWD, own, err);
        if (rc == 0)
            rc = kiln_fs_open_dir(own, &fd, err);
    }
    if (rc)
        return rc;
    macros->dir = kiln_steal_fd(&fd);
    *out = KILN_STEAL(macros);
    return 0;
}

void kiln_macros_close(struct kiln_macros *macros) {
    if (!macros)
        return;
    close(macros->dir);
    free(macros);
}

static bool is_object(const char *name) {
    size_t len = strlen(name);
    return len > 3 && !strcmp(name + len - 3, ".so");
}

static int look_into(int dir, const char *name, bool *unseen, struct kiln_err *err) {
    enum kiln_macro_verdict verdict;
    kiln_autofd int fd = -1;
    int rc = kiln_fs_open_beneath(dir, name, O_RDONLY | O_NONBLOCK, &fd, err);
    if (rc == 0)
        rc = kiln_macro_object_check(fd, &verdict, err);
    if (rc == 0)
        *unseen = verdict != KILN_MACRO_SEEN;
    return rc ? kiln_wrap(err, rc, "looking into %s", name) : 0;
}

static int is_unseen(const struct kiln_macros *macros, int dir, const struct kiln_tree_entry *entry, bool *unseen,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf kept = KILN_BUF_INIT(sizeof UNSEEN);
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(&entry->digest, hex);
    if (kiln_fs_read_file(macros->dir, hex, &kept, NULL) == 0) {
        *unseen = !strcmp(kiln_buf_text(&kept), UNSEEN);
        if (*unseen || !strcmp(kiln_buf_text(&kept), SEEN))
            return 0;
    }
    int rc = look_into(dir, entry->path, unseen, err);
    const char *text = *unseen ? UNSEEN : SEEN;
    if (rc == 0) // else it is looked at again
        kiln_fs_write_file(macros->dir, hex, text, strlen(text), 0600, NULL);
    return rc;
}

int kiln_macros_find_unseen(const struct kiln_macros *macros, const struct kiln_stage *stage, const char **name,
                            struct kiln_err *err) {
    *name = NULL;
    for (size_t i = 0; i < stage->count; i++) {
        const struct kiln_stage_input *input = &stage->inputs[i];
        for (size_t k = 0; !input->package && k < input->tree.count; k++) {
            const struct kiln_tree_entry *entry = &input->tree.entries[k];
            bool unseen = false;
            int rc = is_object(entry->path) ? is_unseen(macros, input->fd, entry, &unseen, err) : 0;
            if (rc)
                return rc;
            if (unseen) {
                *name = entry->path;
                return 0;
            }
        }
    }
    return 0;
}
