#include "consumer/preload/asking.h"

#include <stddef.h>
#include <sys/syscall.h>

#define PATH_1(call, what) {SYS_##call, KILN_ASKING_FIRST, KILN_OBSERVE_##what, NULL}
#define PATH_2(call, what) {SYS_##call, KILN_ASKING_SECOND, KILN_OBSERVE_##what, NULL}
#define LISTED(call) {SYS_##call, KILN_ASKING_LISTED, KILN_OBSERVE_LIST, NULL}
#define NAMED(call, what) {SYS_##call, KILN_ASKING_NAMED, KILN_OBSERVE_##what, #call}
#define HARMLESS(call) {SYS_##call, KILN_ASKING_HARMLESS, 0, NULL}

// Changes with two paths are recorded by their first.
const struct kiln_asking kiln_askings[] = {
    {SYS_open, KILN_ASKING_OPEN, KILN_OBSERVE_OPEN, NULL},
    {SYS_openat, KILN_ASKING_OPENAT, KILN_OBSERVE_OPEN, NULL},
    {SYS_clock_gettime, KILN_ASKING_CLOCK, KILN_OBSERVE_CLOCK, "clock_gettime"},
    PATH_1(stat, STAT), PATH_1(lstat, STAT), PATH_1(access, STAT), PATH_1(readlink, STAT), PATH_1(statfs, STAT),
    PATH_1(chdir, STAT), PATH_1(getxattr, STAT), PATH_1(lgetxattr, STAT), PATH_2(newfstatat, STAT),
    PATH_2(statx, STAT), PATH_2(faccessat, STAT), PATH_2(faccessat2, STAT), PATH_2(readlinkat, STAT),
    PATH_1(execve, EXEC), PATH_2(execveat, EXEC), LISTED(getdents), LISTED(getdents64), PATH_1(creat, WRITE),
    PATH_1(mkdir, WRITE), PATH_1(rmdir, WRITE), PATH_1(unlink, WRITE), PATH_1(rename, WRITE), PATH_1(truncate, WRITE),
    PATH_1(chmod, WRITE), PATH_2(mkdirat, WRITE), PATH_2(unlinkat, WRITE), PATH_2(renameat, WRITE),
    PATH_2(renameat2, WRITE), PATH_2(fchmodat, WRITE), PATH_2(utimensat, WRITE), NAMED(gettimeofday, CLOCK),
    NAMED(time, CLOCK), NAMED(socket, NET), NAMED(connect, NET), NAMED(getcwd, IDENTITY), NAMED(uname, IDENTITY),
    NAMED(sysinfo, IDENTITY), NAMED(getuid, IDENTITY), NAMED(geteuid, IDENTITY), NAMED(getgid, IDENTITY),
    NAMED(getegid, IDENTITY), NAMED(sched_getaffinity, IDENTITY), PATH_1(chown, WRITE), PATH_1(lchown, WRITE),
    PATH_1(utime, WRITE), PATH_1(utimes, WRITE), PATH_2(futimesat, WRITE), PATH_2(fchownat, WRITE),
    PATH_1(listxattr, STAT), PATH_1(llistxattr, STAT),
    PATH_2(openat2, OPEN), NAMED(getresuid, IDENTITY), NAMED(getresgid, IDENTITY), NAMED(getgroups, IDENTITY),
    HARMLESS(gettid), NAMED(getpid, IDENTITY), HARMLESS(getppid), HARMLESS(read), HARMLESS(write), HARMLESS(readv),
    HARMLESS(writev), HARMLESS(pread64), HARMLESS(pwrite64), HARMLESS(close), HARMLESS(close_range), HARMLESS(fstat),
    HARMLESS(lseek), HARMLESS(fcntl), HARMLESS(dup), HARMLESS(dup2), HARMLESS(dup3), HARMLESS(pipe), HARMLESS(pipe2),
    HARMLESS(poll), HARMLESS(ppoll), HARMLESS(mmap), HARMLESS(munmap), HARMLESS(mremap), HARMLESS(mprotect),
    HARMLESS(madvise), HARMLESS(brk), HARMLESS(membarrier), HARMLESS(rseq), HARMLESS(sched_yield),
    HARMLESS(nanosleep), HARMLESS(clock_nanosleep), HARMLESS(getcpu), HARMLESS(rt_sigaction),
    HARMLESS(rt_sigprocmask), HARMLESS(sigaltstack), HARMLESS(tgkill), HARMLESS(tkill), HARMLESS(kill),
    HARMLESS(exit), HARMLESS(exit_group), HARMLESS(wait4), HARMLESS(waitid), HARMLESS(copy_file_range),
    HARMLESS(memfd_create), HARMLESS(eventfd2), HARMLESS(epoll_create1), HARMLESS(epoll_ctl), HARMLESS(epoll_wait),
    HARMLESS(epoll_pwait), HARMLESS(pidfd_open), HARMLESS(clone), HARMLESS(clone3), HARMLESS(fork), HARMLESS(prctl),
    HARMLESS(ftruncate), HARMLESS(fsync), HARMLESS(fdatasync), HARMLESS(flock), HARMLESS(fallocate), HARMLESS(preadv),
    HARMLESS(pwritev), HARMLESS(select), HARMLESS(pselect6), HARMLESS(epoll_create), HARMLESS(eventfd),
    HARMLESS(fadvise64), HARMLESS(fchdir), HARMLESS(mincore), HARMLESS(msync), HARMLESS(futex),
    HARMLESS(set_tid_address), HARMLESS(set_robust_list), HARMLESS(sched_getparam), HARMLESS(sched_getscheduler),
    HARMLESS(sched_get_priority_max), HARMLESS(sched_get_priority_min), HARMLESS(sched_setaffinity),
    HARMLESS(rt_sigreturn), HARMLESS(rt_sigpending), HARMLESS(rt_sigsuspend), HARMLESS(rt_sigtimedwait),
    HARMLESS(pause), HARMLESS(alarm), HARMLESS(setitimer), HARMLESS(getitimer), HARMLESS(restart_syscall),
    HARMLESS(clock_getres), HARMLESS(getpgrp), HARMLESS(getpgid), HARMLESS(setpgid), HARMLESS(getsid),
    HARMLESS(setsid), HARMLESS(getrlimit), HARMLESS(setrlimit), HARMLESS(prlimit64), HARMLESS(getpriority),
    HARMLESS(arch_prctl), HARMLESS(ioctl), HARMLESS(socketpair), HARMLESS(recvfrom), HARMLESS(recvmsg),
    HARMLESS(sendmsg), HARMLESS(sendto), HARMLESS(shutdown), HARMLESS(getsockopt), HARMLESS(getsockname),
    HARMLESS(getpeername), HARMLESS(vfork), HARMLESS(umask), HARMLESS(fstatfs), HARMLESS(fchmod), HARMLESS(fchown),
    HARMLESS(getrandom),
};
const unsigned kiln_askings_count = sizeof kiln_askings / sizeof *kiln_askings;

const struct kiln_asking *kiln_asking_find(long number) {
    for (unsigned i = 0; i < kiln_askings_count; i++)
        if (kiln_askings[i].number == number)
            return &kiln_askings[i];
    return NULL;
}
