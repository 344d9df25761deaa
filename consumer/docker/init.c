// kiln-init: the first process of a job's container, and all that Docker is told to run there. Static, from the image.
//
// It takes its order through the gate (consumer/docker/gate.h), looks whether the walls stand, and runs the job as a child,
// as bubblewrap's init does, behind the filter of system calls. It ends when the job has ended and kiln-run-docker knows, or
// when the gate closes, whoever died; with it, being init, ends everything in the container. The job cannot trace or stop it.
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/docker/gate.h"
#include "consumer/docker/world.h"
#include "consumer/run/client.h"
#include "consumer/run/filter.h"
#include "consumer/run/limits.h"
#include "consumer/run/observer_dir.h"
#include "consumer/run/watch.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"

#define ORDER_MS 20000
#define MESSAGE_BYTES_MAX 512u

struct init {
    int gate, signals;
    int text[2]; // the job's stdout and stderr
    int control; // to the job's process until it is executed
    pid_t job;
    struct kiln_gate_order order;
};

static int connect_to_gate(int *gate, struct kiln_err *err) {
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = KILN_GATE_DIR "/" KILN_GATE_SOCKET};
    kiln_autofd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return kiln_fail_errno(err, KILN_E_CLOSED, "nobody is at the gate");
    *gate = kiln_steal_fd(&fd);
    return 0;
}

static int take_order(struct init *init, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_BYTES_MAX), bytes = KILN_BUF_INIT(KILN_GATE_ORDER_MAX);
    enum kiln_run_message message;
    int fds[KILN_GATE_ORDER_FDS];
    int rc = kiln_run_receive(init->gate, kiln_clock_ms() + ORDER_MS, &message, &payload, fds, KILN_GATE_ORDER_FDS, err);
    if (rc || message != KILN_RUN_READY)
        return rc ? rc : kiln_fail(err, KILN_E_CORRUPT, "that is no order");
    kiln_autofd int memfd = fds[0];
    init->text[0] = fds[1];
    init->text[1] = fds[2];
    if (lseek(memfd, 0, SEEK_SET) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "the order");
    rc = kiln_fs_read_fd(memfd, &bytes, err);
    return rc ? rc : kiln_gate_order_decode(bytes.data, bytes.len, &init->order, err);
}

