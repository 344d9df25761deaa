// The user's commands of the real `kiln`: asked of the agent and printed as it answers, or said why not.
#include "tests/integration/wrapper_rig.h"

static int code_of(const struct outcome *outcome) { return WIFEXITED(outcome->status) ? WEXITSTATUS(outcome->status) : -1; }

static void serve_command(struct rig *rig, int socket) {
    kiln_autoframe struct kiln_frame frame = {0};
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(4096);
    say(socket, KILN_FRAME_ALIVE, NULL, NULL, 0);
    if (kiln_frame_receive(socket, rig_deadline(), &frame, NULL) || frame.type != KILN_FRAME_COMMAND)
        return;
    kiln_command_request_release(&rig->command);
    kiln_command_request_decode(frame.payload, frame.len, &rig->command, NULL);
    say(socket, KILN_FRAME_ALIVE, NULL, NULL, 0);
    const struct kiln_command_reply reply = {.exit_code = 7, .out = (unsigned char *)"the answer\n", .out_len = 11,
                                             .errout = (unsigned char *)"a hint\n", .errout_len = 7};
    kiln_command_reply_encode(&reply, &payload, NULL);
    say(socket, KILN_FRAME_REPLY, &payload, NULL, 0);
}

static void test_asked_of_the_agent(void **state) {
    struct rig *rig = *state;
    static const struct {
        const char *line[6], *asked[6];
    } cases[] = {
        {{"stats"}, {"stats"}},
        {{"stats", "--json"}, {"stats", "--json"}},
        {{"config", "--json", "--show-origin"}, {"config", "--show-origin", "--json"}},
        {{"doctor"}, {"doctor"}},
        {{"toolchain", "list", "--json"}, {"toolchain", "list", "--json"}},
    };
    rig_start_agent(rig, serve_command);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_forget(rig);
        auto_outcome outcome;
        rig_run(rig, cases[i].line, NULL, &outcome);
        assert_text(&outcome.out, "the answer\n");
        assert_text(&outcome.errout, "a hint\n");
        assert_int_equal(code_of(&outcome), 7);
        size_t count = 0;
        while (cases[i].asked[count])
            count++;
        assert_int_equal(rig->command.argc, count);
        for (size_t k = 0; k < count; k++)
            assert_string_equal(rig->command.argv[k], cases[i].asked[k]);
    }
}

static void test_without_an_agent(void **state) {
    struct rig *rig = *state;
    static const char notes[] = "agent_absent\nagent_silent\nagent_absent\n";
    scratch_write(&rig->scratch, "agent/agent.missed", notes, sizeof notes - 1);
    static const char *const commands[] = {"stats", "doctor", "config"};
    for (size_t i = 0; i < 3; i++) {
        auto_outcome text, json;
        rig_run(rig, (const char *[]){commands[i], NULL}, NULL, &text);
        assert_int_equal(code_of(&text), 1);
        assert_text(&text.out, "");
        assert_non_null(strstr(kiln_buf_text(&text.errout), "no agent"));
        assert_non_null(strstr(kiln_buf_text(&text.errout), "2 (agent_absent)"));
        assert_non_null(strstr(kiln_buf_text(&text.errout), "kiln agent start --dir"));
        rig_run(rig, (const char *[]){commands[i], "--json", NULL}, NULL, &json);
        assert_int_equal(code_of(&json), 1);
        assert_text(&json.errout, "");
        assert_non_null(strstr(kiln_buf_text(&json.out), "{\"agent\": null, \"reason\": \""));
        assert_non_null(strstr(kiln_buf_text(&json.out),
                               "\"local\": 3, \"local_reasons\": {\"agent_absent\": 2, \"agent_silent\": 1}}\n"));
    }
    assert_int_equal(faccessat(rig->scratch.fd, "agent/agent.start", F_OK, 0), -1); // none is started there
}

static void test_a_socket_that_is_none(void **state) {
    struct rig *rig = *state;
    scratch_write(&rig->scratch, "agent/agent.sock", "", 0);
    auto_outcome outcome, status;
    rig_run(rig, (const char *[]){"stats", NULL}, NULL, &outcome);
    assert_int_equal(code_of(&outcome), 1);
    assert_non_null(strstr(kiln_buf_text(&outcome.errout), "is not a socket"));
    rig_run(rig, (const char *[]){"agent", "status", "--json", NULL}, NULL, &status);
    assert_int_equal(code_of(&status), 1);
    assert_non_null(strstr(kiln_buf_text(&status.out), "{\"running\": false, \"answers\": false, \"pid\": 0, "));
}

static void serve_status(struct rig *rig, int socket) {
    (void)rig;
    kiln_autoframe struct kiln_frame frame = {0};
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(4096);
    if (kiln_frame_receive(socket, rig_deadline(), &frame, NULL))
        return;
    const struct kiln_command_reply reply = {.out = (unsigned char *)"{\"up\": 1}\n", .out_len = 10};
    kiln_command_reply_encode(&reply, &payload, NULL);
    say(socket, KILN_FRAME_REPLY, &payload, NULL, 0);
}

