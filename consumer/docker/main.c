// kiln-run-docker: kiln-run's counterpart for hosts whose sandbox is a container; the same protocol (consumer/run/spec.h).
//
// One container per job, made, started, removed. Docker raises the outer walls and is told to run kiln-init, which looks at
// them from inside and raises the last ones; with it this program talks through a socket of theirs, so that neither the
// job's order nor a byte of its output goes through dockerd. What belongs to the job ends when that socket closes.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/docker/container.h"
#include "consumer/docker/image.h"
#include "consumer/docker/usage.h"
#include "consumer/run/ending.h"
#include "consumer/run/sandbox.h"
#include "consumer/run/selftest.h"
#include "consumer/run/starter.h"
#include "consumer/run/watch.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define SOCKET_DEFAULT "/var/run/docker.sock"
#define WALLS_MS 18000 // less than the executor waits
#define MEET_MS 8000   // from the container's start to its init at the gate
#define END_MS 2000    // of init by itself; dockerd is asked after that
#define KILL_MS 3000
#define REMOVE_MS 3000
#define MESSAGE_BYTES_MAX 4096u

struct options {
    const char *socket, *dir;
    bool self_test, sweep, limits;
};

struct run {
    const struct options *options;
    struct kiln_run_spec spec;
    struct kiln_layout layout;
    struct kiln_job_dir job;
    struct kiln_mounts mounts;
    struct kiln_docker docker;
    struct kiln_container container;
    struct kiln_usage usage;
    struct kiln_watch watch;
    struct kiln_capture text[2];
    uid_t uid;
    gid_t gid;
    int signals, listener, gate, init; // init: a pidfd
    int out_dir, observer_dir, tmp_dir, root;
    uint64_t deadline_ms, started_ms;
    struct kiln_run_report report;
};

static void close_all(int *const *fds, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}

static void release_run(struct run *run) {
    int *const fds[] = {&run->signals, &run->listener, &run->gate, &run->init, &run->out_dir, &run->observer_dir,
                        &run->tmp_dir, &run->root};
    close_all(fds, sizeof fds / sizeof *fds);
    kiln_capture_release(&run->text[0]);
    kiln_capture_release(&run->text[1]);
    kiln_usage_release(&run->usage);
    kiln_watch_release(&run->watch);
    kiln_mounts_release(&run->mounts);
    kiln_job_dir_remove(&run->job);
    kiln_layout_release(&run->layout);
    kiln_docker_close(&run->docker);
    kiln_run_report_release(&run->report);
    kiln_run_spec_release(&run->spec);
}

static char *beside_self(const char *name) {
    char self[KILN_PATH_MAX + 1];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = 0;
    kiln_autofree char *dir = kiln_path_dir(self);
    return dir ? kiln_path_join(dir, name) : NULL;
}

static int make_container(struct run *run, struct kiln_err *err) {
    kiln_autofree char *image = NULL;
    kiln_autofree char *init = beside_self("kiln-init");
    int rc = init ? kiln_docker_open(run->options->socket, run->deadline_ms, &run->docker, err) : kiln_fail(err, KILN_E_NOMEM, "kiln-init");
    if (rc == 0)
        rc = kiln_container_sweep(&run->docker, run->options->dir, run->deadline_ms, err);
    if (rc == 0)
        rc = kiln_image_ensure(&run->docker, init, &run->spec, run->deadline_ms, &image, err);
    run->container.docker = &run->docker;
    const struct kiln_container_plan plan = {.image = image, .owner = run->options->dir, .job = run->job.name, .spec = &run->spec,
                                             .layout = &run->layout, .mounts = &run->mounts, .uid = run->uid, .gid = run->gid};
    if (rc == 0)
        rc = kiln_container_create(&run->container, &plan, run->deadline_ms, err);
    return rc ? rc : kiln_container_start(&run->container, run->deadline_ms, err);
}

