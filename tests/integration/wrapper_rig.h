// What the wrapper's tests share: a directory, a compiler that is a script, an agent that says what a test wants, and runs
// of the real `kiln`.
#pragma once

#include "tests/unit/scratch.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "lib/ipc/endpoint.h"
#include "lib/ipc/frames.h"

#define KILN_PROGRAM KILN_BINARY_DIR "/producer/kiln"
#define RIG_MS 30000 // more than anything here takes
#define SCRIPT_OUT "script out\n"
#define SCRIPT_ERROUT "script err\n"

struct rig {
    struct scratch scratch;
    char agent_dir[128], work_dir[128], compiler[128];
    // The agent: a thread that serves one connection after another.
    void (*serve)(struct rig *rig, int socket);
    pthread_t thread;
    int listener, stop[2];
    atomic_uint served, finished;
    struct kiln_compile_request request; // of the last connection
    struct kiln_command_request command;
    struct kiln_placed placed;
    char *refusal; // the wrapper's reason for not placing
    int case_index;
};

static inline uint64_t rig_deadline(void) { return kiln_clock_ms() + RIG_MS; }

static inline int rig_setup(void **state) {
    struct rig *rig = calloc(1, sizeof *rig);
    strcpy(rig->scratch.path, "/tmp/kiln-rig-XXXXXX");
    assert_non_null(mkdtemp(rig->scratch.path));
    rig->scratch.fd = open(rig->scratch.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(rig->agent_dir, sizeof rig->agent_dir, "%s/agent", rig->scratch.path);
    snprintf(rig->work_dir, sizeof rig->work_dir, "%s/work", rig->scratch.path);
    snprintf(rig->compiler, sizeof rig->compiler, "%s/rustc", rig->scratch.path);
    assert_int_equal(mkdir(rig->agent_dir, 0700), 0);
    assert_int_equal(mkdir(rig->work_dir, 0755), 0);
    static const char script[] = "#!/bin/sh\n"
                                 "echo \"$*\" >>\"$RIG/ran\"\n"
                                 "printf 'script out\\n'\n"
                                 "printf 'script err\\n' >&2\n"
                                 "[ -z \"$KILL\" ] || kill -$KILL $$\n"
                                 "exit ${CODE:-0}\n";
    scratch_write(&rig->scratch, "rustc", script, sizeof script - 1);
    assert_int_equal(chmod(rig->compiler, 0755), 0);
    rig->listener = -1;
    *state = rig;
    return 0;
}

// The agent may still be busy with what a wrapper said last before it ended.
static inline void rig_forget(struct rig *rig) {
    while (rig->finished != rig->served)
        sched_yield();
    kiln_compile_request_release(&rig->request);
    kiln_command_request_release(&rig->command);
    kiln_placed_release(&rig->placed);
    free(rig->refusal);
    rig->refusal = NULL;
    rig->served = rig->finished = 0;
    unlinkat(rig->scratch.fd, "ran", 0);
    unlinkat(rig->scratch.fd, "agent/agent.missed", 0);
    unlinkat(rig->scratch.fd, "agent/agent.silent", 0);
}

static inline void *rig_serve(void *argument) {
    struct rig *rig = argument;
    for (;;) {
        struct pollfd ready[] = {{rig->listener, POLLIN, 0}, {rig->stop[0], POLLIN, 0}};
        if (poll(ready, 2, -1) < 0)
            continue;
        if (ready[1].revents)
            return NULL;
        kiln_autofd int socket = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC);
        if (socket < 0)
            continue;
        rig->served++;
        rig->serve(rig, socket);
        rig->finished++;
    }
}

static inline void rig_start_agent(struct rig *rig, void (*serve)(struct rig *rig, int socket)) {
    struct kiln_err err;
    rig->serve = serve;
    assert_ok(kiln_endpoint_listen(rig->agent_dir, KILN_AUDIENCE_USER, &rig->listener, &err));
    assert_int_equal(pipe(rig->stop), 0);
    assert_int_equal(pthread_create(&rig->thread, NULL, rig_serve, rig), 0);
}

static inline void rig_stop_agent(struct rig *rig) {
    if (rig->listener < 0)
        return;
    assert_int_equal(write(rig->stop[1], "", 1), 1);
    pthread_join(rig->thread, NULL);
    close(rig->listener);
    close(rig->stop[0]);
    close(rig->stop[1]);
    rig->listener = -1;
    unlinkat(rig->scratch.fd, "agent/agent.sock", 0);
}

static inline int rig_teardown(void **state) {
    struct rig *rig = *state;
    rig_stop_agent(rig);
    rig_forget(rig);
    kiln_fs_remove_tree(AT_FDCWD, rig->scratch.path, NULL);
    close(rig->scratch.fd);
    free(rig);
    return 0;
}

#define rig_test(function) cmocka_unit_test_setup_teardown(function, rig_setup, rig_teardown)

