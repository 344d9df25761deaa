#include "lib/base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"

enum child_step { STEP_FDS, STEP_CWD, STEP_SESSION, STEP_DEATH, STEP_EXEC };

static const char *const step_names[] = {"set up descriptors", "change to the working directory", "start a session",
                                         "bind its life to the parent", "execute"};

struct child_report {
    enum child_step step;
    int error;
};

struct child_plan {
    const struct kiln_proc_options *options;
    int *lifted;   // one slot for each of options->fds
    int report_fd;
    pid_t parent;
};

static __attribute__((noreturn)) void report(int report_fd, enum child_step step) {
    struct child_report message = {.step = step, .error = errno};
    while (write(report_fd, &message, sizeof message) < 0 && errno == EINTR)
        ;
    _exit(127);
}

static void default_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL); // refused for KILL, STOP and libc's own
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

// A child's number may be the number of another entry's parent: so all are lifted above every child's number first, and
// only then put in place. close-on-exec on everything else does the closing.
static int arrange_fds(struct child_plan *plan, int *report_fd) {
    const struct kiln_proc_options *options = plan->options;
    int above = 3;
    for (size_t i = 0; i < options->fds_count; i++)
        if (options->fds[i].child >= above)
            above = options->fds[i].child + 1;
    int lifted_report = fcntl(*report_fd, F_DUPFD_CLOEXEC, above);
    if (lifted_report < 0)
        return -1;
    *report_fd = lifted_report;
    for (size_t i = 0; i < options->fds_count; i++)
        if ((plan->lifted[i] = fcntl(options->fds[i].parent, F_DUPFD_CLOEXEC, above)) < 0)
            return -1;
    if (close_range(0, ~0u, CLOSE_RANGE_CLOEXEC))
        return -1;
    for (size_t i = 0; i < options->fds_count; i++)
        if (dup2(plan->lifted[i], options->fds[i].child) < 0)
            return -1;
    return 0;
}

// Runs in the memory of the parent, whose thread stands still: async-signal-safe calls only, and no way back.
static __attribute__((noreturn, noinline)) void run_child(struct child_plan *plan) {
    const struct kiln_proc_options *options = plan->options;
    int report_fd = plan->report_fd;
    if (arrange_fds(plan, &report_fd))
        report(report_fd, STEP_FDS);
    if (options->cwd && chdir(options->cwd))
        report(report_fd, STEP_CWD);
    if (options->new_session && setsid() < 0)
        report(report_fd, STEP_SESSION);
    if (options->die_with_parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL))
            report(report_fd, STEP_DEATH);
        if (getppid() != plan->parent) // it died before the line above
            _exit(127);
    }
    default_signals();
    execve(options->program, options->argv, options->envp);
    report(report_fd, STEP_EXEC);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
// vfork: a fork would copy the page tables of an agent with a large cache mapped, on each spawn. It is alone in its
// function so that no local lives across its second return.
static __attribute__((noinline)) pid_t start_child(struct child_plan *plan) {
    pid_t pid = vfork();
    if (pid == 0)
        run_child(plan);
    return pid;
}
#pragma GCC diagnostic pop

static int read_report(int fd, const char *program, pid_t pid, struct kiln_err *err) {
    struct child_report message;
    ssize_t got;
    while ((got = read(fd, &message, sizeof message)) < 0 && errno == EINTR)
        ;
    if (got == 0)
        return 0;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (got != sizeof message)
        return kiln_fail(err, KILN_E_INTERNAL, "child for %s broke off", program);
    errno = message.error;
    int code = message.error == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO;
    return kiln_fail_errno(err, code, "child for %s could not %s", program, step_names[message.step]);
}

int kiln_proc_spawn(const struct kiln_proc_options *options, pid_t *pid, struct kiln_err *err) {
    kiln_autofree int *lifted = calloc(options->fds_count + 1, sizeof *lifted);
    if (!lifted)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to start %s", options->program);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return kiln_fail_errno(err, KILN_E_IO, "no pipe to start %s", options->program);
    kiln_autofd int report_read = ends[0];
    kiln_autofd int report_write = ends[1];
    struct child_plan plan = {.options = options, .lifted = lifted, .report_fd = report_write, .parent = getpid()};
    // No handler of ours may run in the child while it borrows our memory.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = start_child(&plan);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (child < 0) {
        errno = error;
        return kiln_fail_errno(err, KILN_E_IO, "cannot start %s", options->program);
    }
    close(kiln_steal_fd(&report_write));
    int rc = read_report(report_read, options->program, child, err);
    if (rc == 0)
        *pid = child;
    return rc;
}

static int reap(pid_t pid, int *status, struct kiln_err *err) {
    int found;
    while (waitpid(pid, &found, 0) < 0)
        if (errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "cannot wait for process %d", (int)pid);
    if (status)
        *status = found;
    return 0;
}

