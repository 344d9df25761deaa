#include "consumer/run/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "consumer/preload/asking.h"
#include "consumer/run/filter.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define BURST 64
#define RANGES 64u
#define SEEN_SLOTS 8192u
#define SEEN_PROBES 16u
#define PATH_ROOM 4096u
#define MAPS_BYTES_MAX (8u << 20)
#define LOWEST_POINTER 4096u // below it nothing is ever mapped: a program asks so whether a call exists

// Of kernels newer than this libc's headers.
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1ul << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1ul << 5)
#endif

int kiln_watch_prepare(struct kiln_watch *watch, const char *observer_dir, struct kiln_err *err) {
    struct seccomp_notif_sizes sizes = {0};
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
        return kiln_fail_errno(err, KILN_E_UNSUPPORTED, KILN_WATCH_UNAVAILABLE ": the kernel tells nobody of system calls");
    // Fields that a newer kernel has are zero for it, and unknown here.
    size_t request = sizes.seccomp_notif > sizeof(struct seccomp_notif) ? sizes.seccomp_notif : sizeof(struct seccomp_notif);
    size_t answer = sizes.seccomp_notif_resp > sizeof(struct seccomp_notif_resp) ? sizes.seccomp_notif_resp
                                                                                 : sizeof(struct seccomp_notif_resp);
    kiln_autofree char *above = kiln_path_dir(observer_dir);
    watch->proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    watch->observer = strdup(observer_dir);
    watch->sysroot = above ? kiln_path_join(above, "sysroot") : NULL; // as consumer/preload/whereabouts.c has it
    watch->ranges = calloc(RANGES, sizeof *watch->ranges);
    watch->seen = calloc(SEEN_SLOTS, sizeof *watch->seen);
    watch->request = calloc(1, request);
    watch->answer = calloc(1, answer);
    watch->log = KILN_BUF_INIT(KILN_OBSERVE_LOG_BYTES);
    if (watch->proc < 0)
        return kiln_fail_errno(err, KILN_E_UNSUPPORTED, KILN_WATCH_UNAVAILABLE ": /proc");
    if (!watch->observer || !watch->sysroot || !watch->ranges || !watch->seen || !watch->request || !watch->answer)
        return kiln_fail(err, KILN_E_NOMEM, "watch");
    return 0;
}

int kiln_watch_begin(int *listener, struct kiln_err *err) {
    const struct sock_fprog program = {.len = (unsigned short)kiln_filter_watch_code_count,
                                       .filter = (struct sock_filter *)kiln_filter_watch_code};
    const unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (fd < 0 && errno == EINVAL) // before Linux 5.19 a signal may make a call ask twice
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_UNSUPPORTED, KILN_WATCH_UNAVAILABLE ": system calls cannot be watched here%s",
                               errno == EBUSY ? ", somebody else does" : "");
    *listener = (int)fd;
    return 0;
}

union fd_message {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int kiln_watch_send(int socket, int listener, struct kiln_err *err) {
    struct iovec byte = {(void *)"", 1};
    union fd_message control = {0};
    struct msghdr header = {.msg_iov = &byte, .msg_iovlen = 1};
    if (listener >= 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof control.bytes;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof listener);
        memcpy(CMSG_DATA(cmsg), &listener, sizeof listener);
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL) == 1 ? 0 : kiln_fail_errno(err, KILN_E_CLOSED, "the other side has gone");
}

long kiln_watch_receive(int socket, void *bytes, size_t room, int *listener) {
    struct iovec part = {bytes, room};
    union fd_message control;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    long got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    struct cmsghdr *cmsg = got < 0 ? NULL : CMSG_FIRSTHDR(&header);
    if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS || cmsg->cmsg_len != CMSG_LEN(sizeof *listener))
        return got;
    memcpy(listener, CMSG_DATA(cmsg), sizeof *listener);
    // The two sides take turns, so the woken one may as well run where the other was.
    ioctl(*listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    return got;
}

// Whether the caller still waits. When it has been killed, another process may have its number, and what was read is not the job's.
static bool is_waiting(const struct kiln_watch *watch) {
    const struct seccomp_notif *request = watch->request;
    return ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &request->id) == 0;
}

static bool is_tool(const struct kiln_watch *watch, const char *path) {
    static const char *const places[] = {"/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin"};
    if (path[0] == '[')
        return !strcmp(path, "[vdso]");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (kiln_path_beneath(path, places[i]))
            return true;
    return kiln_path_beneath(path, watch->sysroot) || kiln_path_beneath(path, watch->observer);
}

// The mapping that holds `address`, from the text of /proc/ID/maps: "START-END PERMS OFFSET DEVICE INODE   PATH".
static bool find_mapping(char *maps, uint64_t address, struct kiln_watch_range *range, const char **path) {
    char *rest = maps;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *at;
        range->start = strtoull(line, &at, 16);
        if (*at != '-')
            continue;
        range->end = strtoull(at + 1, &at, 16);
        if (address < range->start || address >= range->end)
            continue;
        for (int column = 0; column < 4; column++) {
            at += strspn(at, " ");
            at += strcspn(at, " ");
        }
        *path = at + strspn(at, " ");
        return true;
    }
    return false;
}

