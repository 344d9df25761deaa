// Starting an agent: one, however many ask; with nothing of the caller's; remembered when it fails.
//
// This program is also the agent that is started: run with --dir it notes what it was given in DIR/starts and serves, or
// fails as DIR/mode says. The test ends it, by its number in DIR/pids.
#include "tests/integration/wrapper_rig.h"
#include "tests/unit/namespace.h"

#include <dirent.h>
#include <errno.h>

#define CALLERS 64

extern char **environ;

// A line per start: descriptors as "number>target", then working directory, session, environment.
static void note_start(int state_dir) {
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1u << 16);
    DIR *fds = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(fds));) {
        char path[300], target[256] = "";
        int number = atoi(entry->d_name);
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        bool is_ours = number == state_dir || number == dirfd(fds);
        if (!is_ours && readlink(path, target, sizeof target - 1) > 0)
            kiln_buf_addf(&line, "%d>%s ", number, target);
    }
    closedir(fds);
    kiln_autofree char *cwd = getcwd(NULL, 0);
    kiln_buf_addf(&line, "cwd=%s leader=%d", cwd, getsid(0) == getpid());
    for (char **variable = environ; *variable; variable++)
        kiln_buf_addf(&line, " %s", *variable);
    kiln_buf_add_str(&line, "\n");
    kiln_autofd int starts = openat(state_dir, "starts", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    kiln_fs_write_all(starts, line.data, line.len, NULL);
}

