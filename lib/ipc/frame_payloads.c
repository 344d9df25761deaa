#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/ipc/frames.h"

// Lists of texts: be32 count, then fields. Decoded ones end with a NULL that is not counted.
static void add_texts(struct kiln_buf *out, char *const *texts, size_t count) {
    kiln_buf_add_be32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        kiln_buf_add_field_str(out, texts[i]);
}

static void free_texts(char **texts, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(texts[i]);
    free(texts);
}

static void read_texts(struct kiln_reader *reader, char ***texts, size_t *count) {
    uint32_t claimed = kiln_read_be32(reader);
    // Each text has at least its length, so what is allocated is bounded by what was received.
    if (reader->failed || claimed > KILN_REQUEST_TEXTS_MAX || claimed > (reader->len - reader->at) / 4) {
        reader->failed = true;
        return;
    }
    *texts = calloc(claimed + 1, sizeof **texts);
    if (!*texts) {
        reader->failed = true;
        return;
    }
    for (uint32_t i = 0; i < claimed && !reader->failed; i++) {
        (*texts)[i] = kiln_read_field_text(reader, KILN_REQUEST_TEXT_BYTES_MAX);
        *count = i + 1;
    }
}

static void read_copy(struct kiln_reader *reader, unsigned char **data, size_t *len) {
    size_t field_len;
    const unsigned char *bytes = kiln_read_field(reader, KILN_FRAME_BYTES_MAX, &field_len);
    if (!bytes)
        return;
    *data = malloc(field_len + 1);
    if (!*data) {
        reader->failed = true;
        return;
    }
    memcpy(*data, bytes, field_len);
    *len = field_len;
}

static bool read_flag(struct kiln_reader *reader) {
    uint8_t value = kiln_read_u8(reader);
    if (value > 1)
        reader->failed = true;
    return value == 1;
}

static int32_t read_exit_code(struct kiln_reader *reader) {
    uint32_t value = kiln_read_be32(reader);
    if (value > 255)
        reader->failed = true;
    return (int32_t)(value & 0xff);
}

static int check_env(char *const *env, size_t count, struct kiln_err *err) {
    for (size_t i = 0; i < count; i++) {
        const char *sign = strchr(env[i], '=');
        if (!sign || sign == env[i])
            return kiln_fail(err, KILN_E_CORRUPT, "the environment holds something that is no NAME=VALUE");
    }
    return 0;
}

int kiln_compile_request_encode(const struct kiln_compile_request *request, struct kiln_buf *out,
                                struct kiln_err *err) {
    add_texts(out, request->argv, request->argc);
    add_texts(out, request->env, request->env_count);
    kiln_buf_add_field_str(out, request->cwd);
    return kiln_buf_check(out, "the request", err);
}

int kiln_compile_request_decode(const void *data, size_t len, struct kiln_compile_request *request,
                                struct kiln_err *err) {
    kiln_auto(kiln_compile_request_release) struct kiln_compile_request got = {0};
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    read_texts(&reader, &got.argv, &got.argc);
    read_texts(&reader, &got.env, &got.env_count);
    got.cwd = kiln_read_field_text(&reader, KILN_PATH_MAX);
    if (!kiln_reader_done(&reader) || got.argc == 0 || got.cwd[0] != '/')
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no compile request");
    int rc = check_env(got.env, got.env_count, err);
    if (rc)
        return rc;
    *request = got;
    got = (struct kiln_compile_request){0};
    return 0;
}

void kiln_compile_request_release(struct kiln_compile_request *request) {
    free_texts(request->argv, request->argc);
    free_texts(request->env, request->env_count);
    free(request->cwd);
    *request = (struct kiln_compile_request){0};
}

int kiln_local_encode(const char *reason, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_field_str(out, reason);
    return kiln_buf_check(out, "the reason", err);
}

int kiln_local_decode(const void *data, size_t len, char **reason, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    kiln_autofree char *got = kiln_read_field_text(&reader, KILN_REQUEST_TEXT_BYTES_MAX);
    if (!kiln_reader_done(&reader) || !got[0])
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no reason");
    *reason = KILN_STEAL(got);
    return 0;
}

int kiln_command_request_encode(const struct kiln_command_request *request, struct kiln_buf *out,
                                struct kiln_err *err) {
    add_texts(out, request->argv, request->argc);
    return kiln_buf_check(out, "the command", err);
}

int kiln_command_request_decode(const void *data, size_t len, struct kiln_command_request *request,
                                struct kiln_err *err) {
    kiln_auto(kiln_command_request_release) struct kiln_command_request got = {0};
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    read_texts(&reader, &got.argv, &got.argc);
    if (!kiln_reader_done(&reader) || got.argc == 0)
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no command");
    *request = got;
    got = (struct kiln_command_request){0};
    return 0;
}

void kiln_command_request_release(struct kiln_command_request *request) {
    free_texts(request->argv, request->argc);
    *request = (struct kiln_command_request){0};
}