// Whoever comes to the gate; that it is the container's init is found out by its process id.
static int meet(struct run *run, struct kiln_err *err) {
    uint64_t deadline_ms = kiln_clock_ms() + MEET_MS;
    struct pollfd watch[] = {{.fd = run->listener, .events = POLLIN}, {.fd = KILN_RUN_SOCKET_FD}, {.fd = run->signals, .events = POLLIN}};
    int ready;
    while ((ready = poll(watch, 3, kiln_clock_left_ms(deadline_ms))) < 0 && errno == EINTR)
        ;
    if (watch[1].revents || watch[2].revents)
        return kiln_fail(err, KILN_E_CLOSED, "told to end");
    run->gate = ready > 0 ? accept4(run->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (run->gate < 0)
        return kiln_fail(err, KILN_E_TIMEOUT, "the container's init did not come to the gate");
    close(kiln_steal_fd(&run->listener));
    return kiln_job_dir_close_gate(&run->job, err);
}

static int identify(struct run *run, struct kiln_err *err) {
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(run->gate, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "asking who is at the gate");
    if (peer.pid <= 0)
        return kiln_fail(err, KILN_E_DENIED, "dockerd's processes are not visible here: it must run on this host, not outside of a "
                                             "container around Kiln");
    run->init = pidfd_open(peer.pid, 0);
    if (run->init < 0)
        return kiln_fail_errno(err, KILN_E_IO, "the container's init");
    kiln_usage_open(&run->usage, peer.pid);
    return kiln_container_check(&run->container, &run->spec, peer.pid, run->deadline_ms, err);
}

static int write_order(const struct run *run, int *order_fd, struct kiln_err *err) {
    static const char *const names[] = {"net", "ipc", "uts", "pid", "mnt", "cgroup"};
    struct kiln_gate_namespace namespaces[sizeof names / sizeof *names];
    struct kiln_gate_order order = {.uid = run->uid, .gid = run->gid, .namespaces = namespaces, .mounts = run->mounts.all,
                                    .mounts_count = run->mounts.count, .spec = run->spec};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[40];
        struct stat st;
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        if (stat(path, &st) == 0) // a kernel may have no namespaces of control groups
            namespaces[order.namespaces_count++] = (struct kiln_gate_namespace){(char *)names[i], st.st_ino};
    }
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_GATE_ORDER_MAX);
    int rc = kiln_gate_order_encode(&order, &bytes, err);
    kiln_autofd int memfd = rc ? -1 : memfd_create("kiln-order", MFD_CLOEXEC);
    if (rc == 0 && memfd < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "a memfd for the order");
    if (rc == 0)
        rc = kiln_fs_write_all(memfd, bytes.data, bytes.len, err);
    if (rc == 0)
        *order_fd = kiln_steal_fd(&memfd);
    return rc;
}

static int give_order(struct run *run, struct kiln_err *err) {
    kiln_autofd int order = -1;
    int rc = write_order(run, &order, err);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = kiln_capture_open(&run->text[i], run->spec.text_bytes, run->uid, run->gid, err);
    const int fds[KILN_GATE_ORDER_FDS] = {order, run->text[0].write_end, run->text[1].write_end};
    if (rc == 0)
        rc = kiln_run_send(run->gate, KILN_RUN_READY, NULL, 0, fds, KILN_GATE_ORDER_FDS, err);
    for (size_t i = 0; i < 2; i++)
        if (run->text[i].write_end >= 0)
            close(kiln_steal_fd(&run->text[i].write_end));
    return rc;
}

static int refused(const struct kiln_buf *payload, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(payload->data, payload->len);
    kiln_autofree char *text = kiln_read_field_text(&reader, MESSAGE_BYTES_MAX);
    return kiln_fail(err, KILN_E_DENIED, "%s", text ? text : "the container's init refused");
}

static int check_directory(int dir, struct kiln_err *err) {
    struct statfs fs;
    struct stat st;
    if (fstatfs(dir, &fs) < 0 || fs.f_type != TMPFS_MAGIC || fstat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return kiln_fail(err, KILN_E_DENIED, "the container's directories are not what they should be");
    if (geteuid() != 0 && st.st_uid != geteuid())
        return kiln_fail(err, KILN_E_DENIED, "this dockerd gives users other names (rootless or userns-remap): Kiln must run as "
                                             "root with it");
    return 0;
}

// The container's next word, which is to be READY with so many descriptors.
static int hear(struct run *run, int *fds, size_t count, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_BYTES_MAX);
    enum kiln_run_message message;
    int rc = kiln_run_receive(run->gate, run->deadline_ms, &message, &payload, fds, count, err);
    if (rc == 0 && message != KILN_RUN_READY)
        rc = message == KILN_RUN_REFUSED ? refused(&payload, err) : kiln_fail(err, KILN_E_CORRUPT, "that is no word of kiln-init");
    return rc;
}

