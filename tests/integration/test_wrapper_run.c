// The real `kiln` as a wrapper, with an agent that helps, refuses, lies or is silent: the build sees a compiler.
#include "tests/integration/wrapper_rig.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#define CONTENT_BYTES 70000

static void compile_line(const struct rig *rig, const char *arguments[16]) {
    const char *line[] = {rig->compiler, "--crate-name", "foo", "src/lib.rs", "--crate-type", "lib", "--emit",
                          "link",        "--out-dir",    "out", NULL};
    memcpy(arguments, line, sizeof line);
}

static void run_compile(const struct rig *rig, const char *const *variables, struct outcome *outcome) {
    const char *arguments[16];
    compile_line(rig, arguments);
    rig_run(rig, arguments, variables, outcome);
}

static void serve_local(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        say_local(socket, "incremental");
}

static void test_local_is_the_compilers_own_run(void **state) {
    struct rig *rig = *state;
    static const struct {
        const char *variable;
        int code, number;
    } cases[] = {{"CODE=0", 0, 0},    {"CODE=1", 1, 0},        {"CODE=101", 101, 0},     {"CODE=255", 255, 0},
                 {"KILL=TERM", 0, SIGTERM}, {"KILL=KILL", 0, SIGKILL}, {"KILL=ABRT", 0, SIGABRT}, {"KILL=SEGV", 0, SIGSEGV}};
    rig_start_agent(rig, serve_local);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_forget(rig);
        auto_outcome outcome;
        run_compile(rig, (const char *[]){cases[i].variable, NULL}, &outcome);
        assert_text(&outcome.out, SCRIPT_OUT);
        assert_text(&outcome.errout, SCRIPT_ERROUT);
        if (cases[i].number)
            assert_true(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == cases[i].number);
        else
            assert_true(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == cases[i].code);
        assert_int_equal(rig_compiles(rig), 1);
        assert_false(rig_missed(rig, "")); // the agent counts it
    }
}

static void test_request_is_the_command_line(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_local);
    const char *arguments[16];
    compile_line(rig, arguments);
    auto_outcome outcome;
    rig_run(rig, arguments, (const char *[]){"ODD=a=b\n\xff", "EMPTY=", NULL}, &outcome);
    assert_compiled_here(rig, &outcome);
    rig_stop_agent(rig);
    assert_int_equal(rig->request.argc, 10);
    for (size_t i = 0; i < rig->request.argc; i++)
        assert_string_equal(rig->request.argv[i], arguments[i]);
    kiln_autofree char *work = realpath(rig->work_dir, NULL);
    assert_string_equal(rig->request.cwd, work);
    assert_int_equal(rig->request.env_count, 5);
    assert_string_equal(rig->request.env[3], "ODD=a=b\n\xff");
    assert_string_equal(rig->request.env[4], "EMPTY=");
}

static void test_probes_and_kiln_local_ask_nobody(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_local);
    static const char *const probes[][8] = {
        {"-vV"}, {"--version"}, {"--print", "cfg"}, {"--print=sysroot"}, {"-C", "help"}, {"--explain", "E0001"},
        {"-", "--crate-name", "___", "--print=file-names", "--crate-type", "bin"}, {NULL},
    };
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        rig_forget(rig);
        const char *arguments[16] = {rig->compiler};
        memcpy(arguments + 1, probes[i], sizeof probes[i]);
        auto_outcome outcome;
        rig_run(rig, arguments, NULL, &outcome);
        assert_compiled_here(rig, &outcome);
        assert_int_equal(rig->served, 0);
    }
    rig_forget(rig);
    auto_outcome outcome;
    run_compile(rig, (const char *[]){"KILN_LOCAL=1", NULL}, &outcome);
    assert_compiled_here(rig, &outcome);
    assert_int_equal(rig->served, 0);
    rig_forget(rig);
    auto_outcome asked;
    run_compile(rig, (const char *[]){"KILN_LOCAL=0", NULL}, &asked);
    assert_int_equal(rig->served, 1);
}

static void test_compiler_that_cannot_be_run(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_local);
    scratch_write(&rig->scratch, "plain", "x", 1);
    static const struct {
        const char *name;
        int code;
    } cases[] = {{"nowhere", 127}, {"plain", 126}, {"work", 126}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_outcome outcome;
        const char *arguments[] = {scratch_path(&rig->scratch, cases[i].name), "src/lib.rs", NULL};
        rig_run(rig, arguments, NULL, &outcome);
        assert_true(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == cases[i].code);
        assert_text(&outcome.out, "");
        assert_text(&outcome.errout, "");
    }
}

