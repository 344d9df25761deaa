#include "lib/core/result.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/core/list.h"

static const char core_magic[] = "kiln-result-1";     // with its NUL
static const char envelope_magic[] = "kiln-signed-1"; // with its NUL

#define NAME_MAX_BYTES 255u
#define REASON_MAX_BYTES 4352u // a path of KILN_PATH_MAX and the word before it

void kiln_result_release(struct kiln_result *result) {
    free(result->scope);
    free(result->executor);
    free(result->pool);
    free(result->backend);
    for (size_t i = 0; i < result->outputs_count; i++)
        free(result->outputs[i].name);
    free(result->outputs);
    for (size_t i = 0; i < result->closure_count; i++)
        free(result->closure[i]);
    free(result->closure);
    for (size_t i = 0; i < result->reasons_count; i++)
        free(result->reasons[i]);
    free(result->reasons);
    *result = (struct kiln_result){0};
}

int kiln_result_add_output(struct kiln_result *result, enum kiln_output_kind kind, const char *name, bool executable,
                           uint64_t size, const struct kiln_digest *digest, struct kiln_err *err) {
    if (result->outputs_count >= KILN_RESULT_OUTPUTS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a result has at most %u outputs", KILN_RESULT_OUTPUTS_MAX);
    struct kiln_output *list = kiln_list_grow(result->outputs, result->outputs_count, sizeof *list);
    if (!list)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an output");
    result->outputs = list;
    struct kiln_output output = {
        .kind = kind, .executable = executable, .name = strdup(name), .size = size, .digest = *digest};
    if (!output.name)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an output");
    list[result->outputs_count++] = output;
    return 0;
}

static int add_text(char ***list, size_t *count, size_t max, const char *text, const char *what,
                    struct kiln_err *err) {
    if (*count >= max)
        return kiln_fail(err, KILN_E_LIMIT, "a result has at most %zu %s", max, what);
    char **grown = kiln_list_grow(*list, *count, sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for %s", what);
    *list = grown;
    char *copy = strdup(text);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for %s", what);
    grown[(*count)++] = copy;
    return 0;
}

int kiln_result_add_closure(struct kiln_result *result, const char *stem, struct kiln_err *err) {
    return add_text(&result->closure, &result->closure_count, KILN_RESULT_STEMS_MAX, stem, "closure stems", err);
}

int kiln_result_add_reason(struct kiln_result *result, const char *reason, struct kiln_err *err) {
    return add_text(&result->reasons, &result->reasons_count, KILN_RESULT_REASONS_MAX, reason, "reasons", err);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int by_output(const void *a, const void *b) {
    const struct kiln_output *one = a, *other = b;
    return one->kind != other->kind ? (one->kind < other->kind ? -1 : 1) : strcmp(one->name, other->name);
}

// One component of a canonical relative path: what may become a file name or a part of a store key.
static int check_name(const char *name, const char *what, struct kiln_err *err) {
    if (!name || strchr(name, '/') || kiln_path_check_relative(name, NULL))
        return kiln_fail(err, KILN_E_INVAL, "\"%s\" is no %s of a result", name ? name : "", what);
    return 0;
}

static int check_outputs(const struct kiln_result *result, struct kiln_err *err) {
    for (size_t i = 0; i < result->outputs_count; i++) {
        const struct kiln_output *output = &result->outputs[i];
        if (output->kind < KILN_OUTPUT_FILE || output->kind > KILN_OUTPUT_STDERR)
            return kiln_fail(err, KILN_E_INVAL, "an output of unknown kind %d", (int)output->kind);
        int rc = output->kind == KILN_OUTPUT_FILE ? check_name(output->name, "output name", err) : 0;
        if (rc)
            return rc;
        if (output->kind != KILN_OUTPUT_FILE && (*output->name || output->executable))
            return kiln_fail(err, KILN_E_INVAL, "a captured text has no name and is not executable");
        if (i > 0 && by_output(output - 1, output) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "output \"%s\" is there twice or out of order", output->name);
    }
    return 0;
}

static int check_texts(const struct kiln_result *result, struct kiln_err *err) {
    for (size_t i = 0; i < result->closure_count; i++) {
        int rc = check_name(result->closure[i], "closure stem", err);
        if (rc)
            return rc;
        if (i > 0 && by_text(&result->closure[i - 1], &result->closure[i]) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "closure stem %s is there twice or out of order", result->closure[i]);
    }
    for (size_t i = 0; i < result->reasons_count; i++) {
        size_t len = strlen(result->reasons[i]);
        if (len == 0 || len > REASON_MAX_BYTES)
            return kiln_fail(err, KILN_E_INVAL, "a reason has 1 to %u bytes", REASON_MAX_BYTES);
        if (i > 0 && by_text(&result->reasons[i - 1], &result->reasons[i]) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "reason \"%.200s\" is there twice or out of order", result->reasons[i]);
    }
    return 0;
}

static int check_outcome(const struct kiln_result *result, struct kiln_err *err) {
    switch (result->outcome) {
    case KILN_OUTCOME_SUCCESS:
        if (result->exit_code != 0 || result->reasons_count)
            return kiln_fail(err, KILN_E_INVAL, "a success has exit code 0 and no reasons");
        return 0;
    case KILN_OUTCOME_LOCAL:
        if (result->outputs_count || result->closure_count || !result->reasons_count)
            return kiln_fail(err, KILN_E_INVAL, "a local outcome has reasons and nothing else");
        return 0;
    }
    return kiln_fail(err, KILN_E_INVAL, "unknown outcome %d", (int)result->outcome);
}

static int check_attested(const char *text, const char *what, struct kiln_err *err) {
    if (!text || strlen(text) > NAME_MAX_BYTES)
        return kiln_fail(err, KILN_E_INVAL, "the %s of a result has at most %u bytes", what, NAME_MAX_BYTES);
    return 0;
}

static int check(const struct kiln_result *result, struct kiln_err *err) {
    int rc = check_name(result->scope, "scope", err);
    if (!rc)
        rc = check_attested(result->executor, "executor", err);
    if (!rc)
        rc = check_attested(result->pool, "pool", err);
    if (!rc)
        rc = check_attested(result->backend, "backend", err);
    if (!rc && result->expires_ms && result->expires_ms < result->issued_ms)
        rc = kiln_fail(err, KILN_E_INVAL, "a result expires before it is issued");
    if (!rc)
        rc = check_outcome(result, err);
    if (!rc)
        rc = check_outputs(result, err);
    return rc ? rc : check_texts(result, err);
}

static void sort(void *items, size_t count, size_t item_bytes, int (*compare)(const void *, const void *)) {
    if (count)
        qsort(items, count, item_bytes, compare);
}

int kiln_result_finish(struct kiln_result *result, struct kiln_err *err) {
    sort(result->outputs, result->outputs_count, sizeof *result->outputs, by_output);
    sort(result->closure, result->closure_count, sizeof *result->closure, by_text);
    sort(result->reasons, result->reasons_count, sizeof *result->reasons, by_text);
    return check(result, err);
}

static void encode_outputs(const struct kiln_result *result, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)result->outputs_count);
    for (size_t i = 0; i < result->outputs_count; i++) {
        const struct kiln_output *output = &result->outputs[i];
        kiln_buf_add_u8(out, (uint8_t)output->kind);
        kiln_buf_add_u8(out, output->executable);
        kiln_buf_add_field_str(out, output->name);
        kiln_buf_add_be64(out, output->size);
        kiln_buf_add_digest(out, &output->digest);
    }
}

static void encode_texts(char *const *texts, size_t count, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        kiln_buf_add_field_str(out, texts[i]);
}

int kiln_result_encode(const struct kiln_result *result, struct kiln_buf *out, struct kiln_err *err) {
    int rc = check(result, err);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf outputs = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    encode_outputs(result, &outputs);
    rc = kiln_buf_check(&outputs, "the outputs of a result", err);
    if (rc)
        return rc;
    struct kiln_digest outputs_digest;
    kiln_digest_of(outputs.data, outputs.len, &outputs_digest);
    size_t start = out->len;
    kiln_buf_add(out, core_magic, sizeof core_magic);
    kiln_buf_add_digest(out, &result->action);
    kiln_buf_add_field_str(out, result->scope);
    kiln_buf_add_be64(out, result->generation);
    kiln_buf_add_be64(out, result->issued_ms);
    kiln_buf_add_be64(out, result->expires_ms);
    kiln_buf_add_u8(out, (uint8_t)result->outcome);
    kiln_buf_add_be32(out, (uint32_t)result->exit_code);
    kiln_buf_add_field_str(out, result->executor);
    kiln_buf_add_field_str(out, result->pool);
    kiln_buf_add_field_str(out, result->backend);
    kiln_buf_add_digest(out, &outputs_digest);
    kiln_buf_add(out, outputs.data, outputs.len);
    encode_texts(result->closure, result->closure_count, out);
    encode_texts(result->reasons, result->reasons_count, out);
    kiln_buf_add_be32(out, 0);
    rc = kiln_buf_check(out, "a result", err);
    if (!rc && out->len - start > KILN_RESULT_BYTES_MAX)
        rc = kiln_fail(err, KILN_E_LIMIT, "a result is larger than %u bytes", KILN_RESULT_BYTES_MAX);
    return rc;
}

static void decode_outputs(struct kiln_reader *reader, struct kiln_result *result) {
    result->outputs =
        kiln_list_read(reader, KILN_RESULT_OUTPUTS_MAX, 46, sizeof *result->outputs, &result->outputs_count);
    for (size_t i = 0; i < result->outputs_count && !reader->failed; i++) {
        struct kiln_output *output = &result->outputs[i];
        output->kind = kiln_read_u8(reader);
        uint8_t executable = kiln_read_u8(reader);
        output->executable = executable;
        output->name = kiln_read_field_text(reader, NAME_MAX_BYTES);
        output->size = kiln_read_be64(reader);
        kiln_read_digest(reader, &output->digest);
        if (executable > 1)
            reader->failed = true;
    }
}

static char **decode_texts(struct kiln_reader *reader, size_t max, size_t max_bytes, size_t *count) {
    char **texts = kiln_list_read(reader, max, 5, sizeof *texts, count);
    for (size_t i = 0; i < *count && !reader->failed; i++)
        texts[i] = kiln_read_field_text(reader, max_bytes);
    return texts;
}

static void decode_head(struct kiln_reader *reader, struct kiln_result *result) {
    kiln_read_digest(reader, &result->action);
    result->scope = kiln_read_field_text(reader, NAME_MAX_BYTES);
    result->generation = kiln_read_be64(reader);
    result->issued_ms = kiln_read_be64(reader);
    result->expires_ms = kiln_read_be64(reader);
    result->outcome = kiln_read_u8(reader);
    result->exit_code = (int32_t)kiln_read_be32(reader);
    result->executor = kiln_read_field_text(reader, NAME_MAX_BYTES);
    result->pool = kiln_read_field_text(reader, NAME_MAX_BYTES);
    result->backend = kiln_read_field_text(reader, NAME_MAX_BYTES);
}

static int check_outputs_digest(const struct kiln_reader *reader, size_t from, size_t to,
                                const struct kiln_digest *claimed, struct kiln_err *err) {
    struct kiln_digest found;
    kiln_digest_of(reader->data + from, to - from, &found);
    if (!kiln_digest_equal(&found, claimed))
        return kiln_fail(err, KILN_E_CORRUPT, "the outputs of a result do not match their digest");
    return 0;
}

int kiln_result_decode(const void *data, size_t len, struct kiln_result *result, struct kiln_err *err) {
    if (len > KILN_RESULT_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a result is larger than %u bytes", KILN_RESULT_BYTES_MAX);
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof core_magic);
    if (!head || memcmp(head, core_magic, sizeof core_magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a result");
    kiln_autoresult struct kiln_result decoded = {0};
    struct kiln_digest outputs_digest = {0};
    decode_head(&reader, &decoded);
    kiln_read_digest(&reader, &outputs_digest);
    size_t from = reader.at;
    decode_outputs(&reader, &decoded);
    size_t to = reader.at;
    decoded.closure = decode_texts(&reader, KILN_RESULT_STEMS_MAX, NAME_MAX_BYTES, &decoded.closure_count);
    decoded.reasons = decode_texts(&reader, KILN_RESULT_REASONS_MAX, REASON_MAX_BYTES, &decoded.reasons_count);
    uint32_t reserved = kiln_read_be32(&reader);
    if (!kiln_reader_done(&reader) || reserved)
        return kiln_fail(err, KILN_E_CORRUPT, "a result is malformed near byte %zu", reader.at);
    int rc = check_outputs_digest(&reader, from, to, &outputs_digest, err);
    if (rc)
        return rc;
    if (check(&decoded, err))
        return kiln_wrap(err, KILN_E_CORRUPT, "a result");
    *result = decoded;
    decoded = (struct kiln_result){0};
    return 0;
}

int kiln_result_seal(const struct kiln_result *result, const struct kiln_sign_key *key, struct kiln_buf *envelope,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf core = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    int rc = kiln_result_encode(result, &core, err);
    if (rc)
        return rc;
    uint8_t signature[KILN_SIGNATURE_BYTES];
    rc = kiln_sign(key, core.data, core.len, signature, err);
    if (rc)
        return rc;
    struct kiln_digest id;
    kiln_sign_key_id(key, &id);
    kiln_buf_add(envelope, envelope_magic, sizeof envelope_magic);
    kiln_buf_add_field(envelope, id.bytes, sizeof id.bytes);
    kiln_buf_add_field(envelope, core.data, core.len);
    kiln_buf_add_field(envelope, signature, sizeof signature);
    return kiln_buf_check(envelope, "a signed result", err);
}

struct envelope {
    struct kiln_digest key_id;
    const unsigned char *core, *signature; // borrowed from the input
    size_t core_len;
};

static int decode_envelope(const void *data, size_t len, struct envelope *envelope, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof envelope_magic);
    size_t id_len, signature_len;
    const unsigned char *id = kiln_read_field(&reader, sizeof envelope->key_id.bytes, &id_len);
    envelope->core = kiln_read_field(&reader, KILN_RESULT_BYTES_MAX, &envelope->core_len);
    envelope->signature = kiln_read_field(&reader, KILN_SIGNATURE_BYTES, &signature_len);
    if (!kiln_reader_done(&reader) || memcmp(head, envelope_magic, sizeof envelope_magic) != 0 ||
        id_len != sizeof envelope->key_id.bytes || signature_len != KILN_SIGNATURE_BYTES)
        return kiln_fail(err, KILN_E_CORRUPT, "not a signed result");
    memcpy(envelope->key_id.bytes, id, id_len);
    return 0;
}

int kiln_result_open(const void *data, size_t len, const struct kiln_trust *trust, const struct kiln_digest *action,
                     struct kiln_result *result, struct kiln_err *err) {
    struct envelope envelope;
    int rc = decode_envelope(data, len, &envelope, err);
    if (!rc)
        rc = kiln_trust_verify(trust, &envelope.key_id, envelope.core, envelope.core_len, envelope.signature, err);
    if (rc)
        return rc;
    kiln_autoresult struct kiln_result opened = {0};
    rc = kiln_result_decode(envelope.core, envelope.core_len, &opened, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_CORRUPT, "signed result");
    if (!kiln_digest_equal(&opened.action, action))
        return kiln_fail(err, KILN_E_CORRUPT, "a signed result of another action");
    *result = opened;
    opened = (struct kiln_result){0};
    return 0;
}
