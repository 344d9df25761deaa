// What the sandbox tests share: a standard root, one job in it, and the same tests as root and as an ordinary user.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/client.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/rustc/paths.h"

// A test file can be built twice, for both backends: as it is, and with RIG_DOCKER, when all of its jobs run in containers.
#ifdef RIG_DOCKER
#define RIG_LEAKS false // what bubblewrap needs can be taken away (struct rig, without); here: tests/docker/leaky_docker.c
#define RIG_ROUNDS(many) 2 // of what takes a container each
#include "tests/docker/docker_rig.h"
static struct docker_rig rig_docker;
static char rig_jobs[64]; // where kiln-run-docker keeps small files
#else
#define RIG_LEAKS true
#define RIG_ROUNDS(many) (many)
#endif

#define RIG_ARGS_MAX 24
#define RIG_BINDS_MAX 16
#define RIG_TEXT_MAX (8u << 20)
#define RIG_USER 12345u

struct rig {
    struct kiln_run_spec spec;
    struct kiln_run_bind binds[RIG_BINDS_MAX];
    struct kiln_run_link links[4];
    struct kiln_run_file files[4];
    char *argv[RIG_ARGS_MAX];
    char *env[RIG_ARGS_MAX];
    const char *bwrap;
#ifdef RIG_DOCKER
    bool bubblewrap;     // this one behind bubblewrap all the same
#endif
    const char *without; // walls that leaky_bwrap.c and leaky_run.c (tests/attack) leave out; NULL: all stand
    struct kiln_run_session session;
    struct kiln_run_report report;
    struct kiln_buf out, errout;
    struct kiln_err err;
    char *places[6];
};

// What the tests start. As root they are copied to where an ordinary user gets at them, wherever the build lies.
static const char *const rig_programs[] = {"consumer/kiln-run", "consumer/kiln-executor", "consumer/libkiln-observe.so",
                                           "tests/sandbox_job", "tests/executor_compiler", "tests/leaky_bwrap",
                                           "tests/leaky_run", "tests/attacker", "tests/watched_calls",
                                           "tests/watched_calls_static", "consumer/kiln-run-docker", "consumer/kiln-init", "tests/leaky_docker"};
static char rig_dir[64]; // with those programs; "" for the build itself

// One of rig_programs; valid as long as the tests run.
static inline const char *rig_program(const char *name) {
    static char paths[sizeof rig_programs / sizeof *rig_programs][512];
    for (size_t i = 0; i < sizeof rig_programs / sizeof *rig_programs; i++)
        if (!strcmp(rig_programs[i], name)) {
            snprintf(paths[i], sizeof paths[i], "%s/%s", *rig_dir ? rig_dir : KILN_BINARY_DIR, name);
            return paths[i];
        }
    fail_msg("%s is not one of the rig's programs", name);
    return NULL;
}

#ifdef RIG_DOCKER
#define RIG_RUN rig_program("consumer/kiln-run-docker")
#else
#define RIG_RUN rig_program("consumer/kiln-run")
#endif
#define RIG_JOB rig_program("tests/sandbox_job")

static inline bool rig_copy_programs(void) {
    strcpy(rig_dir, "/tmp/kiln-programs-XXXXXX");
    if (!mkdtemp(rig_dir) || chmod(rig_dir, 0755))
        return false;
    for (size_t i = 0; i < sizeof rig_programs / sizeof *rig_programs; i++) {
        kiln_autofree char *from = kiln_path_join(KILN_BINARY_DIR, rig_programs[i]);
        kiln_autofree char *to = kiln_path_join(rig_dir, rig_programs[i]);
        kiln_autofree char *parent = kiln_path_dir(to);
        kiln_autofd int in = open(from, O_RDONLY | O_CLOEXEC);
        if (in < 0 && errno == ENOENT)
            continue; // a test that needs it will say so
        if (kiln_fs_make_dirs(AT_FDCWD, parent, 0755, NULL))
            return false;
        kiln_autofd int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
        if (kiln_fs_copy_fd(in, out, 256u << 20, NULL, NULL) || fchmod(out, 0755))
            return false;
    }
    return true;
}

static inline int rig_open(const char *path) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        fail_msg("cannot open %s: %s", path, strerror(errno));
    return fd;
}

static inline void rig_bind_fd(struct rig *rig, int fd, const char *dest, bool file) {
    assert_true(rig->spec.binds_count < RIG_BINDS_MAX);
    rig->binds[rig->spec.binds_count++] = (struct kiln_run_bind){(uint32_t)fd, (char *)dest, file};
}

static inline void rig_bind(struct rig *rig, const char *source, const char *dest) {
    struct stat st;
    int fd = rig_open(source);
    assert_int_equal(fstat(fd, &st), 0);
    rig_bind_fd(rig, fd, dest, S_ISREG(st.st_mode));
}