static int hear_ready(struct run *run, struct kiln_err *err) {
    int fds[KILN_GATE_READY_FDS];
    int rc = run->spec.watch_fd ? hear(run, &run->watch.listener, 1, err) : 0;
    if (rc == 0)
        rc = hear(run, fds, KILN_GATE_READY_FDS, err);
    if (rc)
        return rc;
    run->out_dir = fds[0];
    run->observer_dir = fds[1];
    run->tmp_dir = fds[2];
    run->watch.root = run->root = fds[3];
    rc = check_directory(run->out_dir, err);
    return rc ? rc : check_directory(run->observer_dir, err);
}

static int prepare(struct run *run, struct kiln_err *err) {
    const bool root = geteuid() == 0;
    run->uid = root ? KILN_SANDBOX_UID : geteuid();
    run->gid = root ? KILN_SANDBOX_UID : getegid();
    umask(022);
    int rc = kiln_starter_read_spec(&run->spec, err);
    if (rc == 0 && run->spec.watch_fd)
        rc = kiln_watch_prepare(&run->watch, run->spec.observer_dir, err);
    if (rc == 0)
        rc = kiln_layout_make(&run->spec, &run->layout, err);
    if (rc == 0)
        rc = kiln_mounts_check(&run->spec, &run->layout, err);
    if (rc == 0)
        rc = kiln_job_dir_make(run->options->dir, &run->spec, &run->job, err);
    if (rc == 0)
        rc = kiln_mounts_make(&run->layout, &run->job, &run->mounts, err);
    if (rc == 0)
        rc = kiln_job_dir_open_gate(&run->job, &run->listener, err);
    if (rc == 0)
        rc = make_container(run, err);
    if (rc == 0)
        rc = meet(run, err);
    if (rc == 0)
        rc = identify(run, err);
    if (rc == 0)
        rc = give_order(run, err);
    return rc ? rc : hear_ready(run, err);
}

// The job's end, as init tells it, before anything else of the job is gone.
static bool hear_end(struct run *run, unsigned *code) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_BYTES_MAX);
    enum kiln_run_message message;
    struct kiln_err err = {0};
    int rc = kiln_run_receive(run->gate, kiln_clock_ms(), &message, &payload, NULL, 0, &err);
    kiln_usage_take(&run->usage);
    struct kiln_reader reader = KILN_READER_INIT(payload.data, payload.len);
    int status = (int)kiln_read_be32(&reader);
    if (rc == 0 && message == KILN_RUN_DONE && kiln_reader_done(&reader)) {
        *code = WIFEXITED(status) ? (unsigned)WEXITSTATUS(status) : 128u + (unsigned)WTERMSIG(status);
        return true;
    }
    if (rc == 0 && message == KILN_RUN_REFUSED) {
        refused(&payload, &err);
        kiln_ending_set(&run->report, KILN_END_BROKEN, 0, err.text);
    }
    return false;
}

// Until the job has ended by itself (*ended) or must be ended. False: the starter has gone or asks to stop.
static bool supervise(struct run *run, bool *ended, unsigned *code) {
    uint64_t deadline_ms = run->started_ms + run->spec.wall_ms;
    while (!*ended && !run->report.end) {
        struct pollfd watch[] = {{.fd = run->signals, .events = POLLIN},
                                 {.fd = KILN_RUN_SOCKET_FD},
                                 {.fd = run->gate, .events = POLLIN},
                                 {.fd = run->text[0].read_end, .events = POLLIN},
                                 {.fd = run->text[1].read_end, .events = POLLIN},
                                 {.fd = run->watch.listener, .events = POLLIN}};
        int ready = poll(watch, sizeof watch / sizeof *watch, kiln_clock_left_ms(deadline_ms));
        if (ready > 0 && (watch[1].revents || kiln_starter_asks_to_end(run->signals)))
            return false;
        if (ready > 0 && watch[5].revents & POLLIN)
            kiln_watch_serve(&run->watch);
        kiln_ending_by_texts(&run->report, run->text);
        if (ready > 0 && watch[2].revents) {
            *ended = hear_end(run, code);
            return true; // else init has gone: why is seen when all of it is over
        }
        if (kiln_clock_left_ms(deadline_ms) == 0)
            kiln_ending_by_wall(&run->report, run->spec.wall_ms);
    }
    return true;
}

