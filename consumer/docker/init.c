// kiln-init: the first process of a job's container, and all that Docker is told to run there. Static, from the image.
//
// It takes its order through the gate (consumer/docker/gate.h), looks whether the walls stand, and runs the job as process 2,
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
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"

#define ORDER_MS 20000
#define MESSAGE_BYTES_MAX 512u

struct init {
    int gate, signals;
    int text[2]; // the job's stdout and stderr
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

static int announce(struct init *init, struct kiln_err *err) {
    const struct kiln_gate_order *order = &init->order;
    kiln_autofd int out = open(order->spec.out_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    kiln_autofd int observer = open(order->spec.observer_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out < 0 || observer < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "the job's directories");
    int rc = kiln_observer_dir_fill(observer, &order->spec, order->uid, order->gid, err);
    const int fds[KILN_GATE_READY_FDS] = {out, observer};
    return rc ? rc : kiln_run_send(init->gate, KILN_RUN_READY, NULL, 0, fds, KILN_GATE_READY_FDS, err);
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

static int raise_last_walls(const struct kiln_run_spec *spec, struct kiln_err *err) {
    struct kiln_run_spec limits = *spec;
    // Without a user namespace of the job's own the kernel would count everybody's processes of this uid on the host; the
    // container's control group bounds them.
    limits.processes = UINT32_MAX;
    const struct sock_fprog filter = {.len = (unsigned short)kiln_filter_code_count,
                                      .filter = (struct sock_filter *)kiln_filter_code};
    int rc = kiln_limits_forget(err);
    if (rc == 0)
        rc = kiln_limits_apply(&limits, false, err);
    if (rc == 0 && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0))
        rc = kiln_fail_errno(err, KILN_E_DENIED, "the filter of system calls");
    return rc;
}

// What keeps the job from being executed is written to `failure`.
static __attribute__((noreturn)) void become_job(const struct init *init, char **env, int failure) {
    const struct kiln_run_spec *spec = &init->order.spec;
    struct kiln_err err = {0};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    failure = fcntl(failure, F_DUPFD_CLOEXEC, 10);
    kiln_autofree char **argv = calloc(spec->argc + 1, sizeof *argv);
    if (null < 0 || failure < 0 || !argv || place_texts(init, null) < 0)
        _exit(126);
    memcpy(argv, spec->argv, spec->argc * sizeof *argv);
    int rc = chdir(spec->cwd) < 0 ? kiln_fail_errno(&err, KILN_E_NOTFOUND, "chdir %s", spec->cwd) : raise_last_walls(spec, &err);
    if (rc == 0) {
        execve(argv[0], argv, env);
        kiln_fail_errno(&err, KILN_E_NOTFOUND, "%s", argv[0]);
    }
    if (write(failure, err.text, strlen(err.text)) < 0)
        _exit(126);
    _exit(127);
}

// The job's process, after it was executed; what failed is in *err.
static int start_job(struct init *init, pid_t *job, struct kiln_err *err) {
    kiln_autofree char *pwd = NULL;
    kiln_autofree char **env = make_environment(&init->order.spec, &pwd);
    int ends[2];
    if (!env || pipe2(ends, O_CLOEXEC) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "starting the job");
    kiln_autofd int heard = ends[0];
    kiln_autofd int failure = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return kiln_fail_errno(err, KILN_E_IO, "starting the job");
    if (pid == 0)
        become_job(init, env, failure);
    close(kiln_steal_fd(&failure));
    for (int i = 0; i < 2; i++)
        close(kiln_steal_fd(&init->text[i]));
    char text[sizeof err->text] = "";
    if (read(heard, text, sizeof text - 1) > 0)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s", text);
    *job = pid;
    return 0;
}

// Reaps whatever ended; true, with its status, when the job itself is among it.
static bool reap(const struct init *init, pid_t job, int *status) {
    struct signalfd_siginfo info;
    while (read(init->signals, &info, sizeof info) == sizeof info)
        ;
    bool ended = false;
    int one;
    for (pid_t pid; (pid = waitpid(-1, &one, WNOHANG)) > 0;)
        if (pid == job) {
            *status = one;
            ended = true;
        }
    return ended;
}

// Until the gate closes, which is the end.
static void attend(const struct init *init, pid_t job) {
    struct pollfd watch[] = {{.fd = init->gate, .events = POLLIN}, {.fd = init->signals, .events = POLLIN}};
    for (;;) {
        int status;
        if (reap(init, job, &status)) {
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
    if (rc == 0)
        rc = announce(init, err);
    if (rc == 0 && prctl(PR_SET_DUMPABLE, 0) < 0)
        rc = kiln_fail_errno(err, KILN_E_DENIED, "hiding init from the job");
    if (rc == 0)
        rc = hear_go(init, err);
    pid_t job = -1;
    if (rc == 0)
        rc = start_job(init, &job, err);
    if (rc == 0)
        attend(init, job);
    return rc;
}

int main(void) {
    static const struct init none = {.gate = -1, .signals = -1, .text = {-1, -1}};
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