static inline char *rig_place(struct rig *rig, size_t slot, const char *place) {
    rig->places[slot] = kiln_place(place, NULL);
    assert_non_null(rig->places[slot]);
    return rig->places[slot];
}

// /usr of the host with its usual links, the job program at /job, an out, a tmp and an observer directory.
static inline void rig_init(struct rig *rig) {
    *rig = (struct rig){.session = KILN_RUN_SESSION_INIT, .out = KILN_BUF_INIT(RIG_TEXT_MAX),
                        .errout = KILN_BUF_INIT(RIG_TEXT_MAX)};
    rig->spec = (struct kiln_run_spec){.binds = rig->binds, .links = rig->links, .files = rig->files,
                                       .argv = rig->argv, .env = rig->env,
                                       .out_bytes = 16u << 20, .tmp_bytes = 16u << 20, .observer_bytes = 8u << 20,
                                       .inodes = 1000, .wall_ms = 20000, .memory_bytes = 256u << 20,
                                       .file_bytes = 64u << 20, .text_bytes = 1u << 20, .processes = 64};
    memset(rig->spec.seed, 7, sizeof rig->spec.seed);
    rig->spec.cwd = rig_place(rig, 0, KILN_PLACE_WORKSPACE);
    rig->spec.out_dir = rig_place(rig, 1, KILN_PLACE_TARGET);
    rig->spec.observer_dir = rig_place(rig, 2, KILN_PLACE_OBSERVER);
    rig->spec.tmp_dir = (char *)"/tmp";
    rig_bind(rig, "/usr", "/usr");
    rig_bind(rig, RIG_JOB, "/job");
    static const char *const links[][2] = {{"/lib", "usr/lib"}, {"/lib64", "usr/lib64"}, {"/bin", "usr/bin"}};
    for (size_t i = 0; i < 3; i++)
        rig->links[rig->spec.links_count++] = (struct kiln_run_link){(char *)links[i][0], (char *)links[i][1]};
}

static inline void rig_vcommand(struct rig *rig, const char *first, va_list more) {
    rig->spec.argc = 0;
    for (const char *arg = first; arg; arg = va_arg(more, const char *)) {
        assert_true(rig->spec.argc < RIG_ARGS_MAX - 1);
        rig->argv[rig->spec.argc++] = (char *)arg;
    }
}

static inline int rig_start(struct rig *rig) {
    kiln_autofree char *without = NULL;
    if (rig->without) {
        assert_true(asprintf(&without, "KILN_WITHOUT=%s", rig->without) > 0);
        rig->env[rig->spec.env_count++] = without;
    }
#ifdef RIG_DOCKER
    const char *const of_docker[] = {"--socket", rig_docker.socket, "--dir", rig_jobs, NULL};
    const char *const *const arguments = rig->bubblewrap ? NULL : of_docker;
    const char *const program = without ? rig_program("tests/leaky_docker") : rig->bubblewrap ? rig_program("consumer/kiln-run") : RIG_RUN;
#else
    const char *const *const arguments = NULL;
    const char *const program = without ? rig_program("tests/leaky_run") : RIG_RUN;
#endif
    const struct kiln_run_options options = {
        .program = program, .arguments = arguments, .bwrap = rig->bwrap, .deadline_ms = kiln_clock_ms() + 20000};
    return kiln_run_start(&options, &rig->spec, &rig->session, &rig->err);
}

static inline void rig_read_text(int fd, struct kiln_buf *text) {
    assert_true(lseek(fd, 0, SEEK_SET) == 0);
    assert_int_equal(kiln_fs_read_fd(fd, text, NULL), 0);
}

static inline void rig_finish(struct rig *rig) {
    struct kiln_err err = {0};
    if (kiln_run_wait(&rig->session, kiln_clock_ms() + 60000, &rig->report, &err))
        fail_msg("waiting: %s", err.text);
    rig_read_text(rig->session.stdout_text, &rig->out);
    rig_read_text(rig->session.stderr_text, &rig->errout);
}

// Starts and waits; a refusal fails the test.
static inline void rig_go(struct rig *rig) {
    if (rig_start(rig))
        fail_msg("refused: %s", rig->err.text);
    rig_finish(rig);
}

// `/job FIRST ...`, ended by NULL.
static inline __attribute__((sentinel)) void rig_run(struct rig *rig, const char *first, ...) {
    va_list more;
    va_start(more, first);
    rig_vcommand(rig, first, more);
    va_end(more);
    memmove(rig->argv + 1, rig->argv, rig->spec.argc * sizeof *rig->argv);
    rig->argv[0] = (char *)"/job";
    rig->spec.argc++;
    rig_go(rig);
}

