#include "producer/wrapper/remote.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/ipc/endpoint.h"
#include "lib/ipc/frames.h"
#include "lib/ipc/missed.h"
#include "lib/rustc/argv.h"
#include "producer/wrapper/place.h"

#define TOTAL_MS (15u * 60 * 1000)
#define SEND_MS 5000

extern char **environ;

struct compile {
    size_t argc;
    char **argv;
    struct kiln_endpoint endpoint;
    int socket;
    uint64_t deadline_ms;
    char *out_dir; // NULL until the first PLACE
    struct kiln_placed placed;
};

static void release_compile(struct compile *compile) {
    kiln_endpoint_release(&compile->endpoint);
    kiln_cleanup_fd(&compile->socket);
    free(compile->out_dir);
    kiln_placed_release(&compile->placed);
}

static const char *reach_trouble(int code) {
    switch (code) {
    case KILN_E_NOTFOUND:
        return "agent_absent";
    case KILN_E_DENIED:
        return "agent_refused";
    case KILN_E_TIMEOUT:
        return "agent_down";
    default:
        return "agent_unreachable";
    }
}

static const char *talk_trouble(int code) {
    switch (code) {
    case KILN_E_TIMEOUT:
        return "agent_silent";
    case KILN_E_CLOSED:
        return "agent_gone";
    case KILN_E_UNSUPPORTED:
        return "agent_version";
    case KILN_E_LIMIT:
        return "request_too_large";
    case KILN_E_NOTFOUND:
        return "no_working_directory";
    default:
        return "agent_confused";
    }
}

static int send_request(const struct compile *compile) {
    kiln_autofree char *cwd = getcwd(NULL, 0);
    size_t count = 0;
    while (environ[count])
        count++;
    kiln_autofree char **env = calloc(count + 1, sizeof *env);
    if (!cwd || !env)
        return cwd ? KILN_E_NOMEM : KILN_E_NOTFOUND;
    struct kiln_compile_request request = {.argv = compile->argv, .argc = compile->argc, .env = env, .cwd = cwd};
    for (size_t i = 0; i < count; i++)
        if (environ[i][0] != '=' && strchr(environ[i], '='))
            env[request.env_count++] = environ[i];
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    int rc = kiln_compile_request_encode(&request, &payload, NULL);
    if (rc)
        return rc;
    return kiln_frame_send(compile->socket, KILN_FRAME_COMPILE, payload.data, payload.len, NULL, 0,
                           kiln_clock_ms() + SEND_MS, NULL);
}

static int read_argument_file(void *context, const char *path, struct kiln_buf *out, struct kiln_err *err) {
    (void)context;
    return kiln_fs_read_file(AT_FDCWD, path, out, err);
}

// Where this very command line lets rustc write: the agent is trusted for its host only, not to choose places.
static int find_out_dir(struct compile *compile, struct kiln_err *err) {
    const struct kiln_argv_options options = {.read_file = read_argument_file};
    kiln_autocall struct kiln_rustc_call call = {0};
    int rc = kiln_rustc_parse(compile->argc, compile->argv, &options, &call, err);
    if (rc)
        return rc;
    compile->out_dir = call.out_dir ? KILN_STEAL(call.out_dir) : strdup(".");
    return compile->out_dir ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for the output directory");
}

static int place(struct compile *compile, const struct kiln_place_order *order, const struct kiln_frame *frame,
                 struct kiln_err *err) {
    int rc = compile->out_dir ? 0 : find_out_dir(compile, err);
    if (rc)
        return rc;
    struct kiln_placed *placed = &compile->placed;
    if (order->files_count > KILN_PLACE_FILES_MAX - placed->count)
        return kiln_fail(err, KILN_E_LIMIT, "more than %d files to place", KILN_PLACE_FILES_MAX);
    void *grown = reallocarray(placed->files, placed->count + order->files_count + 1, sizeof *placed->files);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the placed files");
    placed->files = grown;
    rc = kiln_place_files(compile->out_dir, order, frame->fds, frame->fds_count, placed->files + placed->count, err);
    if (rc == 0)
        placed->count += order->files_count;
    return rc;
}

