// The program that the sandbox tests run as their job: `sandbox_job NAME [ARGUMENT...]`, one small deed each, what
// happened on stdout. Built without sanitizers, since those need more address space than a job may have.
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int say(int result) {
    printf("%s\n", result < 0 ? strerrorname_np(errno) : "ok");
    return 0;
}

static int hello(char **args) {
    (void)args;
    puts("hello");
    fputs("oops\n", stderr);
    return 0;
}

static int exit_with(char **args) { return atoi(args[0]); }

static int die_by(char **args) {
    raise(atoi(args[0]));
    return 0;
}

static int print_env(char **args) {
    (void)args;
    for (char **at = environ; *at; at++)
        puts(*at);
    return 0;
}

static int cat(char **args) {
    int fd = open(args[0], O_RDONLY);
    if (fd < 0)
        return say(-1);
    char chunk[4096];
    for (ssize_t got; (got = read(fd, chunk, sizeof chunk)) > 0;)
        if (write(1, chunk, (size_t)got) != got)
            return 1;
    return 0;
}

static int create(char **args) { return say(open(args[0], O_WRONLY | O_CREAT, 0644)); }

static int change(char **args) { return say(open(args[0], O_WRONLY)); }

static int put(char **args) {
    int fd = open(args[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    return say(fd < 0 || write(fd, args[1], strlen(args[1])) != (ssize_t)strlen(args[1]) ? -1 : 0);
}

static int list(char **args) {
    struct dirent **entries;
    int count = scandir(args[0], &entries, NULL, alphasort);
    if (count < 0)
        return say(-1);
    for (int i = 0; i < count; i++)
        if (entries[i]->d_name[0] != '.')
            puts(entries[i]->d_name);
    return 0;
}

static int identity(char **args) {
    (void)args;
    struct utsname uts;
    uname(&uts);
    char cwd[4096];
    printf("%u %u %s %s %d\n", getuid(), getgid(), uts.nodename, getcwd(cwd, sizeof cwd), getsid(0) != 0);
    return 0;
}

static int open_fds(char **args) {
    (void)args;
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d\n", fd);
    return 0;
}

static int connect_to(char **args) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[1]))};
    inet_pton(AF_INET, args[0], &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return say(fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, sizeof address));
}

static int connect_abstract(char **args) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, args[0], sizeof address.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(args[0]));
    return say(connect(fd, (struct sockaddr *)&address, len));
}

static int fork_bomb(char **args) {
    (void)args;
    long made = 0;
    for (;;) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0)
            for (;;)
                pause();
        made++;
    }
    printf("%ld\n", made);
    fflush(stdout);
    return pause();
}

static int memory_bomb(char **args) {
    (void)args;
    for (size_t step = 16u << 20;;) {
        char *room = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED)
            return say(-1);
        memset(room, 1, step);
    }
}

static int flood(char **args) {
    char chunk[65536];
    memset(chunk, 'x', sizeof chunk);
    for (int fd = atoi(args[0]);;)
        if (write(fd, chunk, sizeof chunk) < 0)
            return 1;
}

static int spin(char **args) {
    (void)args;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    while (getppid() >= 0)
        ;
    return 0;
}

// Leaves a process behind that never stops appending to a file.
static int leave_daemon(char **args) {
    if (fork())
        return 0;
    setsid();
    if (fork())
        _exit(0);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    for (int fd = open(args[0], O_WRONLY | O_CREAT | O_APPEND, 0644);;)
        if (write(fd, "x", 1) < 0)
            ftruncate(fd, 0);
}

static int fill(char **args) {
    int fd = open(args[0], O_WRONLY | O_CREAT, 0644);
    static char chunk[1 << 20];
    unsigned long long total = 0;
    ssize_t got;
    while ((got = write(fd, chunk, sizeof chunk)) > 0)
        total += (unsigned long long)got;
    printf("%s %llu\n", strerrorname_np(errno), total);
    return 0;
}

static int fill_inodes(char **args) {
    for (long made = 0;; made++) {
        char name[512];
        snprintf(name, sizeof name, "%s/%ld", args[0], made);
        int fd = open(name, O_WRONLY | O_CREAT, 0644);
        if (fd < 0) {
            printf("%s %ld\n", strerrorname_np(errno), made);
            return 0;
        }
        close(fd);
    }
}

