#include "consumer/policy/calls.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define POINTER ((uint64_t)INT64_MAX) // those of programs lie in the lower half
#define INT 0xffffffffu // where the kernel takes an int, what stands above it says nothing
#define NAMESPACES ((uint64_t)(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
                               CLONE_NEWNET))
#define SET_ID ((uint64_t)(S_ISUID | S_ISGID))
#define WHITEOUT 4u                // RENAME_WHITEOUT of linux/fs.h, which does not go together with sys/mount.h
#define TERMINAL_GET_2 0x802c542au // TCGETS2 of asm/termbits.h, which does not go together with termios.h

static const struct kiln_call_test no_namespace[] = {{0, NAMESPACES, 0}};
static const struct kiln_call_test no_set_id_1[] = {{1, SET_ID, 0}};
static const struct kiln_call_test no_set_id_2[] = {{2, SET_ID, 0}};
static const struct kiln_call_test no_set_id_3[] = {{3, SET_ID, 0}};
static const struct kiln_call_test no_whiteout[] = {{4, WHITEOUT, 0}};
static const struct kiln_call_test local_pair[] = {{0, INT, AF_UNIX}};
static const struct kiln_call_test no_address[] = {{4, POINTER, 0}};
static const struct kiln_call_test harmless_ioctls[] = {
    {1, INT, TCGETS}, {1, INT, TERMINAL_GET_2}, {1, INT, TIOCGWINSZ}, {1, INT, FIONREAD},
    {1, INT, FIONBIO}, {1, INT, FIOCLEX}, {1, INT, FIONCLEX},
};
static const struct kiln_call_test harmless_prctls[] = {
    {0, INT, PR_SET_NAME},     {0, INT, PR_GET_NAME},         {0, INT, PR_SET_PDEATHSIG}, {0, INT, PR_GET_PDEATHSIG},
    {0, INT, PR_SET_DUMPABLE}, {0, INT, PR_GET_DUMPABLE},     {0, INT, PR_CAPBSET_READ},  {0, INT, PR_SET_NO_NEW_PRIVS},
    {0, INT, PR_GET_NO_NEW_PRIVS},
};
static const struct kiln_call_test own_personality[] = {{0, INT, PER_LINUX}, {0, INT, 0xffffffffu}};
#ifdef ARCH_SET_FS
static const struct kiln_call_test thread_pointer[] = {{0, INT, ARCH_SET_FS}, {0, INT, ARCH_GET_FS}};
#endif

#define ALWAYS(names, by, reason) {.calls = names, .condition = "", .needed_by = by, .why = reason}
#define WHEN(names, which, words, by, reason) \
    {.calls = names, .tests = which, .tests_count = sizeof which / sizeof *which, .condition = words, .needed_by = by, .why = reason}
#define NEVER(names, answer, reason) {.calls = names, .refusal = answer, .condition = "", .needed_by = "", .why = reason}

