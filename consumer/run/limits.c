#include "consumer/run/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define OPEN_FILES 4096u
#define STACK_BYTES (8ull << 20)
#define SANDBOX_PROCESSES 2u // bwrap's monitor and its init
#define OOM_SCORE "800"

static int bound(__rlimit_resource_t resource, const char *name, uint64_t value, bool soft_only,
                 struct kiln_err *err) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "getrlimit %s", name);
    limit.rlim_cur = value < limit.rlim_max ? value : limit.rlim_max; // a lower bound of the host stays
    if (!soft_only)
        limit.rlim_max = limit.rlim_cur;
    if (setrlimit(resource, &limit) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "setrlimit %s", name);
    return 0;
}

static void offer_to_oom_killer(void) {
    kiln_autofd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, OOM_SCORE, sizeof OOM_SCORE - 1) < 0)
        return; // a kernel without it kills by size, which finds the job as well
}

int kiln_limits_apply(const struct kiln_run_spec *spec, bool bound_memory, struct kiln_err *err) {
    int rc = bound(RLIMIT_CORE, "core", 0, false, err);
    if (rc == 0)
        rc = bound(RLIMIT_FSIZE, "fsize", spec->file_bytes, false, err);
    if (rc == 0)
        rc = bound(RLIMIT_NOFILE, "nofile", OPEN_FILES, false, err);
    if (rc == 0)
        rc = bound(RLIMIT_NPROC, "nproc", (uint64_t)spec->processes + SANDBOX_PROCESSES, false, err);
    if (rc == 0)
        rc = bound(RLIMIT_STACK, "stack", STACK_BYTES, true, err);
    if (rc == 0)
        rc = bound(RLIMIT_RTPRIO, "rtprio", 0, false, err);
    if (rc == 0 && bound_memory) {
        rc = bound(RLIMIT_DATA, "data", spec->memory_bytes, false, err);
        offer_to_oom_killer();
    }
    return rc;
}

int kiln_limits_forget(struct kiln_err *err) {
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); // fails for SIGKILL, SIGSTOP and libc's own, which cannot be ignored either
    sigset_t none;
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "clearing the signal mask");
    umask(022);
    personality(PER_LINUX);
    // A starter of real time would let its jobs starve the host; and the kernel lets no such process into a group's share.
    int policy = sched_getscheduler(0);
    if ((policy == SCHED_FIFO || policy == SCHED_RR || policy == SCHED_DEADLINE) &&
        sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "leaving real-time scheduling");
    // Keys of the starter's session would be readable by whoever possesses its session keyring. Where a container's
    // filter refuses the call (EPERM) or the kernel lacks it, the job cannot make it either.
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EPERM)
        return kiln_fail_errno(err, KILN_E_IO, "leaving the session keyring");
    return 0;
}