int kiln_proc_wait(pid_t pid, uint64_t deadline_ms, int *status, struct kiln_err *err) {
    kiln_autofd int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot watch process %d", (int)pid);
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    for (;;) {
        int left = kiln_clock_left_ms(deadline_ms);
        int ready = poll(&watch, 1, left);
        if (ready > 0)
            return reap(pid, status, err);
        if (ready < 0 && errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "cannot watch process %d", (int)pid);
        if (ready == 0 && left == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "process %d still runs", (int)pid);
    }
}

// Takes what is in the pipe now; *open becomes false at its end.
static int drain(int fd, struct kiln_buf *buf, const char *what, bool *open, struct kiln_err *err) {
    unsigned char chunk[16384];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read %s of the child", what);
        if (got == 0) {
            *open = false;
            return 0;
        }
        if (kiln_buf_add(buf, chunk, (size_t)got))
            return kiln_fail(err, KILN_E_LIMIT, "%s of the child is larger than %zu bytes", what, buf->max);
    }
}

struct collection {
    int out_fd, errout_fd, pid_fd;
    struct kiln_buf *out, *errout;
};

// Until the child has ended; what its descendants still write later is not waited for.
static int collect(const struct collection *collection, uint64_t deadline_ms, struct kiln_err *err) {
    bool out_open = true, errout_open = true;
    for (bool ended = false; !ended;) {
        struct pollfd watch[] = {{.fd = out_open ? collection->out_fd : -1, .events = POLLIN},
                                 {.fd = errout_open ? collection->errout_fd : -1, .events = POLLIN},
                                 {.fd = collection->pid_fd, .events = POLLIN}};
        int left = kiln_clock_left_ms(deadline_ms);
        int ready = poll(watch, 3, left);
        if (ready < 0 && errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "cannot watch the child");
        if (ready == 0 && left == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "the child did not end in time");
        ended = ready > 0 && watch[2].revents;
        int rc = 0;
        if (ready > 0 && out_open && (watch[0].revents || ended))
            rc = drain(collection->out_fd, collection->out, "stdout", &out_open, err);
        if (rc == 0 && ready > 0 && errout_open && (watch[1].revents || ended))
            rc = drain(collection->errout_fd, collection->errout, "stderr", &errout_open, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int nonblocking_pipe(int *read_end, int *write_end, struct kiln_err *err) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return kiln_fail_errno(err, KILN_E_IO, "no pipe");
    *read_end = ends[0];
    *write_end = ends[1];
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) ? kiln_fail_errno(err, KILN_E_IO, "no non-blocking pipe") : 0;
}

// options with /dev/null, `out` and `errout` added as 0, 1 and 2.
static int spawn_with_stdio(const struct kiln_proc_options *options, int out, int errout, pid_t *pid,
                            struct kiln_err *err) {
    kiln_autofd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot open /dev/null");
    kiln_autofree struct kiln_proc_fd *fds = calloc(options->fds_count + 3, sizeof *fds);
    if (!fds)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to start %s", options->program);
    fds[0] = (struct kiln_proc_fd){null, 0};
    fds[1] = (struct kiln_proc_fd){out, 1};
    fds[2] = (struct kiln_proc_fd){errout, 2};
    if (options->fds_count)
        memcpy(fds + 3, options->fds, options->fds_count * sizeof *fds);
    struct kiln_proc_options with_stdio = *options;
    with_stdio.fds = fds;
    with_stdio.fds_count = options->fds_count + 3;
    return kiln_proc_spawn(&with_stdio, pid, err);
}

int kiln_proc_run(const struct kiln_proc_options *options, uint64_t deadline_ms, struct kiln_buf *out,
                  struct kiln_buf *errout, int *status, struct kiln_err *err) {
    kiln_autofd int out_read = -1, out_write = -1, errout_read = -1, errout_write = -1, pid_fd = -1;
    pid_t pid = -1;
    int rc = nonblocking_pipe(&out_read, &out_write, err);
    if (rc == 0)
        rc = nonblocking_pipe(&errout_read, &errout_write, err);
    if (rc == 0)
        rc = spawn_with_stdio(options, out_write, errout_write, &pid, err);
    if (rc)
        return rc;
    close(kiln_steal_fd(&out_write));
    close(kiln_steal_fd(&errout_write));
    pid_fd = pidfd_open(pid, 0);
    if (pid_fd < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot watch process %d", (int)pid);
    struct collection collection = {out_read, errout_read, pid_fd, out, errout};
    if (rc == 0)
        rc = collect(&collection, deadline_ms, err);
    if (rc) {
        kill(options->new_session ? -pid : pid, SIGKILL);
        reap(pid, NULL, NULL);
        return kiln_wrap(err, rc, "running %s", options->program);
    }
    return reap(pid, status, err);
}
