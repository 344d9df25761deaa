// syscall(): the libc function that makes any system call by number. Instructions in the caller's own code are not seen
// here: lib/macro/macro_object.c looks for those.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "consumer/preload/observer.h"

// Where a call's path is: in the first argument, or in the second behind a directory's descriptor.
enum shape { FIRST, SECOND, LISTED, NAMED, HARMLESS };

struct known {
    short number;
    unsigned char shape, kind;
    const char *name; // NAMED: what is recorded
};

// Changes and exec with two paths are recorded by their first.
static const struct known table[] = {
    {SYS_stat, FIRST, KILN_OBSERVE_STAT, 0},         {SYS_lstat, FIRST, KILN_OBSERVE_STAT, 0},
    {SYS_access, FIRST, KILN_OBSERVE_STAT, 0},       {SYS_readlink, FIRST, KILN_OBSERVE_STAT, 0},
    {SYS_statfs, FIRST, KILN_OBSERVE_STAT, 0},       {SYS_chdir, FIRST, KILN_OBSERVE_STAT, 0},
    {SYS_getxattr, FIRST, KILN_OBSERVE_STAT, 0},     {SYS_lgetxattr, FIRST, KILN_OBSERVE_STAT, 0},
    {SYS_newfstatat, SECOND, KILN_OBSERVE_STAT, 0},  {SYS_statx, SECOND, KILN_OBSERVE_STAT, 0},
    {SYS_faccessat, SECOND, KILN_OBSERVE_STAT, 0},   {SYS_faccessat2, SECOND, KILN_OBSERVE_STAT, 0},
    {SYS_readlinkat, SECOND, KILN_OBSERVE_STAT, 0},  {SYS_execve, FIRST, KILN_OBSERVE_EXEC, 0},
    {SYS_execveat, SECOND, KILN_OBSERVE_EXEC, 0},    {SYS_getdents, LISTED, KILN_OBSERVE_LIST, 0},
    {SYS_getdents64, LISTED, KILN_OBSERVE_LIST, 0},  {SYS_creat, FIRST, KILN_OBSERVE_WRITE, 0},
    {SYS_mkdir, FIRST, KILN_OBSERVE_WRITE, 0},       {SYS_rmdir, FIRST, KILN_OBSERVE_WRITE, 0},
    {SYS_unlink, FIRST, KILN_OBSERVE_WRITE, 0},      {SYS_rename, FIRST, KILN_OBSERVE_WRITE, 0},
    {SYS_truncate, FIRST, KILN_OBSERVE_WRITE, 0},    {SYS_chmod, FIRST, KILN_OBSERVE_WRITE, 0},
    {SYS_mkdirat, SECOND, KILN_OBSERVE_WRITE, 0},    {SYS_unlinkat, SECOND, KILN_OBSERVE_WRITE, 0},
    {SYS_renameat, SECOND, KILN_OBSERVE_WRITE, 0},   {SYS_renameat2, SECOND, KILN_OBSERVE_WRITE, 0},
    {SYS_fchmodat, SECOND, KILN_OBSERVE_WRITE, 0},   {SYS_utimensat, SECOND, KILN_OBSERVE_WRITE, 0},
    {SYS_gettimeofday, NAMED, KILN_OBSERVE_CLOCK, "gettimeofday"},
    {SYS_time, NAMED, KILN_OBSERVE_CLOCK, "time"},
    {SYS_socket, NAMED, KILN_OBSERVE_NET, "socket"},
    {SYS_connect, NAMED, KILN_OBSERVE_NET, "connect"},
    {SYS_getcwd, NAMED, KILN_OBSERVE_IDENTITY, "getcwd"},
    {SYS_uname, NAMED, KILN_OBSERVE_IDENTITY, "uname"},
    {SYS_sysinfo, NAMED, KILN_OBSERVE_IDENTITY, "sysinfo"},
    {SYS_getuid, NAMED, KILN_OBSERVE_IDENTITY, "getuid"},
    {SYS_geteuid, NAMED, KILN_OBSERVE_IDENTITY, "geteuid"},
    {SYS_getgid, NAMED, KILN_OBSERVE_IDENTITY, "getgid"},
    {SYS_getegid, NAMED, KILN_OBSERVE_IDENTITY, "getegid"},
    {SYS_sched_getaffinity, NAMED, KILN_OBSERVE_IDENTITY, "sched_getaffinity"},
    {SYS_gettid, HARMLESS, 0, 0},         {SYS_getpid, HARMLESS, 0, 0},         {SYS_getppid, HARMLESS, 0, 0},
    {SYS_read, HARMLESS, 0, 0},           {SYS_write, HARMLESS, 0, 0},          {SYS_readv, HARMLESS, 0, 0},
    {SYS_writev, HARMLESS, 0, 0},         {SYS_pread64, HARMLESS, 0, 0},        {SYS_pwrite64, HARMLESS, 0, 0},
    {SYS_close, HARMLESS, 0, 0},          {SYS_close_range, HARMLESS, 0, 0},    {SYS_fstat, HARMLESS, 0, 0},
    {SYS_lseek, HARMLESS, 0, 0},          {SYS_fcntl, HARMLESS, 0, 0},          {SYS_dup, HARMLESS, 0, 0},
    {SYS_dup2, HARMLESS, 0, 0},           {SYS_dup3, HARMLESS, 0, 0},           {SYS_pipe, HARMLESS, 0, 0},
    {SYS_pipe2, HARMLESS, 0, 0},          {SYS_poll, HARMLESS, 0, 0},           {SYS_ppoll, HARMLESS, 0, 0},
    {SYS_mmap, HARMLESS, 0, 0},           {SYS_munmap, HARMLESS, 0, 0},         {SYS_mremap, HARMLESS, 0, 0},
    {SYS_mprotect, HARMLESS, 0, 0},       {SYS_madvise, HARMLESS, 0, 0},        {SYS_brk, HARMLESS, 0, 0},
    {SYS_membarrier, HARMLESS, 0, 0},     {SYS_rseq, HARMLESS, 0, 0},           {SYS_sched_yield, HARMLESS, 0, 0},
    {SYS_nanosleep, HARMLESS, 0, 0},      {SYS_clock_nanosleep, HARMLESS, 0, 0}, {SYS_getcpu, HARMLESS, 0, 0},
    {SYS_rt_sigaction, HARMLESS, 0, 0},   {SYS_rt_sigprocmask, HARMLESS, 0, 0}, {SYS_sigaltstack, HARMLESS, 0, 0},
    {SYS_tgkill, HARMLESS, 0, 0},         {SYS_tkill, HARMLESS, 0, 0},          {SYS_kill, HARMLESS, 0, 0},
    {SYS_exit, HARMLESS, 0, 0},           {SYS_exit_group, HARMLESS, 0, 0},     {SYS_wait4, HARMLESS, 0, 0},
    {SYS_waitid, HARMLESS, 0, 0},         {SYS_copy_file_range, HARMLESS, 0, 0}, {SYS_memfd_create, HARMLESS, 0, 0},
    {SYS_eventfd2, HARMLESS, 0, 0},       {SYS_epoll_create1, HARMLESS, 0, 0},  {SYS_epoll_ctl, HARMLESS, 0, 0},
    {SYS_epoll_wait, HARMLESS, 0, 0},     {SYS_epoll_pwait, HARMLESS, 0, 0},    {SYS_pidfd_open, HARMLESS, 0, 0},
    {SYS_clone, HARMLESS, 0, 0},          {SYS_clone3, HARMLESS, 0, 0},         {SYS_fork, HARMLESS, 0, 0},
    {SYS_prctl, HARMLESS, 0, 0},          {SYS_ftruncate, HARMLESS, 0, 0},      {SYS_fsync, HARMLESS, 0, 0},
    {SYS_fdatasync, HARMLESS, 0, 0},      {SYS_flock, HARMLESS, 0, 0},          {SYS_fallocate, HARMLESS, 0, 0},
};

