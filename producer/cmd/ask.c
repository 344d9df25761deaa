#include "producer/cmd/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/ipc/endpoint.h"
#include "lib/ipc/frames.h"
#include "lib/ipc/missed.h"
#include "producer/cmd/print.h"

#define CONNECT_MS 3000
#define ANSWER_MS (10u * 60 * 1000)
#define REASONS_MAX 16

struct missed {
    size_t total, reasons_count;
    struct {
        char word[65];
        size_t count;
    } reasons[REASONS_MAX];
};

static void count_missed(void *context, const char *reason) {
    struct missed *missed = context;
    missed->total++;
    size_t i = 0;
    while (i < missed->reasons_count && strcmp(missed->reasons[i].word, reason) != 0)
        i++;
    if (i == REASONS_MAX)
        return;
    if (i == missed->reasons_count) {
        snprintf(missed->reasons[i].word, sizeof missed->reasons[i].word, "%s", reason);
        missed->reasons_count++;
    }
    missed->reasons[i].count++;
}

static int say_json(const char *why, const struct missed *missed) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(64u << 10);
    kiln_buf_add_str(&out, "{\"agent\": null, \"reason\": ");
    kiln_cmd_add_json(&out, why);
    kiln_buf_addf(&out, ", \"local\": %zu, \"local_reasons\": {", missed->total);
    for (size_t i = 0; i < missed->reasons_count; i++) {
        kiln_buf_add_str(&out, i ? ", " : "");
        kiln_cmd_add_json(&out, missed->reasons[i].word);
        kiln_buf_addf(&out, ": %zu", missed->reasons[i].count);
    }
    kiln_buf_add_str(&out, "}}\n");
    kiln_cmd_print(&out);
    return KILN_EXIT_FAILED;
}

static int say_no_agent(const struct kiln_cli_call *call, const struct kiln_endpoint *endpoint, const char *why) {
    struct missed missed = {0};
    if (endpoint->dir)
        kiln_missed_read(endpoint->dir, count_missed, &missed, NULL);
    if (kiln_cli_flag(call, "json"))
        return say_json(why, &missed);
    fprintf(stderr, "kiln: no agent: %s\n", why);
    for (size_t i = 0; i < missed.reasons_count; i++)
        fprintf(stderr, "kiln: compiled locally since then: %zu (%s)\n", missed.reasons[i].count,
                missed.reasons[i].word);
    if (endpoint->kind == KILN_ENDPOINT_CHOSEN && endpoint->dir)
        fprintf(stderr, "kiln: to start one: kiln agent start --dir %s\n", endpoint->dir);
    else
        fprintf(stderr, "kiln: to start one: kiln agent start\n");
    return KILN_EXIT_FAILED;
}

// The command as it travels: names, operands, then options as "--name" or "--name=value". The strings made are kept in
// `made` for freeing.
static int encode(const struct kiln_cli_call *call, struct kiln_buf *payload, struct kiln_err *err) {
    const char *argv[KILN_CLI_DEPTH_MAX + 2 * KILN_CLI_OPTIONS_MAX];
    char *made[KILN_CLI_OPTIONS_MAX];
    size_t argc = 0, made_count = 0;
    for (size_t i = 1; i < call->depth; i++)
        argv[argc++] = call->path[i]->name;
    for (size_t i = 0; i < call->operands_count && i < KILN_CLI_OPTIONS_MAX; i++)
        argv[argc++] = call->operands[i];
    for (size_t i = 0; i < call->command->options_count; i++) {
        const struct kiln_cli_option *option = &call->command->options[i];
        if (!call->values[i] ||
            asprintf(&made[made_count], option->value ? "--%s=%s" : "--%s", option->name, call->values[i]) < 0)
            continue;
        argv[argc++] = made[made_count++];
    }
    struct kiln_command_request request = {.argv = (char **)argv, .argc = argc};
    int rc = kiln_command_request_encode(&request, payload, err);
    while (made_count)
        free(made[--made_count]);
    return rc;
}

static int await_reply(const struct kiln_cli_call *call, int socket, struct kiln_command_reply *reply,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    uint64_t now_ms = kiln_clock_ms();
    int rc = encode(call, &payload, err);
    if (rc == 0)
        rc = kiln_frame_send(socket, KILN_FRAME_COMMAND, payload.data, payload.len, NULL, 0, now_ms + CONNECT_MS, err);
    kiln_autoframe struct kiln_frame frame = {0};
    bool heard = false;
    if (rc == 0)
        rc = kiln_frame_await(socket, KILN_ALIVE_FIRST_MS, now_ms + ANSWER_MS, &frame, &heard, err);
    if (rc)
        return rc;
    if (frame.type != KILN_FRAME_REPLY)
        return kiln_fail(err, KILN_E_CORRUPT, "the agent did not answer with a reply");
    return kiln_command_reply_decode(frame.payload, frame.len, reply, err);
}

int kiln_cmd_ask(const struct kiln_cli_call *call, enum kiln_cmd_effort effort) {
    kiln_auto(kiln_endpoint_release) struct kiln_endpoint endpoint = {0};
    kiln_autofd int socket = -1;
    struct kiln_err err;
    uint64_t deadline_ms = kiln_clock_ms() + CONNECT_MS;
    int rc = effort == KILN_ASK_START ? kiln_endpoint_reach(&endpoint, deadline_ms, &socket, &err)
                                      : kiln_endpoint_find(&endpoint, &err);
    if (rc == 0 && socket < 0)
        rc = kiln_endpoint_connect(endpoint.dir, deadline_ms, &socket, &err);
    kiln_auto(kiln_command_reply_release) struct kiln_command_reply reply = {0};
    if (rc == 0)
        rc = await_reply(call, socket, &reply, &err);
    if (rc)
        return say_no_agent(call, &endpoint, err.text);
    kiln_fs_write_all(STDERR_FILENO, reply.errout, reply.errout_len, NULL);
    if (kiln_fs_write_all(STDOUT_FILENO, reply.out, reply.out_len, NULL))
        return KILN_EXIT_FAILED;
    return reply.exit_code;
}
