// kiln-run: starts one job in one sandbox and waits until nothing of it is left. See consumer/run/spec.h.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/capture.h"
#include "consumer/run/cgroup.h"
#include "consumer/run/client.h"
#include "consumer/run/root.h"
#include "consumer/run/sandbox.h"
#include "consumer/run/selftest.h"
#include "consumer/run/userns.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"

#define BWRAP_DEFAULT "/usr/bin/bwrap"
#define SANDBOX_TASKS 2u // bwrap's monitor and its init, counted by the control group too
#define BROKEN_TEXT_MAX 300u

struct run {
    struct kiln_run_spec spec;
    struct kiln_cgroup cgroup;
    struct kiln_root root;
    struct kiln_capture text[2];
    struct kiln_sandbox sandbox;
    int signals; // signalfd: SIGCHLD, SIGTERM
    bool reaped;
    struct rusage usage;
    uint64_t started_ms;
    struct kiln_run_report report;
};

static void release_run(struct run *run) {
    kiln_capture_release(&run->text[0]);
    kiln_capture_release(&run->text[1]);
    kiln_root_release(&run->root);
    kiln_cgroup_release(&run->cgroup);
    kiln_run_report_release(&run->report);
    kiln_run_spec_release(&run->spec);
    int *const fds[] = {&run->sandbox.bwrap, &run->sandbox.control, &run->sandbox.status, &run->signals};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}

static int read_spec(struct kiln_run_spec *spec, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    int rc = lseek(KILN_RUN_SPEC_FD, 0, SEEK_SET) < 0 ? kiln_fail_errno(err, KILN_E_INVAL, "descriptor 4") : 0;
    if (rc == 0)
        rc = kiln_fs_read_fd(KILN_RUN_SPEC_FD, &bytes, err);
    if (rc == 0)
        rc = kiln_run_spec_decode(bytes.data, bytes.len, spec, err);
    return rc ? kiln_wrap(err, rc, "reading the sandbox spec") : 0;
}

// The starter's death is a signal that is handled like the end of the job, so that the control group is removed.
static int watch_signals(int *signals, struct kiln_err *err) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP);
    signal(SIGCHLD, SIG_DFL);
    if (sigprocmask(SIG_SETMASK, &watched, NULL) < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "signals");
    *signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    return *signals < 0 ? kiln_fail_errno(err, KILN_E_IO, "signalfd") : 0;
}

// A starter that died before the death signal was set has closed its socket.
static bool starter_lives(void) {
    struct pollfd peer = {.fd = KILN_RUN_SOCKET_FD};
    return poll(&peer, 1, 0) == 0;
}

static int enter_namespaces(bool root, struct kiln_err *err) {
    if (!root)
        return kiln_userns_enter(CLONE_NEWNS | CLONE_NEWPID, err);
    if (!kiln_userns_knows(KILN_SANDBOX_UID))
        return kiln_fail(err, KILN_E_DENIED, "root of a user namespace without uid %u (a rootless container?) cannot give the "
                                             "job a user of its own; run Kiln as an ordinary user", KILN_SANDBOX_UID);
    if (unshare(CLONE_NEWNS | CLONE_NEWPID) == 0)
        return 0;
    kiln_fail_errno(err, KILN_E_DENIED, "root without CAP_SYS_ADMIN (a container?) cannot start a sandbox; run Kiln as an "
                                        "ordinary user or grant it");
    return KILN_E_DENIED;
}

static int prepare(struct run *run, const char *bwrap, struct kiln_err *err) {
    bool root = geteuid() == 0;
    struct kiln_root_owner owner = {root ? KILN_SANDBOX_UID : geteuid(), root ? KILN_SANDBOX_UID : getegid()};
    umask(022);
    int rc = read_spec(&run->spec, err);
    if (rc == 0)
        rc = kiln_sandbox_find(bwrap, &run->sandbox.bwrap, err);
    if (rc == 0)
        rc = kiln_cgroup_open(&run->cgroup, run->spec.memory_bytes, run->spec.processes + SANDBOX_TASKS, err);
    if (rc == 0)
        rc = enter_namespaces(root, err);
    if (rc == 0)
        rc = kiln_root_build(&run->spec, &owner, &run->root, err);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = kiln_capture_open(&run->text[i], run->spec.text_bytes, owner.uid, owner.gid, err);
    if (rc)
        return rc;
    run->sandbox.spec = &run->spec;
    run->sandbox.cgroup = &run->cgroup;
    run->sandbox.text[0] = &run->text[0];
    run->sandbox.text[1] = &run->text[1];
    run->sandbox.root = root;
    rc = kiln_sandbox_launch(&run->sandbox, err);
    close(kiln_steal_fd(&run->text[0].write_end));
    close(kiln_steal_fd(&run->text[1].write_end));
    return rc;
}

