#include "tests/attack/deeds.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FCHMODAT2 452
#define X32_GETPID 0x40000027L

static void say(const char *text) { dprintf(STDOUT_FILENO, "%s\n", text); }

static void judge(long result) { say(result < 0 ? strerrorname_np(errno) : "won"); }

// In a child: what may kill the caller, or change it for good.
static void in_child(long (*deed)(const char *), const char *argument) {
    pid_t pid = fork();
    if (pid == 0) {
        judge(deed(argument));
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        judge(-1);
    else if (WIFSIGNALED(status))
        dprintf(STDOUT_FILENO, "SIG%s\n", sigabbrev_np(WTERMSIG(status)));
}

static void plant(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    judge(fd < 0 ? -1 : write(fd, "x", 1));
}

static void overwrite(const char *path) { judge(open(path, O_WRONLY | O_CLOEXEC)); }

static void peek(const char *path) { // any byte is a win
    char byte;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, &byte, 1);
    got == 0 ? say("empty") : judge(got);
}

static void scan_descriptors(const char *unused) {
    (void)unused;
    bool found = false;
    for (int fd = 3; fd < 65536; fd++) {
        struct stat st;
        char link[32], target[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = fstat(fd, &st) < 0 ? -1 : readlink(link, target, sizeof target - 1);
        if (len < 0)
            continue;
        target[len] = 0;
        found |= !strcmp(target, "/etc/passwd"); // which no sandbox has
    }
    say(found ? "won" : "none");
}

static void cut_output(const char *unused) { // the texts are kept by kiln-run, behind a pipe
    (void)unused;
    int fd = open("/proc/self/fd/1", O_RDWR | O_CLOEXEC);
    judge(fd < 0 ? -1 : ftruncate(fd, 0));
}

static long new_user(const char *unused) {
    (void)unused;
    return unshare(CLONE_NEWUSER);
}

static long clone_user(const char *unused) {
    (void)unused;
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long clone3_user(const char *unused) {
    (void)unused;
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    return pid;
}

static long new_mounts(const char *place) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return -1;
    return mount("none", place, "tmpfs", 0, NULL);
}

static long open_mount(const char *unused) {
    (void)unused;
    return open_tree(AT_FDCWD, "/", OPEN_TREE_CLOEXEC);
}

static long enter_init(const char *unused) {
    (void)unused;
    int fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC); // the call itself; there is nothing to go to
    return fd < 0 || setns(fd, 0) < 0 ? -1 : 0;
}

static long change_root(const char *place) { return chroot(place); }

static long make_pipe(const char *path) { return mkfifo(path, 0600); }

static long make_whiteout(const char *path) { return mknod(path, S_IFCHR | 0600, makedev(0, 0)); }

static long make_device(const char *path) { return mknod(path, S_IFCHR | 0600, makedev(1, 8)); }

static int make_file(const char *path) { return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644); }

static long leave_whiteout(const char *path) {
    char to[512];
    snprintf(to, sizeof to, "%s-moved", path);
    return make_file(path) < 0 ? -1 : syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, to, 4);
}

static long set_attribute(const char *path) {
    return make_file(path) < 0 ? -1 : syscall(SYS_setxattr, path, "user.overlay.opaque", "y", 1, 0);
}

static long set_id(const char *path) {
    int fd = make_file(path);
    return fd < 0 ? -1 : fchmod(fd, 04755);
}

static long set_id_newly(const char *path) {
    return make_file(path) < 0 ? -1 : syscall(FCHMODAT2, AT_FDCWD, path, 04755, 0);
}

static long set_id_at_birth(const char *path) { return open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 04755); }

static long become_root(const char *unused) {
    (void)unused;
    return setuid(0);
}

static long call_foreign(const char *unused) {
    (void)unused;
#ifdef __x86_64__
    long result = 20; // getpid of i386
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result;
#else
    errno = ENOSYS;
    return -1;
#endif
}

static long call_x32(const char *unused) {
    (void)unused;
    return syscall(X32_GETPID);
}

static long connect_host(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, sizeof address);
}

// "@NAME": abstract.
static long connect_local(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(address.sun_path, name, len < sizeof address.sun_path ? len : sizeof address.sun_path - 1);
    socklen_t address_len = sizeof address;
    if (*name == '@') {
        address.sun_path[0] = 0;
        address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, address_len);
}