static inline __attribute__((sentinel)) void rig_command(struct rig *rig, const char *first, ...) {
    va_list more;
    va_start(more, first);
    rig_vcommand(rig, first, more);
    va_end(more);
}

static inline void rig_release(struct rig *rig) {
    kiln_run_release(&rig->session);
    kiln_run_report_release(&rig->report);
    kiln_buf_release(&rig->out);
    kiln_buf_release(&rig->errout);
    for (size_t i = 0; i < rig->spec.binds_count; i++)
        close((int)rig->binds[i].fd);
    for (size_t i = 0; i < sizeof rig->places / sizeof *rig->places; i++)
        free(rig->places[i]);
}
#define rig_auto __attribute__((cleanup(rig_release)))

static inline void rig_assert_end(const struct rig *rig, enum kiln_run_end how, unsigned value) {
    if (rig->report.end != (uint32_t)how || rig->report.value != value)
        fail_msg("ended by %u with %u (\"%s\"), expected %d with %u; stderr: %.300s", rig->report.end, rig->report.value,
                 rig->report.text, how, value, kiln_buf_text((struct kiln_buf *)&rig->errout));
}

// With docker: what killed jobs have left is removed by a sweep, all of it.
static inline void rig_assert_swept(void) {
#ifdef RIG_DOCKER
    char *argv[] = {(char *)"kiln-run-docker", (char *)"--socket", rig_docker.socket, (char *)"--dir", rig_jobs, (char *)"--sweep", NULL};
    char *const envp[] = {NULL};
    const struct kiln_proc_options options = {.program = RIG_RUN, .argv = argv, .envp = envp};
    uint64_t deadline_ms = kiln_clock_ms() + 15000;
    for (bool swept = false; !swept;) { // dockerd may still be at the container of one that was killed
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(65536), errout = KILN_BUF_INIT(65536);
        int status = -1;
        assert_int_equal(kiln_proc_run(&options, deadline_ms, &out, &errout, &status, NULL), 0);
        if (status)
            fail_msg("sweeping: %s", kiln_buf_text(&errout));
        int left = docker_rig_containers(&rig_docker);
        swept = left == 0 && rmdir(rig_jobs) == 0;
        if (!swept && kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("%d containers, or files in %s, are left", left, rig_jobs);
    }
    assert_int_equal(mkdir(rig_jobs, 0700), 0);
#endif
}

static inline void rig_assert_out(struct rig *rig, const char *expected) {
    assert_string_equal(kiln_buf_text(&rig->out), expected);
}

// One job with one argument that must exit with 0 and print `expected`.
static inline void rig_expect(const char *job, const char *argument, const char *expected) {
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, job, argument, NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, expected);
}

static inline int rig_as_user(int (*tests)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) || setresgid(RIG_USER, RIG_USER, RIG_USER) || setresuid(RIG_USER, RIG_USER, RIG_USER) ||
            prctl(PR_SET_DUMPABLE, 1))
            _exit(99);
        exit(tests());
    }
    int status;
    waitpid(pid, &status, 0);
    int failed = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (failed)
        fprintf(stderr, "%d tests failed as uid %u\n", failed, RIG_USER);
    return failed;
}

#ifdef RIG_DOCKER
static int (*rig_docker_tests)(void);

static inline int rig_with_jobs(void) {
    strcpy(rig_jobs, "/tmp/kiln-jobs-XXXXXX");
    if (!mkdtemp(rig_jobs))
        return 1;
    int failed = rig_docker_tests();
    kiln_fs_remove_tree(AT_FDCWD, rig_jobs, NULL);
    return failed;
}

static inline int rig_in_docker(int (*tests)(void)) {
    int status = docker_rig_up(&rig_docker);
    if (status)
        return status;
    rig_docker_tests = tests;
    status = 1;
    if (rig_copy_programs())
        status = rig_as_user(rig_with_jobs);
    if (status == 0 && (!RIG_DOCKER_USER_ONLY || getenv("KILN_FULL")))
        status = rig_with_jobs();
    kiln_fs_remove_tree(AT_FDCWD, rig_dir, NULL);
    docker_rig_down(&rig_docker);
    return status;
}
#endif

// Runs the tests in a child as an ordinary user when this is root, and in this process as whoever it is.
static inline int rig_both(int (*tests)(void)) {
#ifdef RIG_DOCKER
    return rig_in_docker(tests);
#endif
    if (geteuid() != 0)
        return tests();
    int failed = 1;
    if (rig_copy_programs())
        failed = rig_as_user(tests) + tests();
    kiln_fs_remove_tree(AT_FDCWD, rig_dir, NULL);
    return failed;
}