struct outcome {
    int status; // as waitpid's
    struct kiln_buf out, errout;
    uint64_t took_ms;
};

static inline void outcome_release(struct outcome *outcome) {
    kiln_buf_release(&outcome->out);
    kiln_buf_release(&outcome->errout);
}
#define auto_outcome __attribute__((cleanup(outcome_release))) struct outcome

// Runs kiln in the work directory with PATH, RIG, KILN_DIR and up to four variables more.
static inline void rig_run(const struct rig *rig, const char *const *arguments, const char *const *variables,
                           struct outcome *outcome) {
    char dir[160], root[160];
    snprintf(dir, sizeof dir, "KILN_DIR=%s", rig->agent_dir);
    snprintf(root, sizeof root, "RIG=%s", rig->scratch.path);
    const char *env[8] = {"PATH=/usr/bin:/bin", root, dir};
    for (size_t i = 3; variables && *variables; i++)
        env[i] = *variables++;
    const char *argv[32] = {KILN_PROGRAM};
    for (size_t i = 1; *arguments; i++)
        argv[i] = *arguments++;
    *outcome = (struct outcome){.out = KILN_BUF_INIT(1u << 24), .errout = KILN_BUF_INIT(1u << 24)};
    struct kiln_err err;
    const struct kiln_proc_options options = {
        .program = KILN_PROGRAM, .argv = (char *const *)argv, .envp = (char *const *)env, .cwd = rig->work_dir};
    uint64_t before_ms = kiln_clock_ms();
    assert_ok(kiln_proc_run(&options, before_ms + RIG_MS, &outcome->out, &outcome->errout, &outcome->status, &err));
    outcome->took_ms = kiln_clock_ms() - before_ms;
}

static inline void assert_text(struct kiln_buf *buf, const char *expected) {
    assert_string_equal(kiln_buf_text(buf), expected);
}

// How often the script ran.
static inline size_t rig_compiles(const struct rig *rig) {
    kiln_autobuf struct kiln_buf ran = KILN_BUF_INIT(1u << 20);
    size_t count = 0;
    if (kiln_fs_read_file(rig->scratch.fd, "ran", &ran, NULL) == 0)
        for (size_t i = 0; i < ran.len; i++)
            count += ran.data[i] == '\n';
    return count;
}

// The run was the script's, once, and nothing else was printed.
static inline void assert_compiled_here(const struct rig *rig, struct outcome *outcome) {
    assert_text(&outcome->out, SCRIPT_OUT);
    assert_text(&outcome->errout, SCRIPT_ERROUT);
    assert_int_equal(outcome->status, 0);
    assert_int_equal(rig_compiles(rig), 1);
}

// What the agent says; used by the serving functions of tests, whose thread must not assert.
static inline void say(int socket, enum kiln_frame_type type, const struct kiln_buf *payload, const int *fds,
                       size_t fds_count) {
    kiln_frame_send(socket, type, payload ? payload->data : NULL, payload ? payload->len : 0, fds, fds_count,
                    rig_deadline(), NULL);
}

static inline void say_local(int socket, const char *reason) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(4096);
    kiln_local_encode(reason, &payload, NULL);
    say(socket, KILN_FRAME_LOCAL, &payload, NULL, 0);
}

// Takes the request of a wrapper, saying ALIVE as an agent does.
static inline bool hear_compile(struct rig *rig, int socket) {
    kiln_autoframe struct kiln_frame frame = {0};
    say(socket, KILN_FRAME_ALIVE, NULL, NULL, 0);
    if (kiln_frame_receive(socket, rig_deadline(), &frame, NULL) || frame.type != KILN_FRAME_COMPILE)
        return false;
    kiln_compile_request_release(&rig->request);
    return kiln_compile_request_decode(frame.payload, frame.len, &rig->request, NULL) == 0;
}

// Takes what the wrapper says after a PLACE.
static inline void hear_placed(struct rig *rig, int socket) {
    kiln_autoframe struct kiln_frame frame = {0};
    if (kiln_frame_receive(socket, rig_deadline(), &frame, NULL))
        return;
    kiln_placed_release(&rig->placed);
    free(rig->refusal);
    rig->refusal = NULL;
    if (frame.type == KILN_FRAME_PLACED)
        kiln_placed_decode(frame.payload, frame.len, &rig->placed, NULL);
    else if (frame.type == KILN_FRAME_LOCAL)
        kiln_local_decode(frame.payload, frame.len, &rig->refusal, NULL);
}

static inline bool rig_missed(const struct rig *rig, const char *word) {
    kiln_autobuf struct kiln_buf notes = KILN_BUF_INIT(1u << 20);
    return kiln_fs_read_file(rig->scratch.fd, "agent/agent.missed", &notes, NULL) == 0 &&
           strstr(kiln_buf_text(&notes), word) != NULL;
}