static const struct known *find_known(long number) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].number == number)
            return &table[i];
    return NULL;
}

static void note_number(const void *caller, long number) {
    char text[24], *digit = text + sizeof text;
    unsigned long rest = (unsigned long)number;
    *--digit = 0;
    do
        *--digit = (char)('0' + rest % 10);
    while (rest /= 10);
    kiln_note_text(KILN_OBSERVE_SYSCALL, caller, digit);
}

static void note_call(const void *caller, long number, const long args[6], long rc) {
    if (number == SYS_open) {
        kiln_note_open(caller, AT_FDCWD, (const char *)args[0], (int)args[1], rc);
        return;
    }
    if (number == SYS_openat) {
        kiln_note_open(caller, (int)args[0], (const char *)args[1], (int)args[2], rc);
        return;
    }
    if (number == SYS_clock_gettime) {
        if (args[0] == CLOCK_REALTIME || args[0] == CLOCK_REALTIME_COARSE || args[0] == CLOCK_TAI)
            kiln_note_text(KILN_OBSERVE_CLOCK, caller, "clock_gettime");
        return;
    }
    const struct known *known = find_known(number);
    if (!known)
        note_number(caller, number);
    else if (known->shape == FIRST)
        kiln_note_path((enum kiln_observe_kind)known->kind, caller, AT_FDCWD, (const char *)args[0], rc);
    else if (known->shape == SECOND)
        kiln_note_path((enum kiln_observe_kind)known->kind, caller, (int)args[0], (const char *)args[1], rc);
    else if (known->shape == LISTED)
        kiln_note_listed(caller, (int)args[0], rc);
    else if (known->shape == NAMED)
        kiln_note_text((enum kiln_observe_kind)known->kind, caller, known->name);
}

static bool runs_program(long number) { return number == SYS_execve || number == SYS_execveat; }

// The kernel's answer as libc gives it.
static long deliver(long rc) {
    if (rc > -4096 && rc < 0) {
        errno = (int)-rc;
        return -1;
    }
    return rc;
}

OBSERVED long syscall(long number, ...) {
    long args[6];
    va_list list;
    va_start(list, number);
    for (size_t i = 0; i < 6; i++)
        args[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getrandom && args[2] >= 0 && args[2] <= 7 &&
        kiln_seed_draw(CALLER, (void *)args[0], (size_t)args[1]))
        return args[1];
    if (runs_program(number))
        note_call(CALLER, number, args, 0);
    long rc = deliver(kiln_raw_call(number, args[0], args[1], args[2], args[3], args[4], args[5]));
    if (number != SYS_futex && number != SYS_getrandom && !runs_program(number)) {
        int saved = errno;
        note_call(CALLER, number, args, rc);
        errno = saved;
    }
    return rc;
}
