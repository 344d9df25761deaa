// What is worth recording, and in which form. The interposed functions are in the files beside this one, by subject.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "consumer/preload/observer.h"

#define PATH_ROOM 4096

// Names that every tool asks for and that are the same in every sandbox; kept out of the log to keep it short.
static bool is_tool_noise(const char *path) {
    return kiln_whereabouts_is_tool(path) || !strcmp(path, "/dev/null");
}

static bool is_path_kind(enum kiln_observe_kind kind) {
    return kind == KILN_OBSERVE_OPEN || kind == KILN_OBSERVE_STAT || kind == KILN_OBSERVE_LIST ||
           kind == KILN_OBSERVE_EXEC || kind == KILN_OBSERVE_DLOPEN;
}

static void add_path(enum kiln_observe_kind kind, enum kiln_observe_caller caller, int result, const char *path) {
    if (caller == KILN_CALLER_TOOL && is_tool_noise(path))
        return;
    kiln_log_add(kind, caller, result, path, strlen(path));
}

static size_t describe_fd(int fd, char *out, size_t room) {
    char link[] = "/proc/self/fd/4294967295";
    char *end = link + sizeof link - 1, *digit = end;
    unsigned rest = (unsigned)fd;
    do
        *--digit = (char)('0' + rest % 10);
    while (rest /= 10);
    memmove(link + sizeof "/proc/self/fd/" - 1, digit, (size_t)(end - digit) + 1);
    long len = RAW3(SYS_readlink, link, out, room - 1);
    out[len > 0 ? len : 0] = 0;
    return len > 0 ? (size_t)len : 0;
}

static size_t describe_directory(int dirfd, char *out, size_t room) {
    if (dirfd != AT_FDCWD)
        return describe_fd(dirfd, out, room);
    long len = RAW3(SYS_getcwd, out, room, 0); // counts the NUL
    return len > 1 ? (size_t)len - 1 : 0;
}

struct event {
    enum kiln_observe_kind kind;
    enum kiln_observe_caller caller;
    int result;
};

__attribute__((noinline)) static void add_relative(const struct event *event, int dirfd, const char *path) {
    char full[2 * PATH_ROOM + 2];
    size_t len = describe_directory(dirfd, full, PATH_ROOM);
    size_t more = strnlen(path, PATH_ROOM);
    if (more) {
        full[len++] = '/';
        memcpy(full + len, path, more);
        full[len + more] = 0;
    }
    add_path(event->kind, event->caller, event->result, full);
}

void kiln_note_path(enum kiln_observe_kind kind, const void *caller, int dirfd, const char *path, long rc) {
    int saved = errno;
    if (!path || (rc < 0 && saved == EFAULT))
        return;
    struct event event = {kind, kiln_callers_find(caller), rc < 0 ? saved : 0};
    if (event.caller == KILN_CALLER_TOOL && !is_path_kind(kind))
        return;
    if (path[0] == '/')
        add_path(kind, event.caller, event.result, path);
    else if (path[0])
        add_relative(&event, dirfd, path);
    errno = saved;
}

void kiln_note_open(const void *caller, int dirfd, const char *path, int flags, long rc) {
    int access = flags & O_ACCMODE;
    if (access != O_WRONLY)
        kiln_note_path(flags & O_DIRECTORY && !(flags & O_PATH) ? KILN_OBSERVE_LIST : KILN_OBSERVE_OPEN, caller, dirfd,
                       path, rc);
    if (access != O_RDONLY || flags & (O_CREAT | O_TRUNC))
        kiln_note_path(KILN_OBSERVE_WRITE, caller, dirfd, path, rc);
}

void kiln_note_listed(const void *caller, int fd, long rc) {
    int saved = errno;
    char path[PATH_ROOM];
    if (rc >= 0 && describe_fd(fd, path, sizeof path))
        kiln_note_path(KILN_OBSERVE_LIST, caller, AT_FDCWD, path, rc);
    errno = saved;
}

void kiln_note_text(enum kiln_observe_kind kind, const void *caller, const char *text) {
    enum kiln_observe_caller who = kiln_callers_find(caller);
    if (!text || (who == KILN_CALLER_TOOL && kind != KILN_OBSERVE_EXEC))
        return;
    int saved = errno;
    kiln_log_add(kind, who, 0, text, strlen(text));
    errno = saved;
}

void kiln_note_program(enum kiln_observe_kind kind, const void *caller, const char *file, long rc) {
    if (!file)
        return;
    if (strchr(file, '/'))
        kiln_note_path(kind, caller, AT_FDCWD, file, rc);
    else
        kiln_note_text(kind, caller, file);
}

// The first word of every process: without one, nothing was observed.
__attribute__((constructor)) static void begin(void) {
    int saved = errno;
    kiln_seed_prepare();
    kiln_log_add(KILN_OBSERVE_OPEN, KILN_CALLER_TOOL, 0, "", 0);
    errno = saved;
}