static void test_compiler_on_the_path(void **state) {
    struct rig *rig = *state;
    char path[200];
    snprintf(path, sizeof path, "PATH=%s:/usr/bin:/bin", rig->scratch.path);
    rig_start_agent(rig, serve_local);
    auto_outcome outcome;
    // The last of two equal variables is not the one getenv finds; so PATH is set by env(1).
    char dir[160], root[160];
    snprintf(dir, sizeof dir, "KILN_DIR=%s", rig->agent_dir);
    snprintf(root, sizeof root, "RIG=%s", rig->scratch.path);
    const char *argv[] = {"env", path, dir, root, KILN_PROGRAM, "rustc", "src/lib.rs", NULL};
    const char *env[] = {NULL};
    struct kiln_err err;
    outcome = (struct outcome){.out = KILN_BUF_INIT(1000), .errout = KILN_BUF_INIT(1000)};
    const struct kiln_proc_options options = {
        .program = "/usr/bin/env", .argv = (char *const *)argv, .envp = (char *const *)env, .cwd = rig->work_dir};
    assert_ok(kiln_proc_run(&options, rig_deadline(), &outcome.out, &outcome.errout, &outcome.status, &err));
    assert_compiled_here(rig, &outcome);
    rig_stop_agent(rig);
    assert_string_equal(rig->request.argv[0], "rustc");
}

static int content(size_t size, char fill) {
    int fd = memfd_create("content", MFD_CLOEXEC);
    char chunk[1024];
    memset(chunk, fill, sizeof chunk);
    for (size_t at = 0; at < size; at += sizeof chunk)
        kiln_fs_write_all(fd, chunk, size - at < sizeof chunk ? size - at : sizeof chunk, NULL);
    return fd;
}

static void send_order(int socket, const struct kiln_place_order *order, const int *fds) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    kiln_place_order_encode(order, &payload, NULL);
    say(socket, KILN_FRAME_PLACE, &payload, fds, order->files_count);
}

// An order for one file of CONTENT_BYTES at `path`.
static void order_one(int socket, const char *path) {
    struct kiln_place_file file = {.path = (char *)path, .size = CONTENT_BYTES};
    const struct kiln_place_order order = {.files = &file, .files_count = 1, .out = (unsigned char *)"placed\n",
                                           .out_len = 7, .errout = (unsigned char *)"warning\n", .errout_len = 8,
                                           .exit_code = 0};
    kiln_autofd int fd = content(CONTENT_BYTES, 'n');
    send_order(socket, &order, &fd);
}

static void serve_two_files(struct rig *rig, int socket) {
    if (!hear_compile(rig, socket))
        return;
    struct kiln_place_file files[] = {{.path = (char *)"out/libfoo.rlib", .size = CONTENT_BYTES},
                                      {.path = (char *)"out/foo", .executable = true, .size = 5}};
    const struct kiln_place_order order = {
        .files = files, .files_count = 2, .out = (unsigned char *)"o\0ut", .out_len = 4,
        .errout = (unsigned char *)"{\"artifact\":1}\n", .errout_len = 15, .exit_code = 3};
    const int fds[] = {content(CONTENT_BYTES, 'n'), content(5, 'x')};
    send_order(socket, &order, fds);
    close(fds[0]);
    close(fds[1]);
    hear_placed(rig, socket);
}

static void test_place(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_two_files);
    auto_outcome outcome;
    run_compile(rig, NULL, &outcome);
    assert_true(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 3);
    assert_int_equal(outcome.out.len, 4);
    assert_memory_equal(outcome.out.data, "o\0ut", 4);
    assert_text(&outcome.errout, "{\"artifact\":1}\n");
    assert_int_equal(rig_compiles(rig), 0);
    rig_stop_agent(rig);
    struct stat st;
    assert_int_equal(rig->placed.count, 2);
    assert_int_equal(fstatat(rig->scratch.fd, "work/out/foo", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0755);
    assert_true(rig->placed.files[1].ino == st.st_ino && rig->placed.files[1].size == 5);
    assert_true(rig->placed.files[1].mtime_ns == st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec);
    assert_int_equal(fstatat(rig->scratch.fd, "work/out/libfoo.rlib", &st, 0), 0);
    assert_int_equal(st.st_size, CONTENT_BYTES);
    assert_int_equal(st.st_mode & 0777, 0644);
}

#define MANY 150