static bool is_over(const struct run *run, uint64_t wait_ms) {
    struct pollfd watch = {.fd = run->init, .events = POLLIN};
    uint64_t deadline_ms = kiln_clock_ms() + wait_ms;
    int ready;
    while ((ready = poll(&watch, 1, kiln_clock_left_ms(deadline_ms))) < 0 && errno == EINTR)
        ;
    return ready > 0;
}

// The kernel says that init has ended only after all other processes of its namespace have. False: they live on.
static bool extinguish(struct run *run) {
    kiln_usage_take(&run->usage);
    if (run->gate >= 0)
        close(kiln_steal_fd(&run->gate));
    if (run->init < 0)
        return true;
    if (is_over(run, END_MS))
        return true;
    pidfd_send_signal(run->init, SIGKILL, NULL, 0); // allowed for root and for the job's own user
    kiln_container_kill(&run->container, kiln_clock_ms() + KILL_MS, NULL);
    return is_over(run, KILL_MS);
}

static void conclude(struct run *run, bool over, bool ended, unsigned code) {
    if (!over) {
        kiln_run_report_release(&run->report);
        kiln_ending_set(&run->report, KILN_END_BROKEN, 0, "the container does not end");
    }
    kiln_ending_by_texts(&run->report, run->text);
    bool unknown = !ended && !run->report.end; // the kernel may have ended init too
    if (run->usage.oom_kills || (unknown && kiln_container_ran_out_of_memory(&run->container, kiln_clock_ms() + KILL_MS)))
        kiln_ending_set(&run->report, KILN_END_MEMORY, 0, "used more memory than it may");
    if (ended && code)
        kiln_ending_by_space(&run->report, (const int[]){run->out_dir, run->tmp_dir}, 2);
    if (ended)
        kiln_ending_by_code(&run->report, code);
    else
        kiln_ending_set(&run->report, KILN_END_BROKEN, 0, "the container was ended by somebody else");
    run->report.wall_ms = kiln_clock_ms() - run->started_ms;
    run->report.peak_bytes = run->usage.peak_bytes;
    run->report.cpu_ms = run->usage.cpu_ms;
}

static int go(struct run *run, struct kiln_err *err) {
    const int fds[KILN_RUN_READY_FDS] = {run->out_dir, run->observer_dir, run->text[0].memfd, run->text[1].memfd};
    int rc = kiln_starter_ready(fds, err);
    run->started_ms = kiln_clock_ms();
    return rc ? rc : kiln_run_send(run->gate, KILN_RUN_READY, NULL, 0, NULL, 0, err);
}

static void clean_up(struct run *run) {
    kiln_container_remove(&run->container, kiln_clock_ms() + REMOVE_MS, NULL); // else the next sweep does
    kiln_job_dir_remove(&run->job);
}

