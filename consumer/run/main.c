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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/capture.h"
#include "consumer/run/cgroup.h"
#include "consumer/run/ending.h"
#include "consumer/run/host_limits.h"
#include "consumer/run/root.h"
#include "consumer/run/sandbox.h"
#include "consumer/run/selftest.h"
#include "consumer/run/starter.h"
#include "consumer/run/userns.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define BWRAP_DEFAULT "/usr/bin/bwrap"
#define SANDBOX_TASKS 2u // bwrap's monitor and its init, counted by the control group too
#define BROKEN_TEXT_MAX 300u

struct run {
    struct kiln_run_spec spec;
    struct kiln_cgroup cgroup;
    struct kiln_root root;
    struct kiln_capture text[2];
    struct kiln_sandbox sandbox;
    struct kiln_watch watch;
    int signals; // signalfd: SIGCHLD, SIGTERM
    bool reaped;
    struct rusage usage;
    uint64_t started_ms;
    struct kiln_run_report report;
};

static void release_run(struct run *run) {
    kiln_capture_release(&run->text[0]);
    kiln_capture_release(&run->text[1]);
    kiln_watch_release(&run->watch);
    kiln_root_release(&run->root);
    kiln_cgroup_release(&run->cgroup);
    kiln_run_report_release(&run->report);
    kiln_run_spec_release(&run->spec);
    int *const fds[] = {&run->sandbox.bwrap, &run->sandbox.control, &run->sandbox.status, &run->signals};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
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
    int rc = kiln_starter_read_spec(&run->spec, err);
    if (rc == 0)
        rc = kiln_sandbox_find(bwrap, &run->sandbox.bwrap, err);
    if (rc == 0)
        rc = kiln_cgroup_open(&run->cgroup, run->spec.memory_bytes, run->spec.processes + SANDBOX_TASKS, err);
    if (rc == 0 && run->spec.watch_fd)
        rc = kiln_watch_prepare(&run->watch, run->spec.observer_dir, err);
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
    run->watch.root = run->root.dir;
    run->sandbox.watch = run->spec.watch_fd ? &run->watch : NULL;
    rc = kiln_sandbox_launch(&run->sandbox, err);
    close(kiln_steal_fd(&run->text[0].write_end));
    close(kiln_steal_fd(&run->text[1].write_end));
    return rc;
}

static void reap(struct run *run) {
    int status;
    if (!run->reaped && wait4(run->sandbox.pid, &status, WNOHANG, &run->usage) == run->sandbox.pid)
        run->reaped = true;
}