const struct kiln_call_rule kiln_calls[] = {
    ALWAYS("read write readv writev pread64 pwrite64 preadv pwritev lseek", "every program",
           "reading and writing what is open"),
    ALWAYS("close close_range dup dup2 dup3 fcntl flock", "every program", "descriptors; rustc locks its incremental directory"),
    ALWAYS("pipe pipe2 poll ppoll select pselect6", "rustc, cc, macros", "pipes to linkers and other children"),
    ALWAYS("epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd eventfd2", "rustc (jobserver), macros",
           "waiting for several things; async runtimes"),
    ALWAYS("copy_file_range fadvise64", "rustc, macros", "std::fs::copy; std::io::copy does without sendfile and splice"),
    WHEN("creat", no_set_id_1, "no setuid or setgid bit in the mode", "macros", "opening files"),
    WHEN("open", no_set_id_2, "no setuid or setgid bit in the mode", "rustc, ld", "opening files"),
    WHEN("openat", no_set_id_3, "no setuid or setgid bit in the mode", "every program", "opening files"),
    ALWAYS("stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat", "every program",
           "looking at files"),
    ALWAYS("getcwd chdir fchdir getdents getdents64", "rustc, cc, ld, macros", "directories"),
    ALWAYS("mkdir mkdirat rmdir unlink unlinkat link linkat symlink symlinkat rename renameat", "rustc, cc, rust-lld",
           "making and moving files; a name says nothing about what is collected"),
    WHEN("renameat2", no_whiteout, "without RENAME_WHITEOUT", "macros, rust-lld", "moving files"),
    ALWAYS("truncate ftruncate fallocate fsync fdatasync", "rust-lld, rustc", "writing outputs through a map"),
    ALWAYS("utime utimes futimesat utimensat chown fchown lchown fchownat umask", "ld, ar, macros",
           "times and owners; without capabilities the owner can only stay what it is"),
    WHEN("chmod fchmod", no_set_id_1, "no setuid or setgid bit in the mode", "ld, rust-lld", "marking programs as executable"),
    WHEN("fchmodat", no_set_id_2, "no setuid or setgid bit in the mode", "macros", "marking programs as executable"),
    ALWAYS("mmap munmap mremap mprotect madvise mincore msync brk", "every program",
           "memory; a macro is native code anyway, so executable memory gives it nothing"),
    WHEN("clone", no_namespace, "without any CLONE_NEW* flag", "rustc, rust-lld", "threads and processes; clone3 is answered "
         "ENOSYS because its flags lie in memory, and C libraries then use clone"),
    ALWAYS("fork vfork execve exit exit_group wait4 waitid", "rustc, cc, collect2", "linkers and other children"),
    ALWAYS("futex set_tid_address set_robust_list rseq membarrier sched_yield sched_getaffinity "
           "sched_setaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu",
           "rustc, rust-lld", "threads; of scheduling only what concerns the job's own"),
    ALWAYS("rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait "
           "sigaltstack kill tkill tgkill pause alarm setitimer getitimer restart_syscall", "rustc, rust-lld",
           "signals; the process namespace ends at the job"),
    ALWAYS("nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage sysinfo uname", "rustc, ld",
           "clocks and sizes of the machine, which the C library reads without a system call as well"),
    ALWAYS("getpid getppid gettid getpgrp getpgid setpgid getsid setsid getuid geteuid getgid getegid getgroups getresuid getresgid",
           "rustc, cc, macros", "names of processes and users, the same for everybody"),
    ALWAYS("getrlimit setrlimit prlimit64 getpriority", "rustc, cc", "limits can only be lowered"),
#ifdef ARCH_SET_FS
    WHEN("arch_prctl", thread_pointer, "ARCH_SET_FS, ARCH_GET_FS", "every program", "the thread pointer"),
#endif
    WHEN("prctl", harmless_prctls, "names, death signal, dumpable, no_new_privs, reading the bounding set", "rustc", "names of threads"),
    WHEN("personality", own_personality, "asking, or PER_LINUX", "macros", "asking changes nothing"),
    WHEN("ioctl", harmless_ioctls, "TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX", "every program",
         "is it a terminal?"),
    WHEN("socketpair", local_pair, "AF_UNIX", "rustc", "std tells the parent of a child that could not be executed"),
    ALWAYS("recvfrom recvmsg sendmsg shutdown getsockopt getsockname getpeername", "rustc, macros",
           "talking over such a pair"),
    WHEN("sendto", no_address, "without an address", "rustc", "talking over such a pair"),

    NEVER("socket connect bind listen accept accept4", EACCES, "no network, no socket of anybody else"),
    NEVER("mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr unshare setns", EPERM,
          "namespaces and mounts"),
    NEVER("ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd", EPERM, "other processes"),
    NEVER("bpf perf_event_open userfaultfd", EPERM, "much of the kernel for a program that compiles"),
    NEVER("add_key request_key keyctl", EPERM, "keyrings outlive a job"),
    NEVER("mknod mknodat", EPERM, "devices, pipes, sockets and whiteouts by name"),
    NEVER("setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr", EPERM, "attributes that an overlay would obey"),
    NEVER("setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset", EPERM, "being somebody else"),
    NEVER("sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime syslog acct swapon swapoff reboot "
          "kexec_load kexec_file_load init_module finit_module delete_module iopl ioperm quotactl", EPERM, "the host's own settings"),
};
const size_t kiln_calls_count = sizeof kiln_calls / sizeof *kiln_calls;
