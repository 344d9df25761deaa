#include "lib/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kiln_buf_release(struct kiln_buf *buf) {
    free(buf->data);
    *buf = (struct kiln_buf){.max = buf->max};
}

int kiln_buf_reserve(struct kiln_buf *buf, size_t more) {
    if (buf->failed || more > buf->max || buf->len > buf->max - more) {
        buf->failed = true;
        return KILN_E_LIMIT;
    }
    size_t need = buf->len + more + 1;
    if (need <= buf->cap)
        return 0;
    size_t cap = buf->cap ? buf->cap : 128;
    while (cap < need)
        cap *= 2;
    unsigned char *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return KILN_E_NOMEM;
    }
    buf->data = data;
    buf->cap = cap;
    return 0;
}

int kiln_buf_add(struct kiln_buf *buf, const void *data, size_t len) {
    int rc = kiln_buf_reserve(buf, len);
    if (rc)
        return rc;
    if (len)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return 0;
}

int kiln_buf_add_str(struct kiln_buf *buf, const char *text) { return kiln_buf_add(buf, text, strlen(text)); }

int kiln_buf_addf(struct kiln_buf *buf, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    int rc = len < 0 ? KILN_E_INVAL : kiln_buf_reserve(buf, (size_t)len);
    if (rc == 0) {
        vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
    }
    va_end(again);
    return rc;
}

int kiln_buf_add_u8(struct kiln_buf *buf, uint8_t value) { return kiln_buf_add(buf, &value, 1); }

int kiln_buf_add_be32(struct kiln_buf *buf, uint32_t value) {
    unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                              (unsigned char)value};
    return kiln_buf_add(buf, bytes, sizeof bytes);
}

int kiln_buf_add_be64(struct kiln_buf *buf, uint64_t value) {
    int rc = kiln_buf_add_be32(buf, (uint32_t)(value >> 32));
    return rc ? rc : kiln_buf_add_be32(buf, (uint32_t)value);
}

int kiln_buf_add_field(struct kiln_buf *buf, const void *data, size_t len) {
    if (len > UINT32_MAX) {
        buf->failed = true;
        return KILN_E_LIMIT;
    }
    int rc = kiln_buf_add_be32(buf, (uint32_t)len);
    return rc ? rc : kiln_buf_add(buf, data, len);
}

int kiln_buf_add_field_str(struct kiln_buf *buf, const char *text) {
    return kiln_buf_add_field(buf, text, strlen(text));
}

int kiln_buf_check(const struct kiln_buf *buf, const char *what, struct kiln_err *err) {
    if (!buf->failed)
        return 0;
    return kiln_fail(err, KILN_E_LIMIT, "%s is larger than %zu bytes", what, buf->max);
}

void kiln_buf_reset(struct kiln_buf *buf) {
    buf->len = 0;
    buf->failed = false;
}

const char *kiln_buf_text(struct kiln_buf *buf) {
    if (!buf->data)
        return "";
    buf->data[buf->len] = 0;
    return (const char *)buf->data;
}

unsigned char *kiln_buf_steal(struct kiln_buf *buf, size_t *len) {
    unsigned char *data = buf->data;
    if (len)
        *len = buf->len;
    *buf = (struct kiln_buf){.max = buf->max};
    return data;
}

const unsigned char *kiln_read_bytes(struct kiln_reader *reader, size_t len) {
    if (reader->failed || len > reader->len - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const unsigned char *bytes = reader->data + reader->at;
    reader->at += len;
    return bytes;
}

uint8_t kiln_read_u8(struct kiln_reader *reader) {
    const unsigned char *b = kiln_read_bytes(reader, 1);
    return b ? b[0] : 0;
}

uint32_t kiln_read_be32(struct kiln_reader *reader) {
    const unsigned char *b = kiln_read_bytes(reader, 4);
    return b ? (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3] : 0;
}

uint64_t kiln_read_be64(struct kiln_reader *reader) {
    uint64_t high = kiln_read_be32(reader);
    return high << 32 | kiln_read_be32(reader);
}

const unsigned char *kiln_read_field(struct kiln_reader *reader, size_t max_bytes, size_t *len) {
    uint32_t n = kiln_read_be32(reader);
    if (n > max_bytes)
        reader->failed = true;
    const unsigned char *bytes = kiln_read_bytes(reader, n);
    *len = bytes ? n : 0;
    return bytes;
}

char *kiln_read_field_text(struct kiln_reader *reader, size_t max_bytes) {
    size_t len;
    const unsigned char *bytes = kiln_read_field(reader, max_bytes, &len);
    if (!bytes)
        return NULL;
    char *text = memchr(bytes, 0, len) ? NULL : strndup((const char *)bytes, len);
    if (!text)
        reader->failed = true;
    return text;
}

bool kiln_reader_done(const struct kiln_reader *reader) { return !reader->failed && reader->at == reader->len; }
