#include "lib/core/result.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/core/list.h"

static const char core_magic[] = "kiln-result-2";     // with its NUL
static const char envelope_magic[] = "kiln-signed-1"; // with its NUL

#define NAME_MAX_BYTES 255u
#define PIN_MAX_BYTES 127u     // fits struct kiln_pin (lib/blob/store.h)
#define REASON_MAX_BYTES 4352u // a path of KILN_PATH_MAX and the word before it

static void release_attestation(struct kiln_attestation *attestation) {
    free(attestation->executor);
    free(attestation->pool);
    free(attestation->backend);
}

void kiln_result_release(struct kiln_result *result) {
    free(result->scope);
    free(result->profile);
    free(result->policy);
    free(result->bundle_pin);
    for (size_t i = 0; i < result->attestations_count; i++)
        release_attestation(&result->attestations[i]);
    free(result->attestations);
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

int kiln_result_add_attestation(struct kiln_result *result, const struct kiln_attestation *attestation,
                                struct kiln_err *err) {
    if (result->attestations_count >= KILN_RESULT_ATTESTATIONS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a result has at most %u attestations", KILN_RESULT_ATTESTATIONS_MAX);
    struct kiln_attestation *list = kiln_list_grow(result->attestations, result->attestations_count, sizeof *list);
    if (!list)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an attestation");
    result->attestations = list;
    struct kiln_attestation copy = *attestation;
    copy.executor = strdup(attestation->executor);
    copy.pool = strdup(attestation->pool);
    copy.backend = strdup(attestation->backend);
    if (!copy.executor || !copy.pool || !copy.backend) {
        release_attestation(&copy);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an attestation");
    }
    list[result->attestations_count++] = copy;
    return 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int by_output(const void *a, const void *b) {
    const struct kiln_output *one = a, *other = b;
    return one->kind != other->kind ? (one->kind < other->kind ? -1 : 1) : strcmp(one->name, other->name);
}

static int by_executor(const void *a, const void *b) {
    const struct kiln_attestation *one = a, *other = b;
    return strcmp(one->executor, other->executor);
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

// Digits without a leading zero after "agreement="; 0 when it is anything else.
static size_t parse_policy(const char *policy) {
    static const char word[] = "agreement=";
    if (!policy || strncmp(policy, word, sizeof word - 1) != 0)
        return 0;
    const char *digits = policy + sizeof word - 1;
    size_t len = strlen(digits), number = 0;
    for (size_t i = 0; i < len; i++)
        number = digits[i] >= '0' && digits[i] <= '9' && len <= 2 ? number * 10 + (size_t)(digits[i] - '0') : 0;
    return len && digits[0] != '0' && number <= KILN_RESULT_ATTESTATIONS_MAX ? number : 0;
}

static bool is_first_of_pool(const struct kiln_result *result, size_t index) {
    for (size_t i = 0; i < index; i++) {
        if (strcmp(result->attestations[i].pool, result->attestations[index].pool) == 0)
            return false;
    }
    return true;
}

// What the signer asked for must have been given: that many executors of different pools say the same.
static int check_agreement(const struct kiln_result *result, struct kiln_err *err) {
    struct kiln_digest outputs;
    size_t wanted = parse_policy(result->policy), pools = 0;
    if (!wanted)
        return kiln_fail(err, KILN_E_INVAL, "a result of an unknown policy");
    int rc = result->outcome == KILN_OUTCOME_SUCCESS
                 ? kiln_result_outputs_digest(result->outputs, result->outputs_count, &outputs, err)
                 : 0;
    for (size_t i = 0; !rc && i < result->attestations_count; i++) {
        const struct kiln_attestation *attestation = &result->attestations[i];
        pools += is_first_of_pool(result, i);
        if (result->outcome == KILN_OUTCOME_SUCCESS && !kiln_digest_equal(&attestation->outputs, &outputs))
            rc = kiln_fail(err, KILN_E_INVAL, "%s attests other outputs", attestation->executor);
    }
    if (!rc && pools < wanted)
        rc = kiln_fail(err, KILN_E_INVAL, "attested by %zu pools instead of %zu", pools, wanted);
    return rc;
}

static int check_attestations(const struct kiln_result *result, struct kiln_err *err) {
    if (!result->attestations_count)
        return kiln_fail(err, KILN_E_INVAL, "a result that nobody attests");
    for (size_t i = 0; i < result->attestations_count; i++) {
        const struct kiln_attestation *attestation = &result->attestations[i];
        int rc = check_name(attestation->executor, "executor", err);
        if (!rc)
            rc = check_name(attestation->pool, "pool", err);
        if (!rc)
            rc = check_name(attestation->backend, "backend", err);
        if (rc)
            return rc;
        if (i > 0 && by_executor(attestation - 1, attestation) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "executor %s attests twice or out of order", attestation->executor);
    }
    return check_agreement(result, err);
}

static bool is_pin(const char *pin) {
    size_t len = strlen(pin);
    for (size_t i = 0; i < len; i++) {
        if (pin[i] <= ' ' || pin[i] > '~')
            return false;
    }
    return len <= PIN_MAX_BYTES;
}

static int check_bundle(const struct kiln_result *result, struct kiln_err *err) {
    static const struct kiln_digest none;
    bool there = !kiln_digest_equal(&result->bundle, &none);
    if (!result->bundle_pin || !is_pin(result->bundle_pin))
        return kiln_fail(err, KILN_E_INVAL, "the pin of a bundle is no name of a version");
    if (there && (!result->bundle_size || !result->outputs_count))
        return kiln_fail(err, KILN_E_INVAL, "a bundle of nothing");
    if (!there && (result->bundle_size || *result->bundle_pin))
        return kiln_fail(err, KILN_E_INVAL, "size or pin of no bundle");
    return 0;
}

static int check(const struct kiln_result *result, struct kiln_err *err) {
    int rc = check_name(result->scope, "scope", err);
    if (!rc)
        rc = check_name(result->profile, "profile", err);
    if (!rc && result->expires_ms && result->expires_ms < result->issued_ms)
        rc = kiln_fail(err, KILN_E_INVAL, "a result expires before it is issued");
    if (!rc)
        rc = check_outcome(result, err);
    if (!rc)
        rc = check_outputs(result, err);
    if (!rc)
        rc = check_attestations(result, err);
    if (!rc)
        rc = check_bundle(result, err);
    return rc ? rc : check_texts(result, err);
}

static void sort(void *items, size_t count, size_t item_bytes, int (*compare)(const void *, const void *)) {
    if (count)
        qsort(items, count, item_bytes, compare);
}

int kiln_result_finish(struct kiln_result *result, struct kiln_err *err) {
    sort(result->outputs, result->outputs_count, sizeof *result->outputs, by_output);
    sort(result->attestations, result->attestations_count, sizeof *result->attestations, by_executor);
    sort(result->closure, result->closure_count, sizeof *result->closure, by_text);
    sort(result->reasons, result->reasons_count, sizeof *result->reasons, by_text);
    return check(result, err);
}

static void encode_outputs(const struct kiln_output *outputs, size_t count, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        const struct kiln_output *output = &outputs[i];
        kiln_buf_add_u8(out, (uint8_t)output->kind);
        kiln_buf_add_u8(out, output->executable);
        kiln_buf_add_field_str(out, output->name);
        kiln_buf_add_be64(out, output->size);
        kiln_buf_add_digest(out, &output->digest);
    }
}

static int digest_sorted(const struct kiln_output *outputs, size_t count, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    encode_outputs(outputs, count, &bytes);
    int rc = kiln_buf_check(&bytes, "the outputs of a result", err);
    if (!rc)
        kiln_digest_of(bytes.data, bytes.len, digest);
    return rc;
}

int kiln_result_outputs_digest(const struct kiln_output *outputs, size_t count, struct kiln_digest *digest,
                               struct kiln_err *err) {
    if (!count)
        return digest_sorted(NULL, 0, digest, err);
    kiln_autofree struct kiln_output *sorted = calloc(count, sizeof *sorted); // borrows the names
    if (!sorted)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the outputs of a result");
    memcpy(sorted, outputs, count * sizeof *sorted);
    sort(sorted, count, sizeof *sorted, by_output);
    return digest_sorted(sorted, count, digest, err);
}

static void encode_attestations(const struct kiln_result *result, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)result->attestations_count);
    for (size_t i = 0; i < result->attestations_count; i++) {
        const struct kiln_attestation *attestation = &result->attestations[i];
        kiln_buf_add_field_str(out, attestation->executor);
        kiln_buf_add_field_str(out, attestation->pool);
        kiln_buf_add_field_str(out, attestation->backend);
        kiln_buf_add_be64(out, attestation->at_ms);
        kiln_buf_add_digest(out, &attestation->outputs);
        kiln_buf_add(out, attestation->signature, sizeof attestation->signature);
    }
}

static void encode_texts(char *const *texts, size_t count, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        kiln_buf_add_field_str(out, texts[i]);
}

static void encode_head(const struct kiln_result *result, struct kiln_buf *out) {
    kiln_buf_add(out, core_magic, sizeof core_magic);
    kiln_buf_add_digest(out, &result->action);
    kiln_buf_add_field_str(out, result->scope);
    kiln_buf_add_be64(out, result->generation);
    kiln_buf_add_be64(out, result->issued_ms);
    kiln_buf_add_be64(out, result->expires_ms);
    kiln_buf_add_field_str(out, result->profile);
    kiln_buf_add_digest(out, &result->toolchain_runtime);
    kiln_buf_add_digest(out, &result->toolchain_rustc);
    kiln_buf_add_digest(out, &result->toolchain_link);
    kiln_buf_add_field_str(out, result->policy);
    kiln_buf_add_u8(out, (uint8_t)result->outcome);
    kiln_buf_add_be32(out, (uint32_t)result->exit_code);
    kiln_buf_add_digest(out, &result->inputs);
}

int kiln_result_encode(const struct kiln_result *result, struct kiln_buf *out, struct kiln_err *err) {
    int rc = check(result, err);
    if (rc)
        return rc;
    struct kiln_digest outputs_digest;
    rc = digest_sorted(result->outputs, result->outputs_count, &outputs_digest, err);
    if (rc)
        return rc;
    size_t start = out->len;
    encode_head(result, out);
    kiln_buf_add_digest(out, &outputs_digest);
    encode_outputs(result->outputs, result->outputs_count, out);
    kiln_buf_add_digest(out, &result->bundle);
    kiln_buf_add_be64(out, result->bundle_size);
    kiln_buf_add_field_str(out, result->bundle_pin);
    encode_attestations(result, out);
    encode_texts(result->closure, result->closure_count, out);
    encode_texts(result->reasons, result->reasons_count, out);
    kiln_buf_add_be32(out, 0); // leaves of a transparency log
    kiln_buf_add_u8(out, 0);   // partial
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

static void decode_attestations(struct kiln_reader *reader, struct kiln_result *result) {
    result->attestations = kiln_list_read(reader, KILN_RESULT_ATTESTATIONS_MAX, 119, sizeof *result->attestations,
                                          &result->attestations_count);
    for (size_t i = 0; i < result->attestations_count && !reader->failed; i++) {
        struct kiln_attestation *attestation = &result->attestations[i];
        attestation->executor = kiln_read_field_text(reader, NAME_MAX_BYTES);
        attestation->pool = kiln_read_field_text(reader, NAME_MAX_BYTES);
        attestation->backend = kiln_read_field_text(reader, NAME_MAX_BYTES);
        attestation->at_ms = kiln_read_be64(reader);
        kiln_read_digest(reader, &attestation->outputs);
        const unsigned char *signature = kiln_read_bytes(reader, sizeof attestation->signature);
        if (signature)
            memcpy(attestation->signature, signature, sizeof attestation->signature);
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
    result->profile = kiln_read_field_text(reader, NAME_MAX_BYTES);
    kiln_read_digest(reader, &result->toolchain_runtime);
    kiln_read_digest(reader, &result->toolchain_rustc);
    kiln_read_digest(reader, &result->toolchain_link);
    result->policy = kiln_read_field_text(reader, NAME_MAX_BYTES);
    result->outcome = kiln_read_u8(reader);
    result->exit_code = (int32_t)kiln_read_be32(reader);
    kiln_read_digest(reader, &result->inputs);
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
    kiln_read_digest(&reader, &decoded.bundle);
    decoded.bundle_size = kiln_read_be64(&reader);
    decoded.bundle_pin = kiln_read_field_text(&reader, PIN_MAX_BYTES);
    decode_attestations(&reader, &decoded);
    decoded.closure = decode_texts(&reader, KILN_RESULT_STEMS_MAX, NAME_MAX_BYTES, &decoded.closure_count);
    decoded.reasons = decode_texts(&reader, KILN_RESULT_REASONS_MAX, REASON_MAX_BYTES, &decoded.reasons_count);
    uint32_t leaves = kiln_read_be32(&reader);
    uint8_t partial = kiln_read_u8(&reader);
    if (!kiln_reader_done(&reader) || leaves || partial)
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