static void end(struct run *run, enum kiln_run_end how, uint32_t value, const char *text) {
    if (run->report.end)
        return; // the first cause counts
    run->report.end = how;
    run->report.value = value;
    run->report.text = strdup(text);
}

static void end_by_text(struct run *run) {
    char text[120];
    for (int i = 0; i < 2; i++)
        if (run->text[i].exceeded) {
            snprintf(text, sizeof text, "%s grew over %llu bytes", i ? "stderr" : "stdout",
                     (unsigned long long)run->spec.text_bytes);
            end(run, KILN_END_TEXT, 0, text);
        }
}

static void end_by_wall(struct run *run) {
    char text[80];
    snprintf(text, sizeof text, "ran longer than %llu ms", (unsigned long long)run->spec.wall_ms);
    end(run, KILN_END_WALL, 0, text);
}

// Takes pending signals; true when the starter has gone or asks to stop.
static bool take_signals(struct run *run) {
    struct signalfd_siginfo info;
    bool stop = false;
    while (read(run->signals, &info, sizeof info) == sizeof info)
        stop |= info.ssi_signo != SIGCHLD;
    int status;
    if (!run->reaped && wait4(run->sandbox.pid, &status, WNOHANG, &run->usage) == run->sandbox.pid)
        run->reaped = true;
    return stop;
}

// Until the job has ended by itself or must be ended. False: the starter has gone, nobody wants a report.
static bool supervise(struct run *run) {
    uint64_t deadline_ms = run->started_ms + run->spec.wall_ms;
    while (!run->reaped && !run->report.end) {
        struct pollfd watch[] = {{.fd = run->signals, .events = POLLIN},
                                 {.fd = KILN_RUN_SOCKET_FD},
                                 {.fd = run->text[0].read_end, .events = POLLIN},
                                 {.fd = run->text[1].read_end, .events = POLLIN}};
        int ready = poll(watch, sizeof watch / sizeof *watch, kiln_clock_left_ms(deadline_ms));
        if (watch[1].revents || (watch[0].revents && take_signals(run)))
            return false;
        struct kiln_err err;
        for (int i = 0; ready > 0 && i < 2; i++)
            if (watch[2 + i].revents && kiln_capture_drain(&run->text[i], &err))
                end(run, KILN_END_BROKEN, 0, err.text);
        end_by_text(run);
        if (!run->reaped && kiln_clock_left_ms(deadline_ms) == 0)
            end_by_wall(run);
    }
    return true;
}

// The job's first process is init of its pid namespace: reaping it means that all others are gone too.
static void extinguish(struct run *run) {
    if (run->sandbox.pid <= 0 || run->reaped)
        return;
    kill(run->sandbox.pid, SIGKILL);
    while (wait4(run->sandbox.pid, NULL, 0, &run->usage) < 0 && errno == EINTR)
        ;
    run->reaped = true;
}

// bwrap never ran the job: what it, or the child that should have become it, said.
static void end_broken(struct run *run) {
    char said[BROKEN_TEXT_MAX + 1], text[BROKEN_TEXT_MAX + 300];
    ssize_t len = recv(run->sandbox.control, said, sizeof said - 1, MSG_DONTWAIT);
    if (len <= 0)
        len = pread(run->text[1].memfd, said, sizeof said - 1, 0);
    said[len > 0 ? len : 0] = 0;
    said[strcspn(said, "\n")] = 0;
    snprintf(text, sizeof text, "%s%s", *said ? said : "bwrap died", kiln_sandbox_hint(said));
    end(run, KILN_END_BROKEN, 0, text);
}