static void serve_many(struct rig *rig, int socket) {
    if (!hear_compile(rig, socket))
        return;
    for (size_t at = 0; at < MANY; at += KILN_FRAME_FDS_MAX) {
        struct kiln_place_file files[KILN_FRAME_FDS_MAX];
        char paths[KILN_FRAME_FDS_MAX][32];
        int fds[KILN_FRAME_FDS_MAX];
        struct kiln_place_order order = {.files = files, .more = at + KILN_FRAME_FDS_MAX < MANY};
        for (size_t i = at; i < MANY && i < at + KILN_FRAME_FDS_MAX; i++) {
            size_t k = order.files_count++;
            snprintf(paths[k], sizeof paths[k], "out/%zu.o", i);
            files[k] = (struct kiln_place_file){.path = paths[k], .size = i};
            fds[k] = content(i, 'n');
        }
        say(socket, KILN_FRAME_ALIVE, NULL, NULL, 0);
        send_order(socket, &order, fds);
        for (size_t k = 0; k < order.files_count; k++)
            close(fds[k]);
    }
    hear_placed(rig, socket);
}

static void test_more_files_than_one_frame_holds(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_many);
    auto_outcome outcome;
    run_compile(rig, NULL, &outcome);
    assert_int_equal(outcome.status, 0);
    rig_stop_agent(rig);
    assert_int_equal(rig->placed.count, MANY);
    for (size_t i = 0; i < MANY; i++) {
        char name[64];
        struct stat st;
        snprintf(name, sizeof name, "work/out/%zu.o", i);
        assert_int_equal(fstatat(rig->scratch.fd, name, &st, 0), 0);
        assert_int_equal(st.st_size, i);
        assert_true(rig->placed.files[i].ino == st.st_ino);
    }
}

static void serve_into_args_file(struct rig *rig, int socket) {
    if (!hear_compile(rig, socket))
        return;
    order_one(socket, "elsewhere/libfoo.rlib");
    hear_placed(rig, socket);
}

// As cargo does when the command line is too long for the system.
static void test_out_dir_from_an_argument_file(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_into_args_file);
    static const char lines[] = "--crate-name\nfoo\nsrc/lib.rs\n--out-dir\nelsewhere\n";
    scratch_write(&rig->scratch, "args", lines, sizeof lines - 1);
    char argument[200];
    snprintf(argument, sizeof argument, "@%s/args", rig->scratch.path);
    auto_outcome outcome;
    rig_run(rig, (const char *[]){rig->compiler, argument, NULL}, NULL, &outcome);
    assert_text(&outcome.out, "placed\n");
    assert_text(&outcome.errout, "warning\n");
    assert_int_equal(faccessat(rig->scratch.fd, "work/elsewhere/libfoo.rlib", R_OK, 0), 0);
}

// An answer that cannot be placed: everything is as if it had not come, and the agent hears why.
static const char *const refused_paths[] = {
    "/etc/kiln-test", "../escaped", "out/../../escaped", "out/sub/file", "libfoo.rlib", "out/", "out/..",
};

static void serve_refused_path(struct rig *rig, int socket) {
    if (!hear_compile(rig, socket))
        return;
    order_one(socket, refused_paths[rig->case_index]);
    hear_placed(rig, socket);
}

static void test_orders_outside_the_out_dir(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_refused_path);
    for (size_t i = 0; i < sizeof refused_paths / sizeof *refused_paths; i++) {
        rig_forget(rig);
        rig->case_index = (int)i;
        auto_outcome outcome;
        run_compile(rig, NULL, &outcome);
        assert_compiled_here(rig, &outcome);
        assert_int_equal(faccessat(rig->scratch.fd, "escaped", F_OK, 0), -1);
        assert_int_equal(faccessat(rig->scratch.fd, "work/out", F_OK, 0), -1);
    }
    rig_stop_agent(rig);
    assert_non_null(rig->refusal);
    assert_int_equal(strncmp(rig->refusal, "place_failed: ", 14), 0);
}

static void serve_ordinary(struct rig *rig, int socket) {
    if (!hear_compile(rig, socket))
        return;
    order_one(socket, "out/libfoo.rlib");
    hear_placed(rig, socket);
}

static void test_out_dir_that_cannot_be_written(void **state) {
    struct rig *rig = *state;
    scratch_write(&rig->scratch, "work/out", "a file", 6);
    rig_start_agent(rig, serve_ordinary);
    auto_outcome outcome;
    run_compile(rig, NULL, &outcome);
    assert_compiled_here(rig, &outcome);
}

static void send_bytes(int socket, const void *data, size_t len) { kiln_fs_write_all(socket, data, len, NULL); }

static void close_at_once(struct rig *rig, int socket) { (void)rig, (void)socket; }
static void close_after_request(struct rig *rig, int socket) { hear_compile(rig, socket); }

