// Growable bytes with a maximum fixed at creation.
//
// Appending past the maximum (or past memory) fails and marks the buffer failed; later appends fail too. So an encoder
// may append many times and look once, with kiln_buf_check(). Contents up to the first failure stay valid.
// kiln_buf_text() keeps a terminating NUL behind the contents that is not counted in len.
// Ownership: the buffer owns `data`; kiln_buf_steal() hands it to the caller, who frees it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct kiln_buf {
    unsigned char *data;
    size_t len, cap, max;
    bool failed;
};

#define KILN_BUF_INIT(max_bytes) ((struct kiln_buf){.max = (max_bytes)})

void kiln_buf_release(struct kiln_buf *buf);
#define kiln_autobuf __attribute__((cleanup(kiln_buf_release)))

int kiln_buf_reserve(struct kiln_buf *buf, size_t more);
int kiln_buf_add(struct kiln_buf *buf, const void *data, size_t len);
int kiln_buf_add_str(struct kiln_buf *buf, const char *text);
int kiln_buf_addf(struct kiln_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int kiln_buf_add_u8(struct kiln_buf *buf, uint8_t value);
int kiln_buf_add_be32(struct kiln_buf *buf, uint32_t value);
int kiln_buf_add_be64(struct kiln_buf *buf, uint64_t value);
// be32 length, then the bytes: the field form of all canonical encodings.
int kiln_buf_add_field(struct kiln_buf *buf, const void *data, size_t len);
int kiln_buf_add_field_str(struct kiln_buf *buf, const char *text);
// 0, or KILN_E_LIMIT with a text that names `what`.
int kiln_buf_check(const struct kiln_buf *buf, const char *what, struct kiln_err *err);
void kiln_buf_reset(struct kiln_buf *buf);
// Contents as a C string (NUL added, not counted); "" when empty. Borrowed until the next append.
const char *kiln_buf_text(struct kiln_buf *buf);
unsigned char *kiln_buf_steal(struct kiln_buf *buf, size_t *len);

// A bounds-checked reader over bytes that it borrows. A read past the end sets `failed` and gives zeros; a decoder
// reads everything, then looks once. Limits on counts are the decoder's.
struct kiln_reader {
    const unsigned char *data;
    size_t len, at;
    bool failed;
};

#define KILN_READER_INIT(bytes, length) ((struct kiln_reader){.data = (bytes), .len = (length)})

uint8_t kiln_read_u8(struct kiln_reader *reader);
uint32_t kiln_read_be32(struct kiln_reader *reader);
uint64_t kiln_read_be64(struct kiln_reader *reader);
// Borrows `len` bytes; NULL when they are not there.
const unsigned char *kiln_read_bytes(struct kiln_reader *reader, size_t len);
// A field (be32 length + bytes) of at most max_bytes. Borrowed.
const unsigned char *kiln_read_field(struct kiln_reader *reader, size_t max_bytes, size_t *len);
// A field that is text without NUL, copied to the heap; NULL (and failed) otherwise.
char *kiln_read_field_text(struct kiln_reader *reader, size_t max_bytes);
bool kiln_reader_done(const struct kiln_reader *reader); // all read, nothing failed
