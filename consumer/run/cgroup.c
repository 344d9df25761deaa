#include "consumer/run/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define PROC_TEXT_MAX (4u << 20)
#define NAME_PREFIX "kiln-"
#define LOCK_ATTEMPTS 8
#define SHARES_OF_A_PROCESS 1024u

// Is `word` an element of a list separated by `separator`?
static bool listed(const char *list, size_t len, char separator, const char *word) {
    size_t word_len = strlen(word);
    for (size_t at = 0; at < len;) {
        const char *end = memchr(list + at, separator, len - at);
        size_t element = end ? (size_t)(end - list) - at : len - at;
        if (element == word_len && !memcmp(list + at, word, word_len))
            return true;
        at += element + 1;
    }
    return false;
}

// The path of `controller` in lines of "ID:controllers:path"; v2 is "0::path".
static char *membership_path(const char *text, const char *controller) {
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        size_t len = strcspn(line, "\n");
        const char *list = memchr(line, ':', len);
        const char *path = list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        if (!path)
            continue;
        size_t list_len = (size_t)(path - list - 1);
        bool match = *controller ? listed(list + 1, list_len, ',', controller) : list_len == 0 && line[0] == '0';
        if (match)
            return strndup(path + 1, len - (size_t)(path + 1 - line));
    }
    return NULL;
}

struct mount_line {
    char root[1024], point[1024], type[32], options[1024];
};

// "36 35 98:0 ROOT POINT rw,noatime shared:1 - TYPE source OPTIONS"
static bool parse_mount(const char *line, size_t len, struct mount_line *mount) {
    kiln_autofree char *copy = strndup(line, len);
    char *behind = copy ? strstr(copy, " - ") : NULL;
    if (!behind)
        return false;
    return sscanf(copy, "%*d %*d %*s %1023s %1023s", mount->root, mount->point) == 2 &&
           sscanf(behind + 3, "%31s %*s %1023s", mount->type, mount->options) == 2;
}

static bool mount_carries(const struct mount_line *mount, const char *controller) {
    if (!*controller)
        return !strcmp(mount->type, "cgroup2");
    return !strcmp(mount->type, "cgroup") && listed(mount->options, strlen(mount->options), ',', controller);
}

char *kiln_cgroup_place(const char *mountinfo, const char *membership, const char *controller) {
    kiln_autofree char *own = membership_path(membership, controller);
    if (!own || own[0] != '/' || strstr(own, "/.."))
        return NULL;
    for (const char *line = mountinfo; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        struct mount_line mount;
        if (!parse_mount(line, strcspn(line, "\n"), &mount) || !mount_carries(&mount, controller))
            continue;
        const char *rest = !strcmp(mount.root, "/") ? own + 1 : kiln_path_beneath(own, mount.root);
        if (rest)
            return *rest ? kiln_path_join(mount.point, rest) : strdup(mount.point);
    }
    return NULL;
}

static int write_value(int dir, const char *name, const char *value) {
    kiln_autofd int fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value) ? 0 : -1;
}

static int write_number(int dir, const char *name, uint64_t number) {
    char value[24];
    snprintf(value, sizeof value, "%" PRIu64, number);
    return write_value(dir, name, value);
}

static bool read_value(int dir, const char *name, struct kiln_buf *text) {
    kiln_autofd int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && kiln_fs_read_fd(fd, text, NULL) == 0;
}

// A group belongs to whoever holds a lock on its directory; the name alone would not tell, since process ids come again.
static int lock_group(int parent, const char *name, int operation) {
    kiln_autofd int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return dir >= 0 && flock(dir, operation) == 0 ? kiln_steal_fd(&dir) : -1;
}