static int run_job(struct run *run) {
    struct kiln_err err = {0};
    unsigned code = 0;
    bool ended = false;
    int rc = kiln_starter_watch(&run->signals, &err);
    if (rc == 0 && !kiln_starter_lives())
        return EXIT_FAILURE;
    run->deadline_ms = kiln_clock_ms() + WALLS_MS;
    if (rc == 0)
        rc = prepare(run, &err);
    if (rc) {
        extinguish(run);
        kiln_starter_refuse(&err);
        clean_up(run);
        return EXIT_FAILURE;
    }
    bool wanted = go(run, &err) == 0 && supervise(run, &ended, &code);
    bool over = extinguish(run);
    if (wanted)
        conclude(run, over, ended, code);
    if (wanted && run->spec.watch_fd)
        wanted = kiln_watch_write(&run->watch, (int)run->spec.watch_fd, &err) == 0;
    wanted = wanted && kiln_starter_done(&run->report, &err) == 0; // who takes the outputs need not wait for dockerd
    clean_up(run);
    return wanted ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int sweep(const struct options *options) {
    struct kiln_docker docker = {0};
    struct kiln_err err = {0};
    uint64_t deadline_ms = kiln_clock_ms() + WALLS_MS;
    int rc = kiln_docker_open(options->socket, deadline_ms, &docker, &err);
    if (rc == 0)
        rc = kiln_container_sweep(&docker, options->dir, deadline_ms, &err);
    if (rc == 0)
        rc = kiln_job_dir_sweep(options->dir, &err);
    kiln_docker_close(&docker);
    if (rc)
        fprintf(stderr, "%s\n", err.text);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

// As kiln-run --limits does (consumer/run/host_limits.h), from what dockerd says of its host.
static int print_limits(const struct options *options) {
    static const struct {
        const char *field, *name, *good, *weak;
    } limits[] = {{"MemoryLimit", "limit_memory", "of the whole job, by its container", "is not bounded on this host: docker info says why"},
                  {"SwapLimit", "limit_swap", "a job cannot swap more than its memory",
                   "is not bounded: boot with swapaccount=1, or run without swap"},
                  {"PidsLimit", "limit_processes", "of the whole job, by its container", "is not bounded on this host: docker info says why"},
                  {"CPUShares", "limit_cpu", "a job has its share, however many processes another one starts",
                   "a job with more processes takes more of the processors: docker info says why"}};
    struct kiln_docker docker = {0};
    struct kiln_err err = {0};
    json_t *answer = NULL;
    const struct kiln_docker_request request = {.method = "GET", .path = "/info", .deadline_ms = kiln_clock_ms() + WALLS_MS};
    bool all = true;
    int rc = kiln_docker_open(options->socket, request.deadline_ms, &docker, &err);
    if (rc == 0)
        rc = kiln_docker_ask(&docker, &request, &answer, &err);
    for (size_t i = 0; rc == 0 && i < sizeof limits / sizeof *limits; i++) {
        bool holds = json_is_true(json_object_get(answer, limits[i].field));
        printf("%s %s %s\n", holds ? "ok" : "weak", limits[i].name, holds ? limits[i].good : limits[i].weak);
        all &= holds;
    }
    json_decref(answer);
    kiln_docker_close(&docker);
    if (rc)
        fprintf(stderr, "%s\n", err.text);
    return rc == 0 && all ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(FILE *out, int status) {
    fputs("usage: kiln-run-docker [--socket PATH] --dir DIR [--self-test | --limits | --sweep]\n"
          "Started by kiln-executor with a socket as descriptor 3 and a spec as descriptor 4; people use `kiln doctor`.\n"
          "--socket: dockerd's, " SOCKET_DEFAULT " if not given. --dir: an absolute path, for jobs' small files.\n"
          "--self-test starts a container and tries its walls from inside; --limits says which limits hold on this host;\n"
          "--sweep removes what killed jobs of DIR have left.\n",
          out);
    return status;
}

static int parse_options(int argc, char **argv, struct options *options) {
    static const struct option known[] = {
        {"socket", required_argument, NULL, 'd'}, {"dir", required_argument, NULL, 'D'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'}, {"self-test", no_argument, NULL, 's'}, {"sweep", no_argument, NULL, 'S'},
        {"limits", no_argument, NULL, 'l'}, {"probe", required_argument, NULL, 'p'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h')
            return usage(stdout, EXIT_SUCCESS);
        if (option == 'v')
            return puts("kiln-run-docker " KILN_VERSION) < 0;
        if (option == 'p')
            return kiln_selftest_probe(optarg);
        if (option == 'd')
            options->socket = optarg;
        else if (option == 'D')
            options->dir = optarg;
        else if (option == 's')
            options->self_test = true;
        else if (option == 'S')
            options->sweep = true;
        else if (option == 'l')
            options->limits = true;
        else
            return usage(stderr, 2);
    }
    return optind != argc || !options->dir || kiln_path_check_absolute(options->dir, NULL) ? usage(stderr, 2) : -1;
}

int main(int argc, char **argv) {
    struct options options = {.socket = SOCKET_DEFAULT};
    int status = parse_options(argc, argv, &options), type;
    socklen_t len = sizeof type;
    if (status >= 0)
        return status;
    signal(SIGPIPE, SIG_IGN);
    if (options.sweep)
        return sweep(&options);
    if (options.limits)
        return print_limits(&options);
    if (options.self_test) {
        const char *const arguments[] = {"--socket", options.socket, "--dir", options.dir, NULL};
        status = kiln_selftest_run(NULL, arguments);
        print_limits(&options);
        return status;
    }
    if (getsockopt(KILN_RUN_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
        return usage(stderr, 2);
    struct run run = {.options = &options, .job = KILN_JOB_DIR_INIT, .usage = KILN_USAGE_INIT, .watch = KILN_WATCH_INIT,
                      .text = {KILN_CAPTURE_INIT, KILN_CAPTURE_INIT}, .signals = -1, .listener = -1, .gate = -1, .init = -1,
                      .out_dir = -1, .observer_dir = -1, .tmp_dir = -1, .root = -1};
    status = run_job(&run);
    release_run(&run);
    return status;
}
