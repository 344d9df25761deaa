#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/path.h"
#include "lib/ipc/endpoint.h"
#include "lib/ipc/frames.h"
#include "producer/cmd/commands.h"
#include "producer/cmd/print.h"

#define START_MS 10000 // a person waits; the wrapper gives up sooner
#define STOP_MS 15000
#define CONNECT_MS 3000

static const char dir_help[] = "The agent's state directory; default: ~/.cache/kiln, or where the running agent is.";

static const struct kiln_cli_option start_options[] = {
    {"dir", "DIR", "The agent's state directory; default: ~/.cache/kiln."},
    {"config", "FILE", "Its configuration; default: ~/.config/kiln/kiln.conf, then /etc/kiln/kiln.conf."},
    {"foreground", NULL, "Run the agent in this terminal instead of the background."},
};

static const struct kiln_cli_option stop_options[] = {{"dir", "DIR", dir_help}};

static const struct kiln_cli_option status_options[] = {
    {"dir", "DIR", dir_help},
    {"json", NULL, "Print one JSON object."},
};

static int complain(const struct kiln_err *err) {
    fprintf(stderr, "kiln: %s\n", err->text);
    return KILN_EXIT_FAILED;
}

// The agent gets absolute paths: it works in "/".
static int make_absolute(const char *path, char **absolute, struct kiln_err *err) {
    kiln_autofree char *cwd = getcwd(NULL, 0);
    kiln_autofree char *joined = cwd || path[0] == '/' ? kiln_path_join(cwd ? cwd : "/", path) : NULL;
    char *normal = joined ? kiln_path_normalize(joined) : NULL;
    if (!normal)
        return kiln_fail(err, KILN_E_INVAL, "%s cannot be made an absolute path", path);
    *absolute = normal;
    return 0;
}

static int choose_dir(const struct kiln_cli_call *call, struct kiln_endpoint *endpoint, struct kiln_err *err) {
    const char *dir = kiln_cli_text(call, "dir");
    if (!dir)
        return kiln_endpoint_find(endpoint, err);
    endpoint->kind = KILN_ENDPOINT_CHOSEN;
    return make_absolute(dir, &endpoint->dir, err);
}

static int choose_start_dir(const struct kiln_cli_call *call, struct kiln_endpoint *endpoint, struct kiln_err *err) {
    if (kiln_cli_text(call, "dir"))
        return choose_dir(call, endpoint, err);
    // Else it would be started in one place and asked for in another.
    if (getenv("KILN_DIR"))
        return kiln_fail(err, KILN_E_INVAL, "KILN_DIR is set: say where with --dir, or unset it");
    return kiln_endpoint_find_home(endpoint, err);
}

static int say_running(const char *how, const char *dir, int socket) {
    pid_t pid;
    uid_t uid;
    struct kiln_err err;
    if (kiln_frame_peer(socket, &pid, &uid, &err))
        return complain(&err);
    printf("agent %s: process %d, %s\n", how, (int)pid, dir);
    return KILN_EXIT_OK;
}

static int run_foreground(const char *dir, const char *config) {
    kiln_autofree char *agent = NULL;
    struct kiln_err err;
    if (kiln_endpoint_program("kiln-agent", &agent, &err))
        return complain(&err);
    const char *argv[] = {agent, "--dir", dir, config ? "--config" : NULL, config, NULL};
    execv(agent, (char *const *)argv);
    fprintf(stderr, "kiln: %s: %s\n", agent, strerror(errno));
    return KILN_EXIT_FAILED;
}

static int start_background(const struct kiln_endpoint *endpoint, const char *config) {
    kiln_autofd int socket = -1;
    struct kiln_err err;
    uint64_t deadline_ms = kiln_clock_ms() + START_MS;
    kiln_endpoint_pause(endpoint->dir, KILN_TROUBLE_START, 0);
    kiln_endpoint_pause(endpoint->dir, KILN_TROUBLE_SILENT, 0);
    if (kiln_endpoint_connect(endpoint->dir, deadline_ms, &socket, NULL) == 0)
        return say_running("runs already", endpoint->dir, socket);
    const struct kiln_endpoint_start start = {.dir = endpoint->dir, .config = config};
    if (kiln_endpoint_start_agent(&start, deadline_ms, &socket, &err)) {
        fprintf(stderr, "kiln: %s; see %s/agent.log\n", err.text, endpoint->dir);
        return KILN_EXIT_FAILED;
    }
    return say_running("started", endpoint->dir, socket);
}

static int run_start(const struct kiln_cli_call *call) {
    kiln_auto(kiln_endpoint_release) struct kiln_endpoint endpoint = {0};
    kiln_autofree char *config = NULL;
    struct kiln_err err;
    int rc = choose_start_dir(call, &endpoint, &err);
    if (rc == 0 && kiln_cli_text(call, "config"))
        rc = make_absolute(kiln_cli_text(call, "config"), &config, &err);
    if (rc)
        return complain(&err);
    return kiln_cli_flag(call, "foreground") ? run_foreground(endpoint.dir, config)
                                             : start_background(&endpoint, config);
}

static int await_end(int process, pid_t pid) {
    struct pollfd watch = {.fd = process, .events = POLLIN};
    uint64_t deadline_ms = kiln_clock_ms() + STOP_MS;
    int n;
    do
        n = poll(&watch, 1, kiln_clock_left_ms(deadline_ms));
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return KILN_EXIT_OK;
    fprintf(stderr, "kiln: agent %d was told to stop and still runs\n", (int)pid);
    return KILN_EXIT_FAILED;
}