// Groups that nobody holds: their kiln-run was killed. One in which a process still dies refuses to be removed for now.
static void remove_stale(int parent) {
    int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (!dir) {
        if (copy >= 0)
            close(copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)))
            continue;
        kiln_autofd int stale = lock_group(parent, entry->d_name, LOCK_EX | LOCK_NB);
        if (stale >= 0)
            unlinkat(parent, entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

static bool is_still_there(int parent, const char *name, int dir) {
    struct stat by_name, by_fd;
    return fstatat(parent, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 && fstat(dir, &by_fd) == 0 &&
           by_name.st_ino == by_fd.st_ino;
}

// Makes and locks a group; another kiln-run may take it for a stale one in between.
static int make_locked(int parent, const char *name) {
    for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
        if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
            return -1;
        kiln_autofd int dir = lock_group(parent, name, LOCK_EX);
        if (dir >= 0 && is_still_there(parent, name, dir))
            return kiln_steal_fd(&dir);
    }
    return -1;
}

// Makes our group below the directory `path`; false when the host does not let us.
static bool make_group(struct kiln_cgroup *cgroup, const char *path) {
    kiln_autofd int parent = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 || faccessat(parent, ".", W_OK, AT_EACCESS) < 0)
        return false;
    remove_stale(parent);
    kiln_autofd int dir = make_locked(parent, cgroup->name);
    // Not cgroup.procs: moving whole processes takes a lock that waits for all processors, some milliseconds each time.
    kiln_autofd int tasks = dir < 0 || cgroup->v2 ? -1 : openat(dir, "tasks", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0 || (tasks < 0 && !cgroup->v2)) {
        unlinkat(parent, cgroup->name, AT_REMOVEDIR);
        return false;
    }
    cgroup->groups[cgroup->count++] = (struct kiln_cgroup_group){
        .parent = kiln_steal_fd(&parent), .dir = kiln_steal_fd(&dir), .tasks = kiln_steal_fd(&tasks)};
    return true;
}