static void talk_nonsense(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        send_bytes(socket, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
}

static void speak_version_2(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        send_bytes(socket, "KILN\0\2\0\2\0\0\0\0", 12);
}

static void stop_within_a_frame(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        send_bytes(socket, "KILN\0\1\0\3\0\0\1\0abc", 15);
}

static void reply_to_a_compile(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        say(socket, KILN_FRAME_REPLY, NULL, NULL, 0);
}

static void order_garbage(struct rig *rig, int socket) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(100);
    kiln_buf_add_str(&payload, "garbage");
    if (hear_compile(rig, socket))
        say(socket, KILN_FRAME_PLACE, &payload, NULL, 0);
}

static void send_a_huge_length(struct rig *rig, int socket) {
    if (hear_compile(rig, socket))
        send_bytes(socket, "KILN\0\1\0\3\xff\xff\xff\xff", 12);
}

static void test_agents_that_go_wrong(void **state) {
    struct rig *rig = *state;
    static const struct {
        void (*serve)(struct rig *rig, int socket);
        const char *word;
    } cases[] = {
        {close_at_once, "agent_"},           {close_after_request, "agent_gone"},
        {talk_nonsense, "agent_confused"},   {speak_version_2, "agent_version"},
        {stop_within_a_frame, "agent_confused"}, {reply_to_a_compile, "agent_confused"},
        {order_garbage, "agent_confused"},   {send_a_huge_length, "agent_confused"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_start_agent(rig, cases[i].serve);
        auto_outcome outcome;
        run_compile(rig, NULL, &outcome);
        rig_stop_agent(rig);
        assert_compiled_here(rig, &outcome);
        assert_int_equal(rig->served, 1);
        if (!rig_missed(rig, cases[i].word))
            fail_msg("case %zu is not noted as %s", i, cases[i].word);
        assert_true(outcome.took_ms < 2000);
        rig_forget(rig);
    }
}

static void test_no_agent(void **state) {
    struct rig *rig = *state;
    auto_outcome outcome;
    run_compile(rig, NULL, &outcome);
    assert_compiled_here(rig, &outcome);
    assert_true(rig_missed(rig, "agent_absent"));
    assert_true(outcome.took_ms < 1000);
    assert_int_equal(faccessat(rig->scratch.fd, "agent/agent.start", F_OK, 0), -1);
}

static void wait_for_close(struct rig *rig, int socket) {
    (void)rig;
    char byte;
    while (read(socket, &byte, 1) > 0)
        ;
}

static void alive_and_then_silent(struct rig *rig, int socket) {
    hear_compile(rig, socket);
    wait_for_close(rig, socket);
}

struct background {
    struct rig *rig;
    struct outcome outcome;
};

static void *run_in_background(void *argument) {
    struct background *background = argument;
    run_compile(background->rig, NULL, &background->outcome);
    return NULL;
}

// Both kinds of silence at once, for they take their time.
static void test_silent_agents(void **state) {
    struct rig *rig = *state;
    void *other_state;
    rig_setup(&other_state);
    struct background background = {.rig = other_state};
    rig_start_agent(rig, wait_for_close);
    rig_start_agent(background.rig, alive_and_then_silent);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_in_background, &background), 0);
    auto_outcome first, second;
    run_compile(rig, NULL, &first);
    assert_compiled_here(rig, &first);
    assert_true(rig_missed(rig, "agent_silent"));
    assert_true(first.took_ms >= KILN_ALIVE_FIRST_MS && first.took_ms < KILN_ALIVE_FIRST_MS + 2000);
    // The next crate does not wait for the same agent again.
    unlinkat(rig->scratch.fd, "ran", 0);
    run_compile(rig, NULL, &second);
    assert_compiled_here(rig, &second);
    assert_true(rig_missed(rig, "agent_down"));
    assert_true(second.took_ms < 1000);
    assert_int_equal(rig->served, 1);
    pthread_join(thread, NULL);
    assert_compiled_here(background.rig, &background.outcome);
    assert_true(background.outcome.took_ms >= KILN_ALIVE_GAP_MS);
    assert_true(background.outcome.took_ms < KILN_ALIVE_GAP_MS + 2000);
    assert_int_equal(faccessat(background.rig->scratch.fd, "agent/agent.silent", F_OK, 0), -1); // it did answer once
    outcome_release(&background.outcome);
    rig_teardown(&other_state);
}