int kiln_command_reply_encode(const struct kiln_command_reply *reply, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_be32(out, (uint32_t)reply->exit_code);
    kiln_buf_add_field(out, reply->out, reply->out_len);
    kiln_buf_add_field(out, reply->errout, reply->errout_len);
    return kiln_buf_check(out, "the reply", err);
}

int kiln_command_reply_decode(const void *data, size_t len, struct kiln_command_reply *reply, struct kiln_err *err) {
    kiln_auto(kiln_command_reply_release) struct kiln_command_reply got = {0};
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    got.exit_code = read_exit_code(&reader);
    read_copy(&reader, &got.out, &got.out_len);
    read_copy(&reader, &got.errout, &got.errout_len);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no reply");
    *reply = got;
    got = (struct kiln_command_reply){0};
    return 0;
}

void kiln_command_reply_release(struct kiln_command_reply *reply) {
    free(reply->out);
    free(reply->errout);
    *reply = (struct kiln_command_reply){0};
}

int kiln_place_order_encode(const struct kiln_place_order *order, struct kiln_buf *buf, struct kiln_err *err) {
    kiln_buf_add_u8(buf, order->more);
    kiln_buf_add_be32(buf, (uint32_t)order->files_count);
    for (size_t i = 0; i < order->files_count; i++) {
        kiln_buf_add_field_str(buf, order->files[i].path);
        kiln_buf_add_u8(buf, order->files[i].executable);
        kiln_buf_add_be64(buf, order->files[i].size);
    }
    kiln_buf_add_field(buf, order->out, order->out_len);
    kiln_buf_add_field(buf, order->errout, order->errout_len);
    kiln_buf_add_be32(buf, (uint32_t)order->exit_code);
    return kiln_buf_check(buf, "the order", err);
}

static void read_place_files(struct kiln_reader *reader, struct kiln_place_order *order) {
    uint32_t claimed = kiln_read_be32(reader);
    if (reader->failed || claimed > KILN_FRAME_FDS_MAX) {
        reader->failed = true;
        return;
    }
    order->files = calloc(claimed + 1, sizeof *order->files);
    if (!order->files) {
        reader->failed = true;
        return;
    }
    for (uint32_t i = 0; i < claimed && !reader->failed; i++) {
        struct kiln_place_file *file = &order->files[i];
        file->path = kiln_read_field_text(reader, KILN_PATH_MAX);
        file->executable = read_flag(reader);
        file->size = kiln_read_be64(reader);
        order->files_count = i + 1;
    }
}

int kiln_place_order_decode(const void *data, size_t len, struct kiln_place_order *order, struct kiln_err *err) {
    kiln_auto(kiln_place_order_release) struct kiln_place_order got = {0};
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    got.more = read_flag(&reader);
    read_place_files(&reader, &got);
    read_copy(&reader, &got.out, &got.out_len);
    read_copy(&reader, &got.errout, &got.errout_len);
    got.exit_code = read_exit_code(&reader);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no order to place files");
    *order = got;
    got = (struct kiln_place_order){0};
    return 0;
}

void kiln_place_order_release(struct kiln_place_order *order) {
    for (size_t i = 0; i < order->files_count; i++)
        free(order->files[i].path);
    free(order->files);
    free(order->out);
    free(order->errout);
    *order = (struct kiln_place_order){0};
}

int kiln_placed_encode(const struct kiln_placed *placed, struct kiln_buf *buf, struct kiln_err *err) {
    kiln_buf_add_be32(buf, (uint32_t)placed->count);
    for (size_t i = 0; i < placed->count; i++) {
        const struct kiln_placed_file *file = &placed->files[i];
        const uint64_t numbers[] = {file->dev, file->ino, file->size, (uint64_t)file->mtime_ns,
                                    (uint64_t)file->ctime_ns};
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            kiln_buf_add_be64(buf, numbers[k]);
    }
    return kiln_buf_check(buf, "the list of placed files", err);
}

int kiln_placed_decode(const void *data, size_t len, struct kiln_placed *placed, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    uint32_t count = kiln_read_be32(&reader);
    if (reader.failed || count > KILN_PLACE_FILES_MAX || count * 40u != len - reader.at)
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes are no list of placed files");
    struct kiln_placed_file *files = calloc(count + 1, sizeof *files);
    if (!files)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for %u placed files", count);
    for (uint32_t i = 0; i < count; i++) {
        files[i].dev = kiln_read_be64(&reader);
        files[i].ino = kiln_read_be64(&reader);
        files[i].size = kiln_read_be64(&reader);
        files[i].mtime_ns = (int64_t)kiln_read_be64(&reader);
        files[i].ctime_ns = (int64_t)kiln_read_be64(&reader);
    }
    *placed = (struct kiln_placed){files, count};
    return 0;
}

void kiln_placed_release(struct kiln_placed *placed) {
    free(placed->files);
    *placed = (struct kiln_placed){0};
}
