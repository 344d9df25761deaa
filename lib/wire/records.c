#include "lib/wire/records.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/wire/convert.h"
#include "lib/wire/scan.h"

enum { FRAME_BYTES = 5, BODY_BYTES_MAX = KILN_WIRE_BYTES_MAX - FRAME_BYTES };

struct codec {
    struct kiln_schema schema;
    const struct kiln_layout *layout;
    avro_value_iface_t *iface; // makes avro-c's values of the schema
};

// A value per call costs little, and keeps neither the memory of the largest record nor anything of the last one.
static void value_release(avro_value_t *value) {
    if (value->iface)
        avro_value_decref(value);
}

#define COUNT_ONE(name) +1
enum { CODECS_COUNT = 0 KILN_RECORD_TYPES(COUNT_ONE) };

// avro-c keeps process-wide state, so there is one set of codecs per process; it is made at the first use and stays.
static struct {
    pthread_once_t once;
    pthread_mutex_t lock; // of everything below but the schemas, which do not change
    struct kiln_err failure;
    struct codec codecs[CODECS_COUNT];
    avro_reader_t reader;
    avro_writer_t writer;
    char *scratch;
} wire = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static int load_codec(const struct kiln_schema_text *text, struct codec *codec, struct kiln_err *err) {
    codec->layout = kiln_layout_of(text->type);
    int rc = kiln_schema_load(text, &codec->schema, err);
    if (rc)
        return rc;
    if (!codec->layout || kiln_convert_check(codec->layout, codec->schema.avro))
        return kiln_fail(err, KILN_E_INTERNAL, "schema %s differs from its struct", text->name);
    codec->iface = avro_generic_class_from_schema(codec->schema.avro);
    return codec->iface ? 0 : kiln_fail(err, KILN_E_NOMEM, "schema %s: no memory", text->name);
}

static void load(void) {
    if (kiln_schema_texts_count != CODECS_COUNT) {
        kiln_fail(&wire.failure, KILN_E_INTERNAL, "%zu schemas for %d records", kiln_schema_texts_count, CODECS_COUNT);
        return;
    }
    for (size_t i = 0; i < CODECS_COUNT; i++) {
        if (load_codec(&kiln_schema_texts[i], &wire.codecs[i], &wire.failure))
            return;
    }
    wire.scratch = malloc(BODY_BYTES_MAX);
    wire.reader = avro_reader_memory("", 0);
    wire.writer = wire.scratch ? avro_writer_memory(wire.scratch, BODY_BYTES_MAX) : NULL;
    if (!wire.reader || !wire.writer)
        kiln_fail(&wire.failure, KILN_E_NOMEM, "no memory for the codecs");
}

static int find_codec(uint32_t type, struct codec **codec, struct kiln_err *err) {
    pthread_once(&wire.once, load);
    if (wire.failure.code) {
        if (err)
            *err = wire.failure;
        return wire.failure.code;
    }
    for (size_t i = 0; i < CODECS_COUNT; i++) {
        if (wire.codecs[i].schema.text->type == type) {
            *codec = &wire.codecs[i];
            return 0;
        }
    }
    return kiln_fail(err, KILN_E_CORRUPT, "no schema has the id %u", type);
}

