// The job of test_run_watch.c, linked once as usual and once statically: makes system calls by itself, without libc, by what its
// argument says. Prints what they gave.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const unsigned char code[] = {
    0x48, 0x89, 0xf8,             // mov rax, rdi: the number, then the arguments one place down
    0x48, 0x89, 0xf7,             // mov rdi, rsi
    0x48, 0x89, 0xd6,             // mov rsi, rdx
    0x48, 0x89, 0xca,             // mov rdx, rcx
    0x4d, 0x89, 0xc2,             // mov r10, r8
    0x0f, 0x05, 0xc3,             // syscall; ret
};

__attribute__((noinline)) static long raw(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#define RAW(number, a, b, c, d) raw(number, (long)(a), (long)(b), (long)(c), (long)(d))

static void say(long result) { printf("%s\n", result < 0 ? strerrorname_np((int)-result) : "ok"); }

static void paths(void) {
    struct stat st;
    char text[64];
    say(RAW(SYS_open, "/usr/bin/env", O_RDONLY, 0, 0));
    say(RAW(SYS_open, "absent", O_RDONLY, 0, 0));
    long dir = RAW(SYS_openat, AT_FDCWD, "/usr", O_RDONLY | O_DIRECTORY, 0);
    say(RAW(SYS_openat, dir, "lib", O_RDONLY | O_PATH, 0));
    say(RAW(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &st, 0));
    say(RAW(SYS_readlink, "/lib", text, sizeof text, 0));
    say(RAW(SYS_getdents64, dir, text, sizeof text, 0) > 0 ? 0 : -1);
    say(RAW(SYS_access, 0, 0, 0, 0));          // how a program asks whether a call exists
    say(RAW(SYS_access, 0x600000000000, 0, 0, 0)); // unreadable
    say(RAW(SYS_openat, AT_FDCWD, "/tmp/made", O_WRONLY | O_CREAT, 0600));
    say(RAW(SYS_unlink, "/tmp/made", 0, 0, 0));
}

static void names(void) {
    struct timespec now;
    struct utsname name;
    say(RAW(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0, 0));
    say(RAW(SYS_clock_gettime, CLOCK_REALTIME, &now, 0, 0));
    say(RAW(SYS_uname, &name, 0, 0, 0));
    say(RAW(SYS_getpid, 0, 0, 0, 0));
    say(RAW(SYS_personality, 0xffffffff, 0, 0, 0));
}

static void refused(void) {
    say(RAW(SYS_socket, AF_INET, SOCK_STREAM, 0, 0));
    say(RAW(SYS_connect, 0, 0, 0, 0));
    say(RAW(SYS_getxattr, "/usr", "user.x", 0, 0));
    say(RAW(SYS_openat2, AT_FDCWD, "/usr/lib", 0, 0));
    say(RAW(SYS_unshare, 0x10000000, 0, 0, 0)); // by the kernel: seen by nobody
    say(RAW(SYS_seccomp, 0, 0, 0, 0));
}

static void libc(void) {
    struct stat st;
    printf("%d\n", open("/etc/libc", O_RDONLY));
    printf("%d\n", stat("/etc/libc2", &st));
    printf("%d\n", gethostname((char[64]){0}, 64));
}

static void memory(void) {
    long (*call)(long, long, long, long, long);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    printf("%d\n", mprotect(page, 4096, PROT_READ | PROT_EXEC));
    memcpy(&call, &page, sizeof call);
    say(call(SYS_open, (long)"/etc/from-memory", O_RDONLY, 0, 0));
}

static void child(void) {
    static char *const argv[] = {(char *)"watched", (char *)"libc", NULL};
    static char *const envp[] = {NULL};
    fflush(stdout);
    long pid = RAW(SYS_fork, 0, 0, 0, 0);
    if (pid == 0) {
        RAW(SYS_execve, "/watched-static", argv, envp, 0);
        RAW(SYS_exit_group, 1, 0, 0, 0);
    }
    int status = 0;
    RAW(SYS_wait4, pid, &status, 0, 0);
    printf("%d\n", WEXITSTATUS(status));
}

static void many(void) {
    char path[4096];
    for (int i = 0; i < 3000; i++) {
        snprintf(path, sizeof path, "/absent/%04d/%03000d", i, 0);
        RAW(SYS_access, path, 0, 0, 0);
    }
}

// So many at once that one of them always waits for an answer.
static void endless(void) {
    for (int i = 0; i < 4; i++)
        RAW(SYS_fork, 0, 0, 0, 0);
    for (;;)
        RAW(SYS_access, "/usr", 0, 0, 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} groups[] = {{"paths", paths}, {"names", names}, {"refused", refused}, {"libc", libc},
              {"memory", memory}, {"child", child}, {"many", many}, {"endless", endless}};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 2 && i < sizeof groups / sizeof *groups; i++)
        if (!strcmp(argv[1], groups[i].name)) {
            groups[i].run();
            return 0;
        }
    return 2;
}