static int announce(const struct init *init, struct kiln_err *err) {
    const struct kiln_run_spec *spec = &init->order.spec;
    const char *const paths[KILN_GATE_READY_FDS] = {spec->out_dir, spec->observer_dir, spec->tmp_dir, "/"};
    int fds[KILN_GATE_READY_FDS];
    for (size_t i = 0; i < KILN_GATE_READY_FDS; i++)
        if ((fds[i] = open(paths[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
            return kiln_fail_errno(err, KILN_E_DENIED, "opening %s", paths[i]);
    int rc = kiln_observer_dir_fill(fds[1], spec, init->order.uid, init->order.gid, err);
    if (rc == 0)
        rc = kiln_run_send(init->gate, KILN_RUN_READY, NULL, 0, fds, KILN_GATE_READY_FDS, err);
    for (size_t i = 0; i < KILN_GATE_READY_FDS; i++)
        close(fds[i]);
    return rc;
}

static int hear_go(const struct init *init, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_BYTES_MAX);
    enum kiln_run_message message;
    int rc = kiln_run_receive(init->gate, kiln_clock_ms() + ORDER_MS, &message, &payload, NULL, 0, err);
    return rc == 0 && message != KILN_RUN_READY ? kiln_fail(err, KILN_E_CORRUPT, "that is no go") : rc;
}

static char **make_environment(const struct kiln_run_spec *spec, char **pwd) {
    char **env = calloc(spec->env_count + 2, sizeof *env);
    if (!env || asprintf(pwd, "PWD=%s", spec->cwd) < 0) // as bubblewrap adds it
        return NULL;
    memcpy(env, spec->env, spec->env_count * sizeof *env);
    env[spec->env_count] = *pwd;
    return env;
}

static int place_texts(const struct init *init, int null) {
    const int wanted[] = {null, init->text[0], init->text[1]}; // all above 2: Docker gives three descriptors
    for (int i = 0; i < 3; i++)
        if (dup2(wanted[i], i) < 0)
            return -1;
    return close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
}

static int limit(const struct kiln_run_spec *spec, struct kiln_err *err) {
    struct kiln_run_spec limits = *spec;
    // Without a user namespace of the job's own the kernel would count everybody's processes of this uid on the host; the
    // container's control group bounds them.
    limits.processes = UINT32_MAX;
    int rc = kiln_limits_forget(err);
    return rc ? rc : kiln_limits_apply(&limits, false, err);
}

static int filter_calls(bool watched, struct kiln_err *err) {
    const struct sock_fprog filter = {
        .len = (unsigned short)(watched ? kiln_filter_watched_code_count : kiln_filter_code_count),
        .filter = (struct sock_filter *)(watched ? kiln_filter_watched_code : kiln_filter_code)};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0 ? kiln_fail_errno(err, KILN_E_DENIED, "the filter of system calls") : 0;
}

// As bubblewrap's sandbox has it: what watches stands before the job's own filter.
static int begin_watch(const struct init *init, struct kiln_err *err) {
    kiln_autofd int listener = -1;
    int rc = kiln_watch_begin(&listener, err);
    return rc ? rc : kiln_run_send(init->gate, KILN_RUN_READY, NULL, 0, &listener, 1, err);
}

// The job's process until it is executed. `control`: its readiness (one NUL) or a text, the go, and later only silence or a text.
static __attribute__((noreturn)) void become_job(const struct init *init, char **env, int control) {
    const struct kiln_run_spec *spec = &init->order.spec;
    struct kiln_err err = {0};
    char go;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    kiln_autofree char **argv = calloc(spec->argc + 1, sizeof *argv);
    control = fcntl(control, F_DUPFD_CLOEXEC, 10);
    if (null < 0 || control < 0 || !argv)
        _exit(126);
    memcpy(argv, spec->argv, spec->argc * sizeof *argv);
    int rc = limit(spec, &err);
    if (rc == 0 && spec->watch_fd)
        rc = begin_watch(init, &err);
    if (rc == 0 && (send(control, "", 1, MSG_NOSIGNAL) != 1 || read(control, &go, 1) != 1 || place_texts(init, null) < 0))
        _exit(126);
    if (rc == 0 && chdir(spec->cwd) < 0)
        rc = kiln_fail_errno(&err, KILN_E_NOTFOUND, "chdir %s", spec->cwd);
    if (rc == 0)
        rc = filter_calls(spec->watch_fd != 0, &err);
    if (rc == 0) {
        execve(argv[0], argv, env);
        kiln_fail_errno(&err, KILN_E_NOTFOUND, "%s", argv[0]);
    }
    if (send(control, err.text, strlen(err.text), MSG_NOSIGNAL) < 0)
        _exit(126);
    _exit(127);
}

// What the job's process says: nothing, one NUL, or what went wrong.
static int hear_job(int control, struct kiln_err *err) {
    char text[sizeof err->text] = "";
    ssize_t got = recv(control, text, sizeof text - 1, 0);
    return got > 0 && *text ? kiln_fail(err, KILN_E_DENIED, "%s", text) : 0;
}

static int prepare_job(struct init *init, struct kiln_err *err) {
    kiln_autofree char *pwd = NULL;
    kiln_autofree char **env = make_environment(&init->order.spec, &pwd);
    int pair[2];
    if (!env || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "starting the job");
    init->control = pair[0];
    kiln_autofd int theirs = pair[1];
    init->job = fork();
    if (init->job < 0)
        return kiln_fail_errno(err, KILN_E_IO, "starting the job");
    if (init->job == 0) {
        close(init->control);
        become_job(init, env, theirs);
    }
    close(kiln_steal_fd(&theirs));
    for (int i = 0; i < 2; i++)
        close(kiln_steal_fd(&init->text[i]));
    return hear_job(init->control, err);
}

// Returns when the job's program is executed.
static int start_job(struct init *init, struct kiln_err *err) {
    if (send(init->control, "", 1, MSG_NOSIGNAL) != 1)
        return kiln_fail_errno(err, KILN_E_CLOSED, "the job's process died");
    return hear_job(init->control, err);
}

// Reaps whatever ended; true, with its status, when the job itself is among it.
static bool reap(const struct init *init, int *status) {
    struct signalfd_siginfo info;
    while (read(init->signals, &info, sizeof info) == sizeof info)
        ;
    bool ended = false;
    int one;
    for (pid_t pid; (pid = waitpid(-1, &one, WNOHANG)) > 0;)
        if (pid == init->job) {
            *status = one;
            ended = true;
        }
    return ended;
}

// Until the gate closes, which is the end.
static void attend(const struct init *init) {
    struct pollfd watch[] = {{.fd = init->gate, .events = POLLIN}, {.fd = init->signals, .events = POLLIN}};
    for (;;) {
        int status;
        if (reap(init, &status)) {
            kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_BYTES_MAX);
            kiln_buf_add_be32(&payload, (uint32_t)status);
            kiln_run_send(init->gate, KILN_RUN_DONE, payload.data, payload.len, NULL, 0, NULL);
        }
        if (poll(watch, 2, -1) > 0 && watch[0].revents)
            return;
    }
}

static int run(struct init *init, struct kiln_err *err) {
    int rc = connect_to_gate(&init->gate, err);
    if (rc == 0)
        rc = take_order(init, err);
    if (rc == 0)
        rc = kiln_world_check(&init->order, err);
    if (rc == 0 && prctl(PR_SET_DUMPABLE, 0) < 0)
        rc = kiln_fail_errno(err, KILN_E_DENIED, "hiding init from the job");
    if (rc == 0)
        rc = prepare_job(init, err);
    if (rc == 0)
        rc = announce(init, err);
    if (rc == 0)
        rc = hear_go(init, err);
    if (rc == 0)
        rc = start_job(init, err);
    if (rc == 0)
        attend(init);
    return rc;
}

int main(void) {
    static const struct init none = {.gate = -1, .signals = -1, .text = {-1, -1}, .control = -1, .job = -1};
    struct init init = none;
    struct kiln_err err = {0};
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    umask(022);
    if (sigprocmask(SIG_SETMASK, &watched, NULL) < 0 || (init.signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return EXIT_FAILURE;
    if (run(&init, &err) == 0)
        return EXIT_SUCCESS;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    kiln_buf_add_field_str(&text, err.text);
    if (init.gate < 0 || kiln_run_send(init.gate, KILN_RUN_REFUSED, text.data, text.len, NULL, 0, NULL))
        return EXIT_FAILURE;
    // Everything ends with this process, and its words should be heard before.
    struct pollfd watch = {.fd = init.gate};
    poll(&watch, 1, ORDER_MS);
    return EXIT_FAILURE;
}