// Whether the code at `address` of a thread is the toolchain's; unknown code is not.
static bool is_tool_code(struct kiln_watch *watch, uint32_t thread, uint64_t address) {
    for (size_t i = 0; i < RANGES; i++) {
        const struct kiln_watch_range *known = &watch->ranges[i];
        if (known->thread == thread && address >= known->start && address < known->end)
            return known->tool;
    }
    char name[24];
    snprintf(name, sizeof name, "%u/maps", thread);
    kiln_autobuf struct kiln_buf maps = KILN_BUF_INIT(MAPS_BYTES_MAX);
    kiln_autofd int fd = openat(watch->proc, name, O_RDONLY | O_CLOEXEC);
    struct kiln_watch_range range = {.thread = thread};
    const char *path;
    if (fd < 0 || kiln_fs_read_fd(fd, &maps, NULL) || !find_mapping((char *)kiln_buf_text(&maps), address, &range, &path))
        return false;
    range.tool = is_tool(watch, path);
    if (!is_waiting(watch))
        return true; // nobody calls any more
    watch->ranges[watch->ranges_next++ % RANGES] = range;
    return range.tool;
}

static bool seen_before(struct kiln_watch *watch, const unsigned char *bytes, size_t len) {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    hash |= 1;
    for (uint32_t i = 0; i < SEEN_PROBES; i++) {
        uint64_t *slot = &watch->seen[((hash >> 20) + i) % SEEN_SLOTS];
        if (*slot == hash)
            return true;
        if (*slot == 0) {
            *slot = hash;
            return false;
        }
    }
    return false;
}

static void add_entry(struct kiln_watch *watch, enum kiln_observe_kind kind, enum kiln_observe_caller caller, int result,
                      const char *text) {
    struct {
        struct kiln_observe_entry head;
        char text[2 * PATH_ROOM + 4];
    } entry = {.head = {.kind = (uint8_t)kind, .caller = (uint8_t)caller, .result = result}};
    size_t len = strnlen(text, 2 * PATH_ROOM);
    memcpy(entry.text, text, len);
    entry.head.text_length = (uint32_t)len;
    entry.head.length = (uint16_t)((sizeof entry.head + len + 3) & ~(size_t)3);
    if (!seen_before(watch, (const unsigned char *)&entry, entry.head.length))
        kiln_buf_add(&watch->log, &entry, entry.head.length); // full: the reader is told by kiln_watch_write
}

static void add_number(struct kiln_watch *watch, int number) {
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    add_entry(watch, KILN_OBSERVE_SYSCALL, KILN_CALLER_MACRO, 0, text);
}

// A string of the job's memory, page by page: the next one may not be there.
static bool read_text(uint32_t thread, uint64_t address, char text[PATH_ROOM]) {
    for (size_t len = 0; len < PATH_ROOM;) {
        size_t part = PATH_ROOM - (address + len) % PATH_ROOM;
        if (part > PATH_ROOM - len)
            part = PATH_ROOM - len;
        struct iovec to = {text + len, part}, from = {(void *)(uintptr_t)(address + len), part};
        ssize_t got = process_vm_readv((pid_t)thread, &to, 1, &from, 1, 0);
        if (got <= 0)
            return false;
        if (memchr(text + len, 0, (size_t)got))
            return true;
        len += (size_t)got;
    }
    return false;
}

// The directory that a call starts from, as the job calls it.
static bool read_directory(const struct kiln_watch *watch, uint32_t thread, int dirfd, char out[PATH_ROOM]) {
    char name[40];
    if (dirfd == AT_FDCWD)
        snprintf(name, sizeof name, "%u/cwd", thread);
    else
        snprintf(name, sizeof name, "%u/fd/%d", thread, dirfd);
    ssize_t len = readlinkat(watch->proc, name, out, PATH_ROOM - 1);
    out[len > 0 ? len : 0] = 0;
    return len > 0;
}

// Nothing has happened yet, so what the call will give is looked up beside it.
static int look_up(const struct kiln_watch *watch, const char *path) {
    const struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    kiln_autofd int fd = (int)syscall(SYS_openat2, watch->root, path, &how, sizeof how);
    return fd < 0 ? errno : 0;
}

// A path that a call named, or (path "") the directory itself. False: it could not be made out.
static bool add_path(struct kiln_watch *watch, uint32_t thread, enum kiln_observe_kind kind, int dirfd, const char *path) {
    char full[2 * PATH_ROOM + 2];
    if (path[0] == '/') {
        add_entry(watch, kind, KILN_CALLER_MACRO, look_up(watch, path), path);
        return true;
    }
    if (!read_directory(watch, thread, dirfd, full))
        return false;
    if (!is_waiting(watch))
        return true;
    if (path[0]) {
        size_t len = strlen(full);
        full[len++] = '/';
        memcpy(full + len, path, strlen(path) + 1);
    }
    add_entry(watch, kind, KILN_CALLER_MACRO, look_up(watch, full), full);
    return true;
}