static void note_pid(int state_dir) {
    char text[32];
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    kiln_autofd int pids = openat(state_dir, "pids", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    kiln_fs_write_all(pids, text, (size_t)len, NULL);
}

static int be_the_agent(const char *dir) {
    kiln_autofd int state_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autobuf struct kiln_buf mode = KILN_BUF_INIT(100);
    kiln_fs_read_file(state_dir, "mode", &mode, NULL);
    note_start(state_dir);
    note_pid(state_dir);
    alarm(60); // whatever happens to the test
    if (!strcmp(kiln_buf_text(&mode), "fail"))
        return 3;
    if (!strcmp(kiln_buf_text(&mode), "hang"))
        for (;;)
            pause();
    // Later than its caller waits: until the test says go.
    while (!strcmp(kiln_buf_text(&mode), "late") && faccessat(state_dir, "go", F_OK, 0))
        sched_yield();
    int listener;
    if (kiln_endpoint_listen(dir, KILN_AUDIENCE_USER, &listener, NULL))
        return 4;
    for (;;) {
        kiln_autofd int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        kiln_autoframe struct kiln_frame frame = {0};
        say(socket, KILN_FRAME_ALIVE, NULL, NULL, 0);
        if (kiln_frame_receive(socket, rig_deadline(), &frame, NULL) == 0)
            say_local(socket, "fake");
    }
}

static size_t count_lines(const struct rig *rig, const char *name, struct kiln_buf *text) {
    size_t count = 0;
    *text = KILN_BUF_INIT(1u << 20);
    kiln_fs_read_file(rig->scratch.fd, name, text, NULL);
    for (size_t i = 0; i < text->len; i++)
        count += text->data[i] == '\n';
    return count;
}

static size_t count_starts(const struct rig *rig) {
    kiln_autobuf struct kiln_buf text = {0};
    return count_lines(rig, "agent/starts", &text);
}

// Ends the agents that were started and waits for their ends (they may be nobody's children any more).
static void end_agents(const struct rig *rig, const char *pids_name) {
    kiln_autobuf struct kiln_buf text = {0};
    count_lines(rig, pids_name, &text);
    const char *at = kiln_buf_text(&text);
    for (char *rest; *at; at = rest) {
        pid_t pid = (pid_t)strtol(at, &rest, 10);
        if (rest == at)
            break;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        rest += *rest == '\n';
    }
    unlinkat(rig->scratch.fd, pids_name, 0);
}

static int teardown(void **state) {
    end_agents(*state, "agent/pids");
    return rig_teardown(state);
}

static void set_mode(const struct rig *rig, const char *mode) {
    scratch_write(&rig->scratch, "agent/mode", mode, strlen(mode));
}

static int start(const struct rig *rig, unsigned wait_ms, struct kiln_err *err) {
    char self[256] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return KILN_E_INTERNAL;
    kiln_autofd int socket = -1;
    const struct kiln_endpoint_start options = {.dir = rig->agent_dir, .agent = self};
    return kiln_endpoint_start_agent(&options, kiln_clock_ms() + wait_ms, &socket, err);
}

// Descriptors and variables that a careless start would hand on.
static void litter(void) {
    for (int i = 0; i < 20; i++)
        if (open("/etc/hostname", O_RDONLY) < 0)
            _exit(90);
    setenv("CARGO_MANIFEST_DIR", "/x", 1);
    setenv("HOME", "/steered", 1);
    setenv("LD_PRELOAD", "", 1);
    umask(0);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
}

static void test_many_start_one(void **state) {
    struct rig *rig = *state;
    int barrier[2];
    assert_int_equal(pipe(barrier), 0);
    pid_t children[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            char byte;
            litter();
            close(barrier[1]);
            if (read(barrier[0], &byte, 1) != 0)
                _exit(91);
            _exit(start(rig, RIG_MS, NULL) != 0);
        }
    }
    close(barrier[0]);
    close(barrier[1]);
    for (int i = 0; i < CALLERS; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    kiln_autobuf struct kiln_buf starts = {0};
    assert_int_equal(count_lines(rig, "agent/starts", &starts), 1);
    const char *line = kiln_buf_text(&starts);
    assert_int_equal(strncmp(line, "0>/dev/null 1>/dev/null 2>/dev/null cwd=/ leader=1 HOME=/", 56), 0);
    assert_null(strstr(line, "steered"));
    const char *path = strstr(line, " PATH=");
    assert_non_null(path);
    assert_null(strchr(path + 1, ' ')); // and nothing after it
}

static void test_a_start_that_fails_is_remembered(void **state) {
    struct rig *rig = *state;
    set_mode(rig, "fail");
    struct kiln_err err;
    uint64_t before_ms = kiln_clock_ms();
    assert_int_equal(start(rig, RIG_MS, &err), KILN_E_IO);
    assert_non_null(strstr(err.text, "status 3"));
    assert_int_equal(start(rig, RIG_MS, &err), KILN_E_TIMEOUT);
    assert_int_equal(start(rig, RIG_MS, &err), KILN_E_TIMEOUT);
    assert_true(kiln_clock_ms() - before_ms < 3000);
    assert_int_equal(count_starts(rig), 1);
    // When the pause is over it is tried again, and a success ends it.
    set_mode(rig, "serve");
    kiln_endpoint_pause(rig->agent_dir, KILN_TROUBLE_START, 0);
    assert_ok(start(rig, RIG_MS, &err));
    assert_int_equal(count_starts(rig), 2);
    assert_int_equal(faccessat(rig->scratch.fd, "agent/agent.failed", F_OK, 0), -1);
}

static void test_an_agent_that_never_listens(void **state) {
    struct rig *rig = *state;
    set_mode(rig, "hang");
    struct kiln_err err;
    uint64_t before_ms = kiln_clock_ms();
    assert_int_equal(start(rig, 300, &err), KILN_E_TIMEOUT);
    uint64_t took_ms = kiln_clock_ms() - before_ms;
    assert_true(took_ms >= 300 && took_ms < 3000);
    assert_int_equal(start(rig, 300, &err), KILN_E_TIMEOUT);
    assert_int_equal(count_starts(rig), 1);
}

static void test_an_agent_that_is_late_is_used(void **state) {
    struct rig *rig = *state;
    set_mode(rig, "late");
    struct kiln_err err;
    assert_int_equal(start(rig, 100, &err), KILN_E_TIMEOUT);
    assert_int_equal(start(rig, 100, &err), KILN_E_TIMEOUT);
    scratch_write(&rig->scratch, "agent/go", "", 0);
    uint64_t deadline_ms = rig_deadline();
    while (start(rig, 100, &err) && kiln_clock_left_ms(deadline_ms))
        sched_yield();
    assert_true(kiln_clock_left_ms(deadline_ms) > 0);
    assert_int_equal(count_starts(rig), 1);
}

static void test_no_program(void **state) {
    struct rig *rig = *state;
    int socket = -1;
    struct kiln_err err;
    const struct kiln_endpoint_start options = {.dir = rig->agent_dir, .agent = "/nonexistent/kiln-agent"};
    assert_int_not_equal(kiln_endpoint_start_agent(&options, rig_deadline(), &socket, &err), 0);
    assert_non_null(strstr(err.text, "/nonexistent/kiln-agent"));
    assert_int_equal(socket, -1);
}

static void test_a_directory_that_cannot_be_written(void **state) {
    struct rig *rig = *state;
    if (geteuid() != 0)
        skip();
    pid_t child = fork();
    if (child == 0) {
        uint64_t before_ms = kiln_clock_ms();
        if (setresuid(4711, 4711, 4711))
            _exit(2);
        _exit(start(rig, RIG_MS, NULL) == 0 || kiln_clock_ms() - before_ms > 1000);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(count_starts(rig), 0);
}

static void copy_program(const struct rig *rig, const char *from, const char *to) {
    kiln_autofd int in = open(from, O_RDONLY | O_CLOEXEC);
    kiln_autofd int out = openat(rig->scratch.fd, to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_true(in >= 0 && out >= 0);
    assert_int_equal(kiln_fs_copy_fd(in, out, UINT64_MAX, NULL, NULL), 0);
}

// A password database in which this user's home is SCRATCH/home, and no system agent: seen by this process and its
// children only. False: this host does not let us.
static bool change_home(const struct rig *rig) {
    char entry[300];
    snprintf(entry, sizeof entry, "me:x:0:0::%s/home:/bin/sh\n", rig->scratch.path);
    scratch_write(&rig->scratch, "passwd", entry, strlen(entry));
    return namespace_enter() &&
           mount(scratch_path(&rig->scratch, "passwd"), "/etc/passwd", NULL, MS_BIND, NULL) == 0 &&
           mount("none", "/run", "tmpfs", 0, NULL) == 0;
}

// The real wrapper, many at once, in a home where no agent runs: one agent, all compile.
static int run_many_wrappers(const struct rig *rig) {
    if (!change_home(rig))
        return 77;
    char kiln[200], root[160];
    snprintf(kiln, sizeof kiln, "%s/bin/kiln", rig->scratch.path);
    snprintf(root, sizeof root, "RIG=%s", rig->scratch.path);
    const char *argv[] = {kiln, rig->compiler, "src/lib.rs", NULL};
    const char *env[] = {"PATH=/usr/bin:/bin", "HOME=/steered", "XDG_CACHE_HOME=/steered", root, NULL};
    for (int i = 0; i < CALLERS; i++) {
        if (fork() == 0) {
            int null = open("/dev/null", O_RDWR);
            dup2(null, 1);
            dup2(null, 2);
            execve(kiln, (char *const *)argv, (char *const *)env);
            _exit(99);
        }
    }
    for (int i = 0; i < CALLERS; i++) {
        int status;
        if (wait(&status) < 0 || status)
            return 1;
    }
    return 0;
}

static void test_many_wrappers_start_one(void **state) {
    struct rig *rig = *state;
    char self[256] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    assert_int_equal(mkdirat(rig->scratch.fd, "bin", 0755), 0);
    copy_program(rig, KILN_PROGRAM, "bin/kiln");
    copy_program(rig, self, "bin/kiln-agent");
    pid_t child = fork();
    if (child == 0)
        _exit(run_many_wrappers(rig));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    kiln_autobuf struct kiln_buf starts = {0};
    size_t count = count_lines(rig, "home/.cache/kiln/starts", &starts);
    end_agents(rig, "home/.cache/kiln/pids");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
    assert_int_equal(count, 1);
    assert_int_equal(rig_compiles(rig), CALLERS);
    assert_int_equal(strncmp(kiln_buf_text(&starts), "0>/dev/null 1>/dev/null 2>/dev/null cwd=/ leader=1 HOME=/", 56), 0);
    assert_null(strstr(kiln_buf_text(&starts), "steered"));
}

#define start_test(function) cmocka_unit_test_setup_teardown(function, rig_setup, teardown)

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--dir"))
        return be_the_agent(argv[2]);
    const struct CMUnitTest tests[] = {
        start_test(test_many_start_one),
        start_test(test_a_start_that_fails_is_remembered),
        start_test(test_an_agent_that_never_listens),
        start_test(test_an_agent_that_is_late_is_used),
        start_test(test_no_program),
        start_test(test_a_directory_that_cannot_be_written),
        start_test(test_many_wrappers_start_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