// Until the job has ended by itself or must be ended. False: the starter has gone or asks to stop, nobody wants a report.
static bool supervise(struct run *run) {
    uint64_t deadline_ms = run->started_ms + run->spec.wall_ms;
    while (!run->reaped && !run->report.end) {
        struct pollfd watch[] = {{.fd = run->signals, .events = POLLIN},
                                 {.fd = KILN_RUN_SOCKET_FD},
                                 {.fd = run->text[0].read_end, .events = POLLIN},
                                 {.fd = run->text[1].read_end, .events = POLLIN},
                                 {.fd = run->watch.listener, .events = POLLIN}};
        int ready = poll(watch, sizeof watch / sizeof *watch, kiln_clock_left_ms(deadline_ms));
        if (ready > 0 && (watch[1].revents || kiln_starter_asks_to_end(run->signals)))
            return false;
        if (ready > 0 && watch[4].revents & POLLIN)
            kiln_watch_serve(&run->watch);
        reap(run);
        kiln_ending_by_texts(&run->report, run->text);
        if (!run->reaped && kiln_clock_left_ms(deadline_ms) == 0)
            kiln_ending_by_wall(&run->report, run->spec.wall_ms);
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
    kiln_ending_set(&run->report, KILN_END_BROKEN, 0, text);
}

static void conclude(struct run *run) {
    kiln_ending_by_texts(&run->report, run->text);
    uint64_t oom_kills;
    kiln_cgroup_read(&run->cgroup, &run->report.peak_bytes, &oom_kills);
    if (oom_kills)
        kiln_ending_set(&run->report, KILN_END_MEMORY, 0, "used more memory than it may");
    unsigned code;
    bool ended = kiln_sandbox_exit_code(&run->sandbox, &code);
    if (ended && code)
        kiln_ending_by_space(&run->report, (const int[]){run->root.out_dir, run->root.tmp_dir}, 2);
    if (ended)
        kiln_ending_by_code(&run->report, code);
    else
        end_broken(run);
    run->report.wall_ms = kiln_clock_ms() - run->started_ms;
    const struct timeval *user = &run->usage.ru_utime, *kernel = &run->usage.ru_stime;
    run->report.cpu_ms = (uint64_t)(user->tv_sec + kernel->tv_sec) * 1000 + (uint64_t)(user->tv_usec + kernel->tv_usec) / 1000;
}

static int announce(const struct run *run, struct kiln_err *err) {
    const int fds[KILN_RUN_READY_FDS] = {run->root.out_dir, run->root.observer_dir, run->text[0].memfd,
                                         run->text[1].memfd};
    return kiln_starter_ready(fds, err);
}

static int run_job(struct run *run, const char *bwrap) {
    struct kiln_err err = {0};
    int rc = kiln_starter_watch(&run->signals, &err);
    if (rc == 0 && !kiln_starter_lives())
        return EXIT_FAILURE;
    if (rc == 0)
        rc = prepare(run, bwrap, &err);
    if (rc) {
        extinguish(run);
        kiln_starter_refuse(&err);
        return EXIT_FAILURE;
    }
    run->started_ms = kiln_clock_ms();
    if (announce(run, &err) || kiln_sandbox_go(&run->sandbox, &err) || !supervise(run)) {
        extinguish(run);
        return EXIT_FAILURE;
    }
    extinguish(run);
    if (run->spec.watch_fd && kiln_watch_write(&run->watch, (int)run->spec.watch_fd, &err))
        kiln_ending_set(&run->report, KILN_END_BROKEN, 0, err.text);
    conclude(run);
    kiln_cgroup_release(&run->cgroup);
    return kiln_starter_done(&run->report, &err) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int usage(FILE *out, int status) {
    fputs("usage: kiln-run [--bwrap PATH] [--self-test | --limits]\n"
          "Started by kiln-executor with a socket as descriptor 3 and a spec as descriptor 4; people use `kiln doctor`.\n"
          "--self-test starts a sandbox and tries its walls from inside; --limits says which limits hold on this host.\n",
          out);
    return status;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"bwrap", required_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'v'},
        {"self-test", no_argument, NULL, 's'}, {"limits", no_argument, NULL, 'l'}, {"probe", required_argument, NULL, 'p'}, {0}};
    const char *bwrap = BWRAP_DEFAULT;
    bool self_test = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return usage(stdout, EXIT_SUCCESS);
        if (option == 'v')
            return puts("kiln-run " KILN_VERSION) < 0;
        if (option == 'l')
            return kiln_host_limits_print() ? EXIT_SUCCESS : EXIT_FAILURE;
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
    if (self_test) {
        int status = kiln_selftest_run(bwrap, NULL);
        kiln_host_limits_print(); // what is weak is no wall that does not stand
        return status;
    }
    int type;
    socklen_t len = sizeof type;
    if (optind != argc || getsockopt(KILN_RUN_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
        return usage(stderr, 2);
    struct run run = {.root = KILN_ROOT_INIT,
                      .text = {KILN_CAPTURE_INIT, KILN_CAPTURE_INIT},
                      .watch = KILN_WATCH_INIT,
                      .sandbox = {.bwrap = -1, .control = -1, .status = -1},
                      .signals = -1};
    int status = run_job(&run, bwrap);
    release_run(&run);
    // No exit handlers: one that starts a thread or a child (a leak checker) finds itself in the job's pid namespace.
    _exit(status);
}