static void test_status(void **state) {
    struct rig *rig = *state;
    rig_start_agent(rig, serve_status);
    auto_outcome text, json, elsewhere;
    rig_run(rig, (const char *[]){"agent", "status", NULL}, NULL, &text);
    assert_int_equal(code_of(&text), 0);
    assert_text(&text.out, "{\"up\": 1}\n"); // the agent's own words
    rig_run(rig, (const char *[]){"agent", "status", "--json", NULL}, NULL, &json);
    assert_int_equal(code_of(&json), 0);
    char expected[400];
    snprintf(expected, sizeof expected,
             "{\"running\": true, \"answers\": true, \"pid\": %d, \"dir\": \"%s\", \"reason\": \"\", \"agent\": {\"up\": 1}\n}\n",
             (int)getpid(), rig->agent_dir);
    assert_text(&json.out, expected);
    rig_run(rig, (const char *[]){"agent", "status", "--dir", "elsewhere", NULL}, NULL, &elsewhere);
    assert_int_equal(code_of(&elsewhere), 1);
    assert_non_null(strstr(kiln_buf_text(&elsewhere.out), "no agent runs"));
    snprintf(expected, sizeof expected, "%s/elsewhere", rig->work_dir); // made absolute
    assert_non_null(strstr(kiln_buf_text(&elsewhere.out), expected));
}

// An agent in a process of its own, which hangs: it listens and does nothing.
static pid_t start_hanging_agent(const struct rig *rig) {
    int ready[2], listener = -1;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(60); // whatever happens to the test
        if (kiln_endpoint_listen(rig->agent_dir, KILN_AUDIENCE_USER, &listener, NULL) == 0)
            close(ready[1]);
        for (;;)
            pause();
    }
    close(ready[1]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    return child;
}

static void *reap(void *argument) {
    int *status = argument;
    waitpid(*status, status, 0);
    return NULL;
}

static void test_stop_does_not_need_an_answer(void **state) {
    struct rig *rig = *state;
    int status = start_hanging_agent(rig);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reap, &status), 0);
    auto_outcome stopped, again;
    rig_run(rig, (const char *[]){"agent", "stop", NULL}, NULL, &stopped);
    pthread_join(thread, NULL);
    assert_int_equal(code_of(&stopped), 0);
    assert_non_null(strstr(kiln_buf_text(&stopped.out), "agent stopped"));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    rig_run(rig, (const char *[]){"agent", "stop", NULL}, NULL, &again);
    assert_int_equal(code_of(&again), 0);
    assert_text(&again.out, "no agent runs\n");
}

static void test_start_says_where(void **state) {
    struct rig *rig = *state;
    auto_outcome unclear, already;
    rig_run(rig, (const char *[]){"agent", "start", NULL}, NULL, &unclear);
    assert_int_equal(code_of(&unclear), 1);
    assert_non_null(strstr(kiln_buf_text(&unclear.errout), "KILN_DIR is set"));
    rig_start_agent(rig, serve_status);
    rig_run(rig, (const char *[]){"agent", "start", "--dir", rig->agent_dir, NULL}, NULL, &already);
    assert_int_equal(code_of(&already), 0);
    assert_non_null(strstr(kiln_buf_text(&already.out), "runs already"));
}

static void test_usage(void **state) {
    struct rig *rig = *state;
    static const struct {
        const char *line[6];
        int code;
        const char *out, *errout;
    } cases[] = {
        {{NULL}, 2, NULL, "Usage: kiln"},
        {{"statz"}, 2, NULL, "did you mean \"stats\"?"},
        {{"stats", "--jsno"}, 2, NULL, "did you mean \"--json\"?"},
        {{"--help"}, 0, "Usage: kiln", NULL},
        {{"stats", "--help"}, 0, "Usage: kiln stats [--json]", NULL},
        {{"help", "agent", "start"}, 0, "Usage: kiln agent start", NULL},
        {{"help", "toolchain", "publish"}, 0, "Usage: kiln toolchain publish", NULL},
        {{"toolchain", "publish", "--help"}, 1, NULL, "kiln-admin is neither beside"}, // it is kiln-admin's to say
        {{"help", "agnet"}, 2, NULL, "did you mean \"agent\"?"},
        {{"help", "--man"}, 0, ".TH KILN 1", NULL},
        {{"help", "--man"}, 0, "kiln toolchain publish", NULL},
        {{"help", "--completion", "bash"}, 0, "complete -o default -F _kiln kiln", NULL},
        {{"help", "--completion", "tcsh"}, 2, NULL, "there is one for bash"},
        {{"--version"}, 0, "kiln " KILN_VERSION "\n", NULL},
        {{"version"}, 0, "kiln " KILN_VERSION "\n", NULL},
        {{"version", "--json"}, 0, "{\"version\": \"" KILN_VERSION "\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        auto_outcome outcome;
        rig_run(rig, cases[i].line, NULL, &outcome);
        if (code_of(&outcome) != cases[i].code)
            fail_msg("case %zu: %d %s", i, code_of(&outcome), kiln_buf_text(&outcome.errout));
        assert_true(cases[i].out ? strstr(kiln_buf_text(&outcome.out), cases[i].out) != NULL : outcome.out.len == 0);
        assert_true(cases[i].errout ? strstr(kiln_buf_text(&outcome.errout), cases[i].errout) != NULL
                                    : outcome.errout.len == 0);
    }
    assert_int_equal(rig_compiles(rig), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        rig_test(test_asked_of_the_agent),
        rig_test(test_without_an_agent),
        rig_test(test_a_socket_that_is_none),
        rig_test(test_status),
        rig_test(test_stop_does_not_need_an_answer),
        rig_test(test_start_says_where),
        rig_test(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
