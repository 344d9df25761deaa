#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/filter.h"
#include "consumer/run/limits.h"
#include "consumer/run/root.h"
#include "consumer/run/sandbox.h"
#include "consumer/run/userns.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define FIRST_FREE_FD 6 // behind standard input, output, error, bwrap's options, its status and the filter, in this order
#define STATUS_BYTES_MAX 4096u

static const char *const fixed_args[] = {
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--disable-userns",
    "--assert-userns-disabled", "--uid", "1000", "--gid", "1000", "--hostname", "kiln", "--die-with-parent",
    "--new-session", "--cap-drop", "ALL", "--clearenv", "--json-status-fd", "4", "--seccomp", "5",
    // The tree's mounts have their own attributes already (root.c); dev-bind leaves the two devices usable.
    "--dev-bind", KILN_ROOT_PLACE, "/", "--proc", "/proc",
};

int kiln_sandbox_find(const char *path, int *fd, struct kiln_err *err) {
    kiln_autofd int found = open(path, O_PATH | O_CLOEXEC);
    struct stat st;
    if (found < 0 && errno == ENOENT)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s is not there: install bubblewrap", path);
    if (found < 0 || fstat(found, &st) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "opening %s", path);
    if (!S_ISREG(st.st_mode) || (st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022))
        return kiln_fail(err, KILN_E_DENIED, "%s can be changed by others: it must belong to root or to you, mode 0755",
                         path);
    *fd = kiln_steal_fd(&found);
    return 0;
}

static void add_arg(struct kiln_buf *args, const char *text) { kiln_buf_add(args, text, strlen(text) + 1); }

static int add_env(struct kiln_buf *args, const char *variable, struct kiln_err *err) {
    const char *equals = strchr(variable, '=');
    if (!equals)
        return kiln_fail(err, KILN_E_INVAL, "\"%.80s\" is not a variable", variable);
    add_arg(args, "--setenv");
    kiln_buf_add(args, variable, (size_t)(equals - variable));
    kiln_buf_add_u8(args, 0);
    add_arg(args, equals + 1);
    return 0;
}

// bwrap's options, NUL-separated, in a memfd: nothing of the job's environment stands on a command line of the host.
static int write_args(const struct kiln_run_spec *spec, int *fd, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf args = KILN_BUF_INIT(KILN_RUN_SPEC_MAX + (64u << 10));
    for (size_t i = 0; i < sizeof fixed_args / sizeof *fixed_args; i++)
        add_arg(&args, fixed_args[i]);
    add_arg(&args, access("/proc/self/ns/cgroup", F_OK) == 0 ? "--unshare-cgroup" : "--unshare-cgroup-try");
    add_arg(&args, "--chdir");
    add_arg(&args, spec->cwd);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < spec->env_count; i++)
        rc = add_env(&args, spec->env[i], err);
    if (rc == 0)
        rc = kiln_buf_check(&args, "bwrap's options", err);
    kiln_autofd int memfd = rc ? -1 : memfd_create("kiln-args", MFD_CLOEXEC);
    if (rc == 0 && memfd < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "a memfd for bwrap's options");
    if (rc == 0)
        rc = kiln_fs_write_all(memfd, args.data, args.len, err);
    if (rc == 0 && lseek(memfd, 0, SEEK_SET) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "a memfd for bwrap's options");
    if (rc == 0)
        *fd = kiln_steal_fd(&memfd);
    return rc;
}

// A NULL-terminated argv of borrowed strings: bwrap, its options' descriptor, then the job.
static char **make_argv(const struct kiln_run_spec *spec) {
    static char *const head[] = {(char *)"bwrap", (char *)"--args", (char *)"3", (char *)"--"};
    size_t head_count = sizeof head / sizeof *head;
    char **argv = calloc(head_count + spec->argc + 1, sizeof *argv);
    if (!argv)
        return NULL;
    memcpy(argv, head, sizeof head);
    memcpy(argv + head_count, spec->argv, spec->argc * sizeof *argv);
    return argv;
}

// The host's procfs shows other process ids than this pid namespace has, and bwrap reads its own entries. kiln-run shares
// the mount namespace but has no entry in this procfs, so it reads nothing below /proc from here on.
static int mount_own_proc(struct kiln_err *err) {
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "the host refuses a procfs of the job's own (a container that masks parts "
                                                   "of /proc?)");
    return 0;
}

// A user namespace of the job's own also for root: processes are counted per user and namespace (limits.h).
static int drop_root(struct kiln_err *err) {
    if (setgroups(0, NULL) < 0 || setresgid(KILN_SANDBOX_UID, KILN_SANDBOX_UID, KILN_SANDBOX_UID) < 0 ||
        setresuid(KILN_SANDBOX_UID, KILN_SANDBOX_UID, KILN_SANDBOX_UID) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "becoming uid %u", KILN_SANDBOX_UID);
    if (prctl(PR_SET_DUMPABLE, 1) < 0) // else /proc/self belongs to root and the maps cannot be written
        return kiln_fail_errno(err, KILN_E_INTERNAL, "prctl");
    return kiln_userns_enter(0, err);
}

static int raise_walls(const struct kiln_sandbox *sandbox, struct kiln_err *err) {
    int rc = kiln_limits_forget(err);
    if (rc == 0)
        rc = kiln_cgroup_join(sandbox->cgroup, err);
    if (rc == 0)
        rc = mount_own_proc(err);
    if (rc == 0 && sandbox->root)
        rc = drop_root(err);
    if (rc == 0)
        rc = kiln_limits_apply(sandbox->spec, !sandbox->cgroup->memory, err);
    // Changing credentials clears the death signal, so it comes after them.
    if (rc == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0))
        rc = kiln_fail_errno(err, KILN_E_DENIED, "prctl");
    return rc;
}