static void conclude(struct run *run) {
    struct kiln_err err;
    for (int i = 0; i < 2; i++)
        if (kiln_capture_drain(&run->text[i], &err))
            end(run, KILN_END_BROKEN, 0, err.text);
    end_by_text(run);
    uint64_t oom_kills;
    kiln_cgroup_read(&run->cgroup, &run->report.peak_bytes, &oom_kills);
    if (oom_kills)
        end(run, KILN_END_MEMORY, 0, "used more memory than it may");
    unsigned code;
    if (!kiln_sandbox_exit_code(&run->sandbox, &code))
        end_broken(run);
    else if (code > 128 && code < 128 + NSIG)
        end(run, KILN_END_SIGNAL, code - 128, strsignal((int)code - 128));
    else
        end(run, KILN_END_EXIT, code, "");
    run->report.wall_ms = kiln_clock_ms() - run->started_ms;
    const struct timeval *user = &run->usage.ru_utime, *kernel = &run->usage.ru_stime;
    run->report.cpu_ms = (uint64_t)(user->tv_sec + kernel->tv_sec) * 1000 + (uint64_t)(user->tv_usec + kernel->tv_usec) / 1000;
}

static int refuse(const struct kiln_err *refusal) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    kiln_buf_add_field_str(&text, refusal->text);
    kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_REFUSED, text.data, text.len, NULL, 0, NULL);
    return EXIT_FAILURE;
}

static int announce(const struct run *run, struct kiln_err *err) {
    const int fds[KILN_RUN_READY_FDS] = {run->root.out_dir, run->root.observer_dir, run->text[0].memfd,
                                         run->text[1].memfd};
    return kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_READY, NULL, 0, fds, KILN_RUN_READY_FDS, err);
}

static int run_job(struct run *run, const char *bwrap) {
    struct kiln_err err = {0};
    int rc = watch_signals(&run->signals, &err);
    if (rc == 0 && !starter_lives())
        return EXIT_FAILURE;
    if (rc == 0)
        rc = prepare(run, bwrap, &err);
    if (rc) {
        extinguish(run);
        return refuse(&err);
    }
    run->started_ms = kiln_clock_ms();
    if (announce(run, &err) || kiln_sandbox_go(&run->sandbox, &err) || !supervise(run)) {
        extinguish(run);
        return EXIT_FAILURE;
    }
    extinguish(run);
    conclude(run);
    kiln_cgroup_release(&run->cgroup);
    kiln_autobuf struct kiln_buf report = KILN_BUF_INIT(8192);
    if (kiln_run_report_encode(&run->report, &report, &err) ||
        kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_DONE, report.data, report.len, NULL, 0, &err))
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}

static int usage(FILE *out, int status) {
    fputs("usage: kiln-run [--bwrap PATH] [--self-test]\n"
          "Started by kiln-executor with a socket as descriptor 3 and a spec as descriptor 4; people use `kiln doctor`.\n"
          "--self-test starts a sandbox and tries its walls from inside.\n",
          out);
    return status;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"bwrap", required_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'v'},
        {"self-test", no_argument, NULL, 's'}, {"probe", required_argument, NULL, 'p'}, {0}};
    const char *bwrap = BWRAP_DEFAULT;
    bool self_test = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return usage(stdout, EXIT_SUCCESS);
        if (option == 'v')
            return puts("kiln-run " KILN_VERSION) < 0;
        if (option == 'p')
            return kiln_selftest_probe(optarg);
        if (option == 's') {
            self_test = true;
            continue;
        }
        if (option != 'b')
            return usage(stderr, 2);
        bwrap = optarg;
    }
    if (self_test)
        return kiln_selftest_run(bwrap);
    int type;
    socklen_t len = sizeof type;
    if (optind != argc || getsockopt(KILN_RUN_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
        return usage(stderr, 2);
    struct run run = {.root = KILN_ROOT_INIT,
                      .text = {KILN_CAPTURE_INIT, KILN_CAPTURE_INIT},
                      .sandbox = {.bwrap = -1, .control = -1, .status = -1},
                      .signals = -1};
    int status = run_job(&run, bwrap);
    release_run(&run);
    // No exit handlers: one that starts a thread or a child (a leak checker) finds itself in the job's pid namespace.
    _exit(status);
}
