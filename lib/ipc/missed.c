#include "lib/ipc/missed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define NOTES_NAME "agent.missed"
#define TAKEN_NAME "agent.missed.taken"
#define NOTES_BYTES_MAX (1u << 20)
#define WORD_BYTES_MAX 64

void kiln_missed_add(const char *dir, const char *reason) {
    kiln_autofree char *path = kiln_path_join(dir, NOTES_NAME);
    if (!path)
        return;
    kiln_autofd int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > NOTES_BYTES_MAX - 2 * WORD_BYTES_MAX)
        return;
    char line[WORD_BYTES_MAX + 2];
    int len = snprintf(line, sizeof line, "%.*s\n", WORD_BYTES_MAX, reason);
    kiln_fs_write_all(fd, line, (size_t)len, NULL); // one write: lines of several wrappers do not mix
}

static void report_line(char *line, kiln_missed_fn each, void *context) {
    size_t len = strlen(line);
    bool is_word = len > 0 && len <= WORD_BYTES_MAX && strspn(line, "abcdefghijklmnopqrstuvwxyz_") == len;
    each(context, is_word ? line : "unknown");
}

static int report_file(const char *path, kiln_missed_fn each, void *context, struct kiln_err *err) {
    kiln_autofd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : kiln_fail_errno(err, KILN_E_IO, "%s", path);
    kiln_autobuf struct kiln_buf notes = KILN_BUF_INIT(NOTES_BYTES_MAX);
    int rc = kiln_fs_read_fd(fd, &notes, err);
    if (rc)
        return rc;
    kiln_buf_text(&notes);
    char *rest = (char *)notes.data;
    for (char *line = strsep(&rest, "\n"); line && rest; line = strsep(&rest, "\n"))
        report_line(line, each, context);
    return 0;
}

int kiln_missed_read(const char *dir, kiln_missed_fn each, void *context, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, NOTES_NAME);
    if (!path)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    return report_file(path, each, context, err);
}

int kiln_missed_take(const char *dir, kiln_missed_fn each, void *context, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, NOTES_NAME);
    kiln_autofree char *taken = kiln_path_join(dir, TAKEN_NAME);
    if (!path || !taken)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    if (rename(path, taken) < 0)
        return errno == ENOENT ? 0 : kiln_fail_errno(err, KILN_E_IO, "%s", path);
    int rc = report_file(taken, each, context, err);
    unlink(taken);
    return rc;
}