static int read_frame(const void *data, size_t len, uint32_t *type, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    uint8_t magic = kiln_read_u8(&reader);
    uint32_t id = kiln_read_be32(&reader);
    if (reader.failed || magic != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "a record of %zu bytes without a frame", len);
    if (len > KILN_WIRE_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a record of %zu bytes", len);
    *type = id;
    return 0;
}

int kiln_record_type_of(const void *data, size_t len, enum kiln_record_type *type, struct kiln_err *err) {
    uint32_t id = 0;
    struct codec *codec = NULL;
    int rc = read_frame(data, len, &id, err);
    if (rc == 0)
        rc = find_codec(id, &codec, err);
    if (rc == 0)
        *type = codec->schema.text->type;
    return rc;
}

static int write_value(struct codec *codec, const void *record, size_t *len, struct kiln_err *err) {
    const char *name = codec->schema.text->name;
    kiln_auto(value_release) avro_value_t value = {0};
    if (avro_generic_value_new(codec->iface, &value))
        return kiln_fail(err, KILN_E_NOMEM, "%s: no memory", name);
    int rc = kiln_convert_put(codec->layout, record, &value);
    if (rc)
        return kiln_fail(err, rc, rc == KILN_E_INVAL ? "%s: a text is not set" : "%s: no memory", name);
    avro_writer_memory_set_dest(wire.writer, wire.scratch, BODY_BYTES_MAX);
    if (avro_value_write(wire.writer, &value))
        return kiln_fail(err, KILN_E_LIMIT, "%s: larger than %d bytes", name, BODY_BYTES_MAX);
    *len = (size_t)avro_writer_tell(wire.writer);
    return 0;
}

static int encode_locked(struct codec *codec, const void *record, struct kiln_buf *out, struct kiln_err *err) {
    size_t len = 0;
    int rc = write_value(codec, record, &len, err);
    if (rc)
        return rc;
    // What would be refused on the other side is refused here, where the mistake is.
    rc = kiln_scan(&codec->schema, wire.scratch, len, err);
    if (rc == KILN_E_CORRUPT)
        rc = kiln_wrap(err, KILN_E_INVAL, "encode");
    if (rc)
        return rc;
    if (kiln_buf_reserve(out, FRAME_BYTES + len) == 0) {
        kiln_buf_add_u8(out, 0);
        kiln_buf_add_be32(out, codec->schema.text->type);
        kiln_buf_add(out, wire.scratch, len);
    }
    return kiln_buf_check(out, codec->schema.text->name, err);
}

static int encode(enum kiln_record_type type, const void *record, struct kiln_buf *out, struct kiln_err *err) {
    struct codec *codec = NULL;
    int rc = find_codec(type, &codec, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&wire.lock);
    rc = encode_locked(codec, record, out, err);
    pthread_mutex_unlock(&wire.lock);
    return rc;
}

static int decode_locked(struct codec *codec, const void *body, size_t len, void *record, struct kiln_err *err) {
    kiln_auto(value_release) avro_value_t value = {0};
    if (avro_generic_value_new(codec->iface, &value))
        return kiln_fail(err, KILN_E_NOMEM, "%s: no memory", codec->schema.text->name);
    avro_reader_memory_set_source(wire.reader, body, (int64_t)len);
    if (avro_value_read(wire.reader, &value)) // the scan has accepted it, so it is not the bytes
        return kiln_fail(err, KILN_E_NOMEM, "%s: avro-c cannot read it", codec->schema.text->name);
    int rc = kiln_convert_get(codec->layout, &value, record);
    if (rc) {
        kiln_layout_release(codec->layout, record);
        return kiln_fail(err, rc, "%s: cannot be taken over", codec->schema.text->name);
    }
    return 0;
}

// Fills the zeroed record.
static int decode(enum kiln_record_type type, const void *data, size_t len, void *record, struct kiln_err *err) {
    uint32_t id = 0;
    struct codec *codec = NULL;
    int rc = read_frame(data, len, &id, err);
    if (rc == 0)
        rc = find_codec(type, &codec, err);
    if (rc)
        return rc;
    if (id != type)
        return kiln_fail(err, KILN_E_CORRUPT, "schema id %u is not that of %s", id, codec->schema.text->name);
    const unsigned char *body = (const unsigned char *)data + FRAME_BYTES;
    rc = kiln_scan(&codec->schema, body, len - FRAME_BYTES, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&wire.lock);
    rc = decode_locked(codec, body, len - FRAME_BYTES, record, err);
    pthread_mutex_unlock(&wire.lock);
    return rc;
}

#define DEFINE(name)                                                                                                   \
    int kiln_##name##_encode(const struct kiln_##name *record, struct kiln_buf *out, struct kiln_err *err) {           \
        return encode(KILN_RECORD_##name, record, out, err);                                                           \
    }                                                                                                                  \
    int kiln_##name##_decode(const void *data, size_t len, struct kiln_##name *record, struct kiln_err *err) {         \
        struct kiln_##name decoded = {0};                                                                              \
        int rc = decode(KILN_RECORD_##name, data, len, &decoded, err);                                                 \
        if (rc == 0)                                                                                                   \
            *record = decoded;                                                                                         \
        return rc;                                                                                                     \
    }                                                                                                                  \
    void kiln_##name##_release(struct kiln_##name *record) {                                                           \
        kiln_layout_release(kiln_layout_of(KILN_RECORD_##name), record);                                               \
    }
KILN_RECORD_TYPES(DEFINE)