static pid_t start_traced(const struct rig *rig) {
    const char *arguments[16], *argv[20] = {KILN_PROGRAM};
    compile_line(rig, arguments);
    memcpy(argv + 1, arguments, sizeof arguments);
    char dir[160];
    snprintf(dir, sizeof dir, "KILN_DIR=%s", rig->agent_dir);
    const char *env[] = {"PATH=/usr/bin:/bin", dir, NULL};
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        if (chdir(rig->work_dir) || dup2(null, 1) < 0 || dup2(null, 2) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(77);
        execve(KILN_PROGRAM, (char *const *)argv, (char *const *)env);
        _exit(99);
    }
    return child;
}

// Sends `number` as the wrapper enters its n-th system call. Its end as waitpid's; -1: it had ended by itself before;
// -2: it cannot be traced here.
static int interrupt_at(const struct rig *rig, int number, unsigned nth) {
    pid_t child = start_traced(rig);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status))
        return -2;
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    bool sent = false;
    for (unsigned stops = 0;; stops++) {
        int stop = WSTOPSIG(status);
        if (!sent && stops == 2 * nth) {
            kill(child, number);
            sent = true;
        }
        ptrace(PTRACE_SYSCALL, child, NULL, stop == SIGTRAP || stop == (SIGTRAP | 0x80) ? 0 : stop);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status))
            return sent ? status : -1;
    }
}

// The whole wrapper, ended at each of its system calls: the file is whole or not there, nothing temporary stays.
static void test_ended_at_every_call(void **state) {
    struct rig *rig = *state;
    static const int numbers[] = {SIGTERM, SIGINT};
    rig_start_agent(rig, serve_ordinary);
    unsigned whole = 0, absent = 0;
    for (size_t i = 0; i < 2; i++) {
        int status = 0;
        for (unsigned nth = 0; status != -1; nth++) {
            status = interrupt_at(rig, numbers[i], nth);
            if (status == -2)
                skip();
            assert_true(status == -1 || (WIFSIGNALED(status) && WTERMSIG(status) == numbers[i]));
            struct stat st;
            bool is_there = fstatat(rig->scratch.fd, "work/out/libfoo.rlib", &st, 0) == 0;
            assert_true(!is_there || st.st_size == CONTENT_BYTES);
            unlinkat(rig->scratch.fd, "work/out/libfoo.rlib", 0);
            assert_true(unlinkat(rig->scratch.fd, "work/out", AT_REMOVEDIR) == 0 || errno == ENOENT); // so it is empty
            whole += is_there;
            absent += !is_there;
            assert_true(nth < 2000);
        }
    }
    assert_true(whole > 4 && absent > 40);
    assert_int_equal(rig_compiles(rig), 0);
}

// libc and nothing else, so that it starts quickly (sanitizers aside).
static void test_needed_libraries(void **state) {
    (void)state;
    if (access("/usr/bin/readelf", X_OK))
        skip();
    const char *argv[] = {"readelf", "-d", KILN_PROGRAM, NULL}, *env[] = {"LC_ALL=C", NULL};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1u << 20), errout = KILN_BUF_INIT(1u << 20);
    const struct kiln_proc_options options = {
        .program = "/usr/bin/readelf", .argv = (char *const *)argv, .envp = (char *const *)env};
    struct kiln_err err;
    int status;
    assert_ok(kiln_proc_run(&options, rig_deadline(), &out, &errout, &status, &err));
    kiln_buf_text(&out);
    size_t count = 0;
    for (char *at = (char *)out.data; (at = strstr(at, "(NEEDED)")); at++) {
        const char *name = strchr(at, '[') + 1;
        static const char *const allowed[] = {"libc.so", "libasan", "libubsan", "libtsan", "libclang_rt", "ld-linux"};
        size_t i = 0;
        while (i < 6 && strncmp(name, allowed[i], strlen(allowed[i])) != 0)
            i++;
        if (i == 6)
            fail_msg("kiln needs %.40s", name);
        count++;
    }
    assert_true(count > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        rig_test(test_local_is_the_compilers_own_run),
        rig_test(test_request_is_the_command_line),
        rig_test(test_probes_and_kiln_local_ask_nobody),
        rig_test(test_compiler_that_cannot_be_run),
        rig_test(test_compiler_on_the_path),
        rig_test(test_place),
        rig_test(test_more_files_than_one_frame_holds),
        rig_test(test_out_dir_from_an_argument_file),
        rig_test(test_orders_outside_the_out_dir),
        rig_test(test_out_dir_that_cannot_be_written),
        rig_test(test_agents_that_go_wrong),
        rig_test(test_no_agent),
        rig_test(test_silent_agents),
        rig_test(test_ended_at_every_call),
        cmocka_unit_test(test_needed_libraries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