static bool add_open(struct kiln_watch *watch, uint32_t thread, int dirfd, const char *path, int flags) {
    int access = flags & O_ACCMODE;
    bool list = flags & O_DIRECTORY && !(flags & O_PATH);
    bool known = true;
    if (access != O_WRONLY)
        known &= add_path(watch, thread, list ? KILN_OBSERVE_LIST : KILN_OBSERVE_OPEN, dirfd, path);
    if (access != O_RDONLY || flags & (O_CREAT | O_TRUNC))
        known &= add_path(watch, thread, KILN_OBSERVE_WRITE, dirfd, path);
    return known;
}

static bool add_call(struct kiln_watch *watch, uint32_t thread, const struct seccomp_data *call, const struct kiln_asking *asking) {
    const __u64 *args = call->args;
    enum kiln_observe_kind kind = (enum kiln_observe_kind)asking->kind;
    bool second = asking->shape == KILN_ASKING_SECOND || asking->shape == KILN_ASKING_OPENAT;
    int dirfd = second ? (int)args[0] : AT_FDCWD;
    char path[PATH_ROOM];
    switch ((enum kiln_asking_shape)asking->shape) {
    case KILN_ASKING_HARMLESS:
        return true;
    case KILN_ASKING_CLOCK:
    case KILN_ASKING_NAMED:
        add_entry(watch, kind, KILN_CALLER_MACRO, 0, asking->name);
        return true;
    case KILN_ASKING_LISTED:
        return add_path(watch, thread, kind, (int)args[0], "");
    default:
        if (args[second] < LOWEST_POINTER)
            return true;
        if (!read_text(thread, args[second], path))
            return false;
        if (!is_waiting(watch))
            return true;
        if (asking->shape == KILN_ASKING_OPEN || asking->shape == KILN_ASKING_OPENAT)
            return add_open(watch, thread, dirfd, path, (int)args[second + 1]);
        return add_path(watch, thread, kind, dirfd, path);
    }
}

static void note(struct kiln_watch *watch, const struct seccomp_notif *request) {
    if (is_tool_code(watch, request->pid, request->data.instruction_pointer))
        return;
    const struct kiln_asking *asking = kiln_asking_find(request->data.nr);
    if (!asking || !add_call(watch, request->pid, &request->data, asking))
        add_number(watch, request->data.nr);
}

static int refusal_of(int number) {
    for (size_t i = 0; i < kiln_filter_refusals_count; i++)
        if (kiln_filter_refusals[i].number == number)
            return kiln_filter_refusals[i].answer;
    return 0;
}

// Before the job's program is executed nobody but bwrap has called; its own exec was execveat.
static void handle(struct kiln_watch *watch, const struct seccomp_notif *request, struct seccomp_notif_resp *answer) {
    bool executes = request->data.nr == SYS_execve || request->data.nr == SYS_execveat;
    int refusal = watch->started ? refusal_of(request->data.nr) : 0;
    if (watch->started)
        note(watch, request);
    else if (request->data.nr == SYS_execve)
        add_entry(watch, KILN_OBSERVE_OPEN, KILN_CALLER_TOOL, 0, ""); // the log's first word, as the preloaded observer's
    watch->started |= request->data.nr == SYS_execve;
    if (executes) // other code will lie at the same addresses
        memset(watch->ranges, 0, RANGES * sizeof *watch->ranges);
    answer->id = request->id;
    answer->error = -refusal;
    answer->flags = refusal ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
}

void kiln_watch_serve(struct kiln_watch *watch) {
    struct pollfd more = {.fd = watch->listener, .events = POLLIN, .revents = POLLIN};
    for (int i = 0; i < BURST && more.revents & POLLIN; i++) {
        struct seccomp_notif *request = watch->request;
        struct seccomp_notif_resp *answer = watch->answer;
        memset(request, 0, sizeof *request);
        memset(answer, 0, sizeof *answer);
        // Both fail when the caller has been killed meanwhile.
        if (ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_RECV, request) == 0) {
            handle(watch, request, answer);
            ioctl(watch->listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
        }
        if (poll(&more, 1, 0) <= 0)
            return;
    }
}

int kiln_watch_write(const struct kiln_watch *watch, int fd, struct kiln_err *err) {
    struct kiln_observe_header header = {.magic = KILN_OBSERVE_MAGIC, .version = KILN_OBSERVE_VERSION,
                                         .capacity = (uint32_t)watch->log.len,
                                         .used = (uint32_t)watch->log.len + (watch->log.failed ? 1 : 0)};
    int rc = kiln_fs_write_all(fd, &header, sizeof header, err);
    return rc ? rc : kiln_fs_write_all(fd, watch->log.data, watch->log.len, err);
}

void kiln_watch_release(struct kiln_watch *watch) {
    int *const fds[] = {&watch->listener, &watch->proc};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
    kiln_buf_release(&watch->log);
    free(watch->observer);
    free(watch->sysroot);
    free(watch->ranges);
    free(watch->seen);
    free(watch->request);
    free(watch->answer);
    *watch = KILN_WATCH_INIT;
}