// Best effort: the files are in place, whether the agent hears of it or not.
static void tell_placed(const struct compile *compile) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    if (kiln_placed_encode(&compile->placed, &payload, NULL) == 0)
        kiln_frame_send(compile->socket, KILN_FRAME_PLACED, payload.data, payload.len, NULL, 0,
                        kiln_clock_ms() + SEND_MS, NULL);
}

static void tell_place_failed(const struct compile *compile, const struct kiln_err *why) {
    kiln_autobuf struct kiln_buf reason = KILN_BUF_INIT(1024);
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(2048);
    kiln_buf_addf(&reason, "place_failed: %s", why->text);
    if (kiln_local_encode(kiln_buf_text(&reason), &payload, NULL) ||
        kiln_frame_send(compile->socket, KILN_FRAME_LOCAL, payload.data, payload.len, NULL, 0,
                        kiln_clock_ms() + SEND_MS, NULL))
        kiln_missed_add(compile->endpoint.dir, "place_failed");
}

static _Noreturn void finish(const struct compile *compile, const struct kiln_place_order *order) {
    tell_placed(compile);
    kiln_fs_write_all(STDOUT_FILENO, order->out, order->out_len, NULL);
    kiln_fs_write_all(STDERR_FILENO, order->errout, order->errout_len, NULL);
    _exit(order->exit_code);
}

// One frame of the answer. *reason tells why to compile here, NULL when the agent counts it; *more to go on.
static void handle(struct compile *compile, const struct kiln_frame *frame, const char **reason, bool *more) {
    *more = false;
    *reason = NULL;
    if (frame->type == KILN_FRAME_LOCAL)
        return;
    *reason = "agent_confused";
    if (frame->type != KILN_FRAME_PLACE)
        return;
    kiln_auto(kiln_place_order_release) struct kiln_place_order order = {0};
    if (kiln_place_order_decode(frame->payload, frame->len, &order, NULL))
        return;
    *reason = NULL;
    struct kiln_err why;
    if (place(compile, &order, frame, &why))
        tell_place_failed(compile, &why);
    else if (order.more)
        *more = true;
    else
        finish(compile, &order);
}

static const char *converse(struct compile *compile) {
    int rc = send_request(compile);
    uint64_t first_ms = KILN_ALIVE_FIRST_MS;
    bool heard = false;
    while (rc == 0) {
        kiln_autoframe struct kiln_frame frame = {0};
        rc = kiln_frame_await(compile->socket, first_ms, compile->deadline_ms, &frame, &heard, NULL);
        if (rc)
            break;
        const char *reason;
        bool more;
        handle(compile, &frame, &reason, &more);
        if (!more)
            return reason;
        first_ms = KILN_ALIVE_GAP_MS;
    }
    // An agent that is there and does not say a word would cost every crate the same wait.
    if (rc == KILN_E_TIMEOUT && !heard)
        kiln_endpoint_pause(compile->endpoint.dir, KILN_TROUBLE_SILENT, KILN_PAUSE_SILENT_MS);
    return talk_trouble(rc);
}

void kiln_remote_compile(size_t argc, char **argv) {
    kiln_auto(release_compile) struct compile compile = {
        .argc = argc, .argv = argv, .socket = -1, .deadline_ms = kiln_clock_ms() + TOTAL_MS};
    int rc = kiln_endpoint_reach(&compile.endpoint, kiln_clock_ms() + KILN_START_MS, &compile.socket, NULL);
    const char *reason = rc ? reach_trouble(rc) : converse(&compile);
    if (reason && compile.endpoint.dir)
        kiln_missed_add(compile.endpoint.dir, reason);
}