// A datagram pair could be connected again.
static long reconnect_pair(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pair[2];
    strncpy(address.sun_path, name, sizeof address.sun_path - 1);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
        return -1;
    return sendto(pair[0], "x", 1, 0, (struct sockaddr *)&address, sizeof address);
}

static long open_family(const char *family) { return socket((int)strtol(family, NULL, 10), SOCK_RAW | SOCK_CLOEXEC, 0); }

static long use_rings(const char *unused) {
    (void)unused;
    unsigned char parameters[120] = {0};
    return syscall(SYS_io_uring_setup, 4, parameters);
}

static long handle_faults(const char *unused) {
    (void)unused;
    return syscall(SYS_userfaultfd, 1); // for faults of its own memory only, which needs no privilege
}

static long count_events(const char *unused) {
    (void)unused;
    struct {
        uint32_t type, size;
        uint64_t rest[16];
    } event = {1, 136, {0}}; // a software clock of this very process
    event.rest[4] = 1 << 5 | 1 << 6; // exclude kernel and hypervisor
    return syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
}

static long load_program(const char *unused) {
    (void)unused;
    unsigned char attributes[128] = {1}; // a map
    return syscall(SYS_bpf, 0, attributes, sizeof attributes);
}

static long keep_key(const char *unused) {
    (void)unused;
    return syscall(SYS_add_key, "user", "kiln-attack", "x", 1, KEY_SPEC_USER_KEYRING);
}

static long trace_init(const char *unused) {
    (void)unused;
    return ptrace(PTRACE_SEIZE, 1, NULL, NULL);
}

static long read_init(const char *unused) {
    (void)unused;
    char byte;
    struct iovec here = {&byte, 1}, there = {&byte, 1};
    long got = process_vm_readv(1, &here, 1, &there, 1, 0);
    return got < 0 && errno == EFAULT ? 0 : got; // allowed, and there is nothing at that place
}

static long type_ahead(const char *unused) {
    (void)unused;
    return ioctl(0, TIOCSTI, "x");
}

static long open_by_handle(const char *path) {
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = 128};
    int mount_id;
    return name_to_handle_at(AT_FDCWD, path, &handle.head, &mount_id, 0);
}

static long run_from_memory(const char *unused) {
    (void)unused;
    return memfd_create("x", 0);
}

static long run_copy(const char *path) {
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    char chunk[65536];
    for (ssize_t got; from >= 0 && (got = read(from, chunk, sizeof chunk)) > 0;)
        if (write(to, chunk, (size_t)got) != got)
            return -1;
    close(to);
    return access(path, X_OK); // what execve asks first
}

static long find_key(const char *description) {
    return syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", description, 0);
}

static long leave_segment(const char *key) {
    return shmget((key_t)strtol(key, NULL, 0), 4096, IPC_CREAT | IPC_EXCL | 0600);
}

static long be_predictable(const char *unused) {
    (void)unused;
    return personality(ADDR_NO_RANDOMIZE);
}

static long watch_filters(const char *unused) {
    (void)unused;
    uint32_t action = 0; // to kill
    return syscall(SYS_seccomp, 2, 0, &action); // is it available? No harm, but the call goes through
}

static long read_kernel_log(const char *unused) {
    (void)unused;
    return syscall(SYS_syslog, 10, NULL, 0); // size of the log
}

static long turn_swap_off(const char *path) { return swapoff(path); }

static long set_clock(const char *unused) {
    (void)unused;
    struct timeval now;
    return gettimeofday(&now, NULL) || settimeofday(&now, NULL) ? -1 : 0;
}

static long take_entropy(const char *unused) {
    (void)unused;
    char byte;
#ifdef __x86_64__ // the instruction itself: the observer would answer the C library's call with bytes of the job's own
    long result = SYS_getrandom;
    register long flags __asm__("rdx") = 0;
    __asm__ volatile("syscall" : "+a"(result) : "D"(&byte), "S"(1L), "r"(flags) : "rcx", "r11", "memory");
    errno = result < 0 ? (int)-result : 0;
    return result < 0 ? -1 : result;
#else
    return syscall(SYS_getrandom, &byte, 1, 0);
#endif
}

static long kill_others(const char *unused) { // of the same user
    (void)unused;
    DIR *proc = opendir("/proc");
    long others = 0;
    for (struct dirent *entry; proc && (entry = readdir(proc));)
        others += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (proc)
        closedir(proc);
    errno = ESRCH;
    return others > 16 ? 0 : -1;
}

