#include "lib/ipc/origin.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/fs.h"

#define DEPTH_MAX 256
#define STAT_BYTES_MAX 4096
#define ENVIRON_BYTES_MAX (8u << 20)

struct process {
    pid_t parent;
    char name[16]; // as the kernel cuts it
};

// proc(5), /proc/PID/stat: "PID (NAME) STATE PPID ..."; NAME may hold anything, so the last parenthesis ends it.
static bool read_process(pid_t pid, struct process *process) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    kiln_autobuf struct kiln_buf stat = KILN_BUF_INIT(STAT_BYTES_MAX);
    if (kiln_fs_read_file(AT_FDCWD, path, &stat, NULL))
        return false;
    const char *text = kiln_buf_text(&stat);
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close || close < open || strlen(close) < 4)
        return false;
    char *rest;
    long parent = strtol(close + 4, &rest, 10);
    if (rest == close + 4 || parent < 0 || parent > INT_MAX)
        return false;
    snprintf(process->name, sizeof process->name, "%.*s", (int)(close - open - 1), open + 1);
    process->parent = (pid_t)parent;
    return true;
}

// 0 when no cargo is above; -1 when that cannot be told.
static pid_t nearest_cargo(pid_t start) {
    struct process process;
    if (!read_process(start, &process))
        return -1;
    for (int depth = 0; process.parent > 0; depth++) {
        pid_t pid = process.parent;
        if (depth == DEPTH_MAX)
            return -1;
        // What is hidden from us belongs to somebody else, and so does everything above it.
        if (!read_process(pid, &process))
            return 0;
        if (!strcmp(process.name, "cargo"))
            return pid;
    }
    return 0;
}

static bool holds(const struct kiln_buf *environ_bytes, const char *name, const char *value) {
    size_t name_len = strlen(name);
    const char *at = (const char *)environ_bytes->data;
    const char *end = at + environ_bytes->len;
    while (at < end) {
        const char *stop = memchr(at, 0, (size_t)(end - at));
        if (!stop)
            return false; // cut off: what it would say is not known
        if (!strncmp(at, name, name_len) && at[name_len] == '=')
            return !strcmp(at + name_len + 1, value);
        at = stop + 1;
    }
    return false;
}

bool kiln_origin_is_user(pid_t process, const char *name, const char *value) {
    pid_t cargo = nearest_cargo(process);
    if (cargo <= 0)
        return cargo == 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)cargo);
    kiln_autobuf struct kiln_buf environ_bytes = KILN_BUF_INIT(ENVIRON_BYTES_MAX);
    return kiln_fs_read_file(AT_FDCWD, path, &environ_bytes, NULL) == 0 && environ_bytes.len > 0 &&
           holds(&environ_bytes, name, value);
}