static void drop_last_group(struct kiln_cgroup *cgroup) {
    struct kiln_cgroup_group *group = &cgroup->groups[--cgroup->count];
    if (group->tasks >= 0)
        close(group->tasks);
    // The kernel lets go of a group a moment after its last process was reaped.
    for (int attempt = 0; unlinkat(group->parent, cgroup->name, AT_REMOVEDIR) < 0 && errno == EBUSY && attempt < 200;
         attempt++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    close(group->dir);
    close(group->parent);
}

static void open_v1(struct kiln_cgroup *cgroup, const char *mounts, const char *membership, uint64_t memory_bytes,
                    uint32_t processes) {
    kiln_autofree char *memory = kiln_cgroup_place(mounts, membership, "memory");
    if (memory && make_group(cgroup, memory)) {
        int dir = cgroup->groups[cgroup->count - 1].dir;
        cgroup->memory = write_number(dir, "memory.limit_in_bytes", memory_bytes) == 0;
        cgroup->swap = write_number(dir, "memory.memsw.limit_in_bytes", memory_bytes) == 0; // absent without swap accounting
        if (!cgroup->memory)
            drop_last_group(cgroup);
    }
    kiln_autofree char *pids = kiln_cgroup_place(mounts, membership, "pids");
    if (pids && make_group(cgroup, pids)) {
        cgroup->processes = write_number(cgroup->groups[cgroup->count - 1].dir, "pids.max", processes) == 0;
        if (!cgroup->processes)
            drop_last_group(cgroup);
    }
    kiln_autofree char *cpu = kiln_cgroup_place(mounts, membership, "cpu");
    cgroup->cpu = cpu && make_group(cgroup, cpu);
    // Beside it may run processes without a group of their own, and against those it must not count as a single one.
    if (cgroup->cpu)
        write_number(cgroup->groups[cgroup->count - 1].dir, "cpu.shares", SHARES_OF_A_PROCESS * (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
}

static bool hands_down(const char *path, bool *cpu) {
    kiln_autofd int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    if (dir < 0 || !read_value(dir, "cgroup.subtree_control", &text))
        return false;
    size_t len = strcspn(kiln_buf_text(&text), "\n");
    *cpu = listed(kiln_buf_text(&text), len, ' ', "cpu");
    return listed(kiln_buf_text(&text), len, ' ', "memory") && listed(kiln_buf_text(&text), len, ' ', "pids");
}

// A group with processes in it cannot hand controllers down, so ours is usually made beside our own group, not in it.
static void open_v2(struct kiln_cgroup *cgroup, char *place, uint64_t memory_bytes, uint32_t processes) {
    bool cpu;
    while (!hands_down(place, &cpu)) {
        char *slash = strrchr(place, '/');
        if (!slash || slash == place)
            return;
        *slash = 0;
    }
    cgroup->v2 = true;
    if (!make_group(cgroup, place))
        return;
    int dir = cgroup->groups[0].dir;
    cgroup->memory = write_number(dir, "memory.max", memory_bytes) == 0;
    cgroup->swap = write_value(dir, "memory.swap.max", "0") == 0; // absent without swap accounting
    write_value(dir, "memory.oom.group", "1");
    cgroup->processes = write_number(dir, "pids.max", processes) == 0;
    cgroup->cpu = cpu;
    if (!cgroup->processes || !cgroup->memory) {
        cgroup->memory = cgroup->swap = cgroup->processes = cgroup->cpu = false;
        drop_last_group(cgroup);
    }
}

// On a host without swap there is nothing to bound.
static int note_swap(struct kiln_cgroup *cgroup) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(PROC_TEXT_MAX);
    if (read_value(AT_FDCWD, "/proc/swaps", &text)) {
        const char *second = strchr(kiln_buf_text(&text), '\n');
        cgroup->swap |= !second || !second[1];
    }
    return 0;
}

int kiln_cgroup_open(struct kiln_cgroup *cgroup, uint64_t memory_bytes, uint32_t processes, struct kiln_err *err) {
    *cgroup = KILN_CGROUP_INIT;
    snprintf(cgroup->name, sizeof cgroup->name, NAME_PREFIX "%d", (int)getpid());
    kiln_autobuf struct kiln_buf mounts = KILN_BUF_INIT(PROC_TEXT_MAX);
    kiln_autobuf struct kiln_buf membership = KILN_BUF_INIT(PROC_TEXT_MAX);
    if (!read_value(AT_FDCWD, "/proc/self/mountinfo", &mounts))
        return kiln_fail(err, KILN_E_IO, "cannot read /proc/self/mountinfo: is /proc mounted?");
    if (!read_value(AT_FDCWD, "/proc/self/cgroup", &membership))
        return 0; // a kernel without control groups
    const char *mounts_text = kiln_buf_text(&mounts);
    open_v1(cgroup, mounts_text, kiln_buf_text(&membership), memory_bytes, processes);
    if (cgroup->memory || cgroup->processes)
        return note_swap(cgroup);
    kiln_cgroup_release(cgroup); // a share of the processors alone keeps nobody from v2
    cgroup->cpu = false;
    kiln_autofree char *place = kiln_cgroup_place(mounts_text, kiln_buf_text(&membership), "");
    if (place)
        open_v2(cgroup, place, memory_bytes, processes);
    return note_swap(cgroup);
}

pid_t kiln_cgroup_fork(const struct kiln_cgroup *cgroup, struct kiln_err *err) {
    pid_t pid;
    if (cgroup->v2 && cgroup->count) {
        // Born in the group: moving there afterwards takes the same slow lock as in v1.
        struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD,
                                  .cgroup = (uint64_t)cgroup->groups[0].dir};
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    } else {
        pid = fork();
    }
    return pid < 0 ? kiln_fail_errno(err, KILN_E_DENIED, "a process in control group %s", cgroup->name) : pid;
}

int kiln_cgroup_join(const struct kiln_cgroup *cgroup, struct kiln_err *err) {
    for (size_t i = 0; i < cgroup->count; i++)
        if (cgroup->groups[i].tasks >= 0 && write(cgroup->groups[i].tasks, "0", 1) != 1)
            return kiln_fail_errno(err, KILN_E_IO, "joining control group %s", cgroup->name);
    return 0;
}

static uint64_t number_in(int dir, const char *name, const char *label) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(64u << 10);
    if (!read_value(dir, name, &text))
        return 0;
    const char *at = kiln_buf_text(&text);
    if (*label) {
        for (size_t len = strlen(label); at && !(!strncmp(at, label, len) && at[len] == ' ');)
            at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
        at = at ? at + strlen(label) : "";
    }
    return strtoull(at, NULL, 10);
}

void kiln_cgroup_read(const struct kiln_cgroup *cgroup, uint64_t *peak_bytes, uint64_t *oom_kills) {
    *peak_bytes = *oom_kills = 0;
    if (!cgroup->memory)
        return;
    int dir = cgroup->groups[0].dir;
    *peak_bytes = number_in(dir, cgroup->v2 ? "memory.peak" : "memory.max_usage_in_bytes", "");
    *oom_kills = number_in(dir, cgroup->v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

void kiln_cgroup_release(struct kiln_cgroup *cgroup) {
    while (cgroup->count)
        drop_last_group(cgroup);
}