struct launch {
    struct kiln_sandbox *sandbox;
    char **argv;
    int args, status, filter, control;
};

static int place_fds(const struct launch *launch, int null) {
    const struct kiln_capture *const *text = launch->sandbox->text;
    const int wanted[] = {null, text[0]->write_end, text[1]->write_end, launch->args, launch->status, launch->filter};
    int lifted[FIRST_FREE_FD];
    for (int i = 0; i < FIRST_FREE_FD; i++)
        if ((lifted[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD)) < 0)
            return -1;
    for (int i = 0; i < FIRST_FREE_FD; i++)
        if (dup2(lifted[i], i) < 0)
            return -1;
    return 0;
}

static void say(int control, const struct kiln_err *err) {
    if (send(control, err->text, strlen(err->text), MSG_NOSIGNAL) < 0)
        _exit(126); // nobody is left to tell
}

// The child's first word: one NUL when it stands behind its walls; with it, of a watched job, the end that hears of its calls.
static int report_ready(const struct launch *launch, int control, struct kiln_err *err) {
    kiln_autofd int listener = -1;
    int rc = launch->sandbox->watch ? kiln_watch_begin(&listener, err) : 0;
    return rc ? rc : kiln_watch_send(control, listener, err);
}

static __attribute__((noreturn)) void become_bwrap(const struct launch *launch) {
    static char *const no_env[] = {NULL};
    struct kiln_err err = {0};
    int control = launch->control;
    kiln_autofd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char go;
    // Lifted out of the way of the numbers that bwrap is given.
    control = fcntl(control, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    int bwrap = fcntl(launch->sandbox->bwrap, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    if (raise_walls(launch->sandbox, &err) == 0 && report_ready(launch, control, &err) == 0) {
        if (read(control, &go, 1) != 1)
            _exit(126); // the caller has gone or has given up
        if (close_range(FIRST_FREE_FD, ~0u, CLOSE_RANGE_CLOEXEC) == 0 &&
            place_fds(launch, null) == 0)
            execveat(bwrap, "", launch->argv, no_env, AT_EMPTY_PATH);
        kiln_fail_errno(&err, KILN_E_IO, "executing bwrap");
    }
    say(control, &err);
    _exit(126);
}

// The child's first word, or why it is not ready.
static int hear(int control, struct kiln_watch *watch, struct kiln_err *err) {
    char text[sizeof err->text];
    kiln_autofd int listener = -1;
    long got = kiln_watch_receive(control, text, sizeof text - 1, &listener);
    if (got == 1 && text[0] == 0 && (listener >= 0) == (watch != NULL)) {
        if (watch)
            watch->listener = kiln_steal_fd(&listener);
        return 0;
    }
    text[got > 0 ? got : 0] = 0;
    return kiln_fail(err, KILN_E_DENIED, "%s", *text ? text : "the sandbox's first process died at once");
}

int kiln_sandbox_launch(struct kiln_sandbox *sandbox, struct kiln_err *err) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "a socket pair");
    kiln_autofd int ours = pair[0];
    kiln_autofd int theirs = pair[1];
    kiln_autofd int args = -1, filter = -1;
    int rc = write_args(sandbox->spec, &args, err);
    if (rc == 0)
        rc = kiln_filter_open(sandbox->watch != NULL, &filter, err);
    if (rc)
        return rc;
    kiln_autofd int status = memfd_create("kiln-status", MFD_CLOEXEC);
    kiln_autofree char **argv = make_argv(sandbox->spec);
    if (status < 0 || !argv)
        return kiln_fail_errno(err, KILN_E_IO, "launching the sandbox");
    const struct launch launch = {sandbox, argv, args, status, filter, theirs};
    pid_t pid = kiln_cgroup_fork(sandbox->cgroup, err);
    if (pid < 0)
        return pid;
    if (pid == 0) {
        close(ours); // so that the caller's death is seen as the end of the conversation
        become_bwrap(&launch);
    }
    close(kiln_steal_fd(&theirs));
    sandbox->pid = pid;
    rc = hear(ours, sandbox->watch, err);
    sandbox->control = kiln_steal_fd(&ours);
    sandbox->status = kiln_steal_fd(&status);
    return rc;
}

int kiln_sandbox_go(struct kiln_sandbox *sandbox, struct kiln_err *err) {
    if (send(sandbox->control, "", 1, MSG_NOSIGNAL) != 1)
        return kiln_fail_errno(err, KILN_E_CLOSED, "the sandbox's first process died");
    return 0;
}

bool kiln_sandbox_exit_code(const struct kiln_sandbox *sandbox, unsigned *exit_code) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(STATUS_BYTES_MAX);
    if (lseek(sandbox->status, 0, SEEK_SET) < 0 || kiln_fs_read_fd(sandbox->status, &text, NULL))
        return false;
    const char *at = strstr(kiln_buf_text(&text), "\"exit-code\":");
    return at && sscanf(at, "\"exit-code\": %u", exit_code) == 1;
}

const char *kiln_sandbox_hint(const char *bwrap_text) {
    if (strstr(bwrap_text, "Unknown option"))
        return " (Kiln needs bubblewrap 0.8 or newer)";
    if (strstr(bwrap_text, "mount proc"))
        return " (a container that masks parts of /proc forbids it)";
    if (strstr(bwrap_text, "namespace"))
        return kiln_userns_hint();
    return "";
}