static int sparse(char **args) {
    int fd = open(args[0], O_WRONLY | O_CREAT, 0644);
    return say(ftruncate(fd, 1ll << 40));
}

static int climb(char **args) {
    static const int flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        say(unshare(flags[i]));
    say(mount("none", args[0], "tmpfs", 0, NULL));
    say(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    say(umount2("/proc", MNT_DETACH));
    say(chroot(args[0]));
    say(setuid(0));
    say(sethostname("other", 5));
    char device[512];
    snprintf(device, sizeof device, "%s/device", args[0]);
    say(mknod(device, S_IFCHR | 0600, makedev(1, 8)));
    say(mknod("/device", S_IFCHR | 0600, makedev(0, 0)));
    return 0;
}

static int trace_init(char **args) {
    (void)args;
    say((int)ptrace(PTRACE_ATTACH, 1, NULL, NULL));
    return say(open("/proc/1/mem", O_RDWR));
}

static int find_key(char **args) {
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", args[0], 0);
    return say(key < 0 ? -1 : 0);
}

static int print_limits(char **args) {
    (void)args;
    static const int resources[] = {RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_STACK};
    for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
        struct rlimit limit;
        getrlimit((__rlimit_resource_t)resources[i], &limit);
        printf("%llu\n", (unsigned long long)limit.rlim_cur);
    }
    return 0;
}

static int print_scheduling(char **args) {
    (void)args;
    printf("%d\n", sched_getscheduler(0));
    return 0;
}

static int leave_segment(char **args) {
    return say(shmget((key_t)strtol(args[0], NULL, 0), 4096, IPC_CREAT | IPC_EXCL | 0600));
}

static int kill_all(char **args) {
    (void)args;
    kill(-1, SIGKILL);
    puts("alive");
    return 0;
}

static int run_program(char **args) {
    if (fork() == 0) {
        execv(args[0], args);
        _exit(99);
    }
    int status;
    wait(&status);
    return WEXITSTATUS(status);
}

static int set_id(char **args) {
    int fd = open(args[0], O_WRONLY | O_CREAT, 0755);
    return say(fd < 0 ? -1 : fchmod(fd, 04755));
}

// A map that is written through the null device, as `> /dev/null` does.
static int use_devices(char **args) {
    (void)args;
    char zero[4] = "abc";
    int null = open("/dev/null", O_RDWR);
    say(null < 0 ? -1 : (int)write(null, "x", 1));
    int fd = open("/dev/zero", O_RDONLY);
    say(fd < 0 || read(fd, zero, 4) != 4 || memcmp(zero, "\0\0\0", 4) ? -1 : 0);
    return 0;
}

static const struct deed {
    const char *name;
    int (*run)(char **args);
} deeds[] = {
    {"hello", hello},         {"exit", exit_with},      {"die", die_by},          {"env", print_env},
    {"cat", cat},             {"create", create},       {"change", change},       {"put", put},
    {"list", list},           {"identity", identity},   {"fds", open_fds},        {"connect", connect_to},
    {"abstract", connect_abstract}, {"fork-bomb", fork_bomb}, {"memory-bomb", memory_bomb}, {"flood", flood},
    {"spin", spin},           {"daemon", leave_daemon}, {"fill", fill},           {"fill-inodes", fill_inodes},
    {"sparse", sparse},       {"climb", climb},         {"trace-init", trace_init}, {"find-key", find_key},
    {"limits", print_limits}, {"segment", leave_segment}, {"kill-all", kill_all}, {"run", run_program},
    {"set-id", set_id},       {"devices", use_devices}, {"scheduling", print_scheduling},
};

int main(int argc, char **argv) {
    static char *none[8];
    memcpy(none, argv + 2, (size_t)(argc > 2 ? argc - 2 > 7 ? 7 : argc - 2 : 0) * sizeof *none);
    for (size_t i = 0; argc > 1 && i < sizeof deeds / sizeof *deeds; i++)
        if (!strcmp(deeds[i].name, argv[1]))
            return deeds[i].run(none);
    return 98;
}