// Bombs, in this very process: "won" when nothing kept it from so many.
static int bomb_forks(long most) {
    for (long made = 0; made < most; made++)
        if (fork() <= 0)
            for (;;)
                pause(); // the children, and this one when there are no more to be had
    say("won");
    return 0;
}

static int bomb_memory(long most) { // MiB
    for (long made = 0; made < most; made++) {
        char *room = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) {
            judge(-1);
            return 1;
        }
        memset(room, 1, 1 << 20);
    }
    say("won");
    return 0;
}

static int bomb_files(long most) {
    for (long made = 0; made < most; made++) {
        char name[40];
        snprintf(name, sizeof name, "/tmp/bomb-%ld", made);
        int fd = make_file(name);
        if (fd < 0) {
            judge(-1);
            return 1;
        }
        close(fd);
    }
    say("won");
    return 0;
}

static int bomb_text(long most) { // KiB, on standard error
    char chunk[1024];
    memset(chunk, 'x', sizeof chunk);
    for (long made = 0; made < most; made++)
        if (write(STDERR_FILENO, chunk, sizeof chunk) < 0)
            return 1;
    say("won");
    return 0;
}

static int bomb_size(long most) { // GiB
    int fd = make_file("/tmp/bomb");
    judge(fd < 0 ? -1 : ftruncate(fd, (off_t)most << 30));
    return 0;
}

static int spin(long seconds) {
    time_t end = time(NULL) + seconds;
    while (time(NULL) < end)
        ;
    say("won");
    return 0;
}

static int stop(long times) {
    for (long done = 0; done < times; done++)
        raise(SIGSTOP);
    say("won");
    return 0;
}

static const struct {
    const char *name;
    int (*run)(long most);
} bombs[] = {{"bomb-forks", bomb_forks}, {"bomb-memory", bomb_memory}, {"bomb-files", bomb_files}, {"bomb-text", bomb_text},
             {"bomb-size", bomb_size},   {"spin", spin},               {"stop", stop}};

static const struct {
    const char *name;
    void (*here)(const char *argument);
    long (*child)(const char *argument);
} deeds[] = {
    {"plant", plant, NULL},
    {"overwrite", overwrite, NULL},
    {"peek", peek, NULL},
    {"descriptors", scan_descriptors, NULL},
    {"cut-output", cut_output, NULL},
    {"new-user", NULL, new_user},
    {"clone-user", NULL, clone_user},
    {"clone3-user", NULL, clone3_user},
    {"new-mounts", NULL, new_mounts},
    {"open-mount", NULL, open_mount},
    {"enter", NULL, enter_init},
    {"change-root", NULL, change_root},
    {"pipe", NULL, make_pipe},
    {"whiteout", NULL, make_whiteout},
    {"device", NULL, make_device},
    {"leave-whiteout", NULL, leave_whiteout},
    {"attribute", NULL, set_attribute},
    {"set-id", NULL, set_id},
    {"set-id-newly", NULL, set_id_newly},
    {"set-id-at-birth", NULL, set_id_at_birth},
    {"become-root", NULL, become_root},
    {"foreign", NULL, call_foreign},
    {"x32", NULL, call_x32},
    {"connect", NULL, connect_host},
    {"local", NULL, connect_local},
    {"reconnect", NULL, reconnect_pair},
    {"family", NULL, open_family},
    {"rings", NULL, use_rings},
    {"faults", NULL, handle_faults},
    {"events", NULL, count_events},
    {"program", NULL, load_program},
    {"key", NULL, keep_key},
    {"trace", NULL, trace_init},
    {"read-init", NULL, read_init},
    {"type-ahead", NULL, type_ahead},
    {"handle", NULL, open_by_handle},
    {"from-memory", NULL, run_from_memory},
    {"run-copy", NULL, run_copy},
    {"find-key", NULL, find_key},
    {"segment", NULL, leave_segment},
    {"predictable", NULL, be_predictable},
    {"filters", NULL, watch_filters},
    {"kernel-log", NULL, read_kernel_log},
    {"swap", NULL, turn_swap_off},
    {"clock", NULL, set_clock},
    {"entropy", NULL, take_entropy},
    {"others", NULL, kill_others},
};

int kiln_attack(const char *name, const char *argument) {
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++)
        if (!strcmp(deeds[i].name, name)) {
            if (deeds[i].here)
                deeds[i].here(argument);
            else
                in_child(deeds[i].child, argument);
            return 0;
        }
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++)
        if (!strcmp(bombs[i].name, name))
            return bombs[i].run(strtol(argument, NULL, 10));
    return 98;
}