// By its process, not by asking: an agent that hangs can be stopped too.
static int run_stop(const struct kiln_cli_call *call) {
    kiln_auto(kiln_endpoint_release) struct kiln_endpoint endpoint = {0};
    kiln_autofd int socket = -1, process = -1;
    struct kiln_err err;
    pid_t pid;
    uid_t uid;
    int rc = choose_dir(call, &endpoint, &err);
    if (rc == 0)
        rc = kiln_endpoint_connect(endpoint.dir, kiln_clock_ms() + CONNECT_MS, &socket, &err);
    if (rc == KILN_E_NOTFOUND) {
        printf("no agent runs\n");
        return KILN_EXIT_OK;
    }
    if (rc == 0)
        rc = kiln_frame_peer(socket, &pid, &uid, &err);
    if (rc)
        return complain(&err);
    process = pidfd_open(pid, 0);
    if (process < 0 || pidfd_send_signal(process, SIGTERM, NULL, 0) < 0) {
        fprintf(stderr, "kiln: stopping agent %d: %s\n", (int)pid, strerror(errno));
        return KILN_EXIT_FAILED;
    }
    close(kiln_steal_fd(&socket));
    int code = await_end(process, pid);
    if (code == KILN_EXIT_OK)
        printf("agent stopped: process %d, %s\n", (int)pid, endpoint.dir);
    return code;
}

struct status {
    struct kiln_endpoint endpoint;
    pid_t pid; // 0: does not run
    struct kiln_command_reply reply; // the agent's own words
    const char *why; // NULL when it answers
};

static void release_status(struct status *status) {
    kiln_endpoint_release(&status->endpoint);
    kiln_command_reply_release(&status->reply);
}

static int ask_status(const struct kiln_cli_call *call, int socket, struct kiln_command_reply *reply,
                      struct kiln_err *err) {
    const char *argv[] = {"agent", "status", kiln_cli_flag(call, "json") ? "--json" : NULL};
    const struct kiln_command_request request = {.argv = (char **)argv, .argc = argv[2] ? 3 : 2};
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(256);
    kiln_autoframe struct kiln_frame frame = {0};
    uint64_t now_ms = kiln_clock_ms();
    bool heard = false;
    int rc = kiln_command_request_encode(&request, &payload, err);
    if (rc == 0)
        rc = kiln_frame_send(socket, KILN_FRAME_COMMAND, payload.data, payload.len, NULL, 0, now_ms + CONNECT_MS, err);
    if (rc == 0)
        rc = kiln_frame_await(socket, KILN_ALIVE_FIRST_MS, now_ms + KILN_ALIVE_FIRST_MS, &frame, &heard, err);
    return rc ? rc : kiln_command_reply_decode(frame.payload, frame.len, reply, err);
}

static void add_status_json(const struct status *status, struct kiln_buf *out) {
    kiln_buf_addf(out, "{\"running\": %s, \"answers\": %s, \"pid\": %d, \"dir\": ", status->pid ? "true" : "false",
                  status->why ? "false" : "true", (int)status->pid);
    kiln_cmd_add_json(out, status->endpoint.dir ? status->endpoint.dir : "");
    kiln_buf_add_str(out, ", \"reason\": ");
    kiln_cmd_add_json(out, status->why ? status->why : "");
    kiln_buf_add_str(out, ", \"agent\": ");
    if (status->reply.out_len)
        kiln_buf_add(out, status->reply.out, status->reply.out_len);
    else
        kiln_buf_add_str(out, "null\n");
    kiln_buf_add_str(out, "}\n");
}

static int say_status(const struct kiln_cli_call *call, const struct status *status) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1u << 20);
    if (kiln_cli_flag(call, "json"))
        add_status_json(status, &out);
    else if (!status->why)
        kiln_buf_add(&out, status->reply.out, status->reply.out_len);
    else if (status->pid)
        kiln_buf_addf(&out, "agent %d in %s does not answer: %s\n", (int)status->pid, status->endpoint.dir, status->why);
    else
        kiln_buf_addf(&out, "no agent runs: %s\n", status->why);
    int code = kiln_cmd_print(&out);
    return status->why ? KILN_EXIT_FAILED : code;
}

static int run_status(const struct kiln_cli_call *call) {
    kiln_auto(release_status) struct status status = {0};
    kiln_autofd int socket = -1;
    struct kiln_err err;
    uid_t uid;
    int rc = choose_dir(call, &status.endpoint, &err);
    if (rc == 0)
        rc = kiln_endpoint_connect(status.endpoint.dir, kiln_clock_ms() + CONNECT_MS, &socket, &err);
    if (rc == 0)
        rc = kiln_frame_peer(socket, &status.pid, &uid, &err);
    if (rc == 0)
        rc = ask_status(call, socket, &status.reply, &err);
    if (rc)
        status.why = err.text;
    return say_status(call, &status);
}

static const struct kiln_cli_command start = {
    .name = "start",
    .help = "Start an agent. With --dir, KILN_DIR=DIR makes the wrapper and the other commands use it.",
    .options = start_options,
    .options_count = sizeof start_options / sizeof *start_options,
    .run = run_start,
};

static const struct kiln_cli_command stop = {
    .name = "stop",
    .help = "Stop the agent and wait for its end.",
    .options = stop_options,
    .options_count = sizeof stop_options / sizeof *stop_options,
    .run = run_stop,
};

static const struct kiln_cli_command status_command = {
    .name = "status",
    .help = "Say whether an agent runs and answers; the exit status is 0 when it does.",
    .options = status_options,
    .options_count = sizeof status_options / sizeof *status_options,
    .run = run_status,
};

static const struct kiln_cli_command *const commands[] = {&start, &stop, &status_command, NULL};

const struct kiln_cli_command kiln_cmd_agent = {
    .name = "agent",
    .help = "Start, stop or look for the agent.",
    .commands = commands,
};
