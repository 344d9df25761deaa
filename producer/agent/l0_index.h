// The index of the local cache: small checked values under short keys, in one LMDB file. Private to l0.c.
//
// Each value carries the time of its last use (by the hour) and a check sum over key and value, so that a page that lies
// costs the entry. A file whose structure is unsound (l0_index_check.h, at open; an error of liblmdb, later) is set aside
// as PATH.bad and made new. The map grows with the contents. Commits are not synchronous: they survive the death of the
// process, and kiln_l0_index_sync() makes them survive a power failure.
// Thread-safe.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

#define KILN_L0_KEY_BYTES_MAX 501u
#define KILN_L0_VALUE_BYTES_MAX ((size_t)1 << 20)

struct kiln_l0_index;

enum kiln_l0_change_op { KILN_L0_PUT, KILN_L0_DELETE, KILN_L0_TOUCH };

struct kiln_l0_change {
    struct kiln_l0_change *next; // next, hash and position belong to l0_pending.c
    uint64_t hash;
    size_t position;
    enum kiln_l0_change_op op;
    size_t key_len, value_len;
    unsigned char bytes[]; // key, then value
};

int kiln_l0_index_open(const char *path, struct kiln_l0_index **index, struct kiln_err *err);
void kiln_l0_index_close(struct kiln_l0_index *index);
// Appends the value; *used_s is its recorded last use (seconds since 1970). KILN_E_NOTFOUND, or KILN_E_CORRUPT.
int kiln_l0_index_get(struct kiln_l0_index *index, const void *key, size_t key_len, struct kiln_buf *value,
                      uint32_t *used_s, struct kiln_err *err);
// All of the changes in one transaction, at the time now_s.
int kiln_l0_index_apply(struct kiln_l0_index *index, struct kiln_l0_change *const *changes, size_t count, uint32_t now_s,
                        struct kiln_err *err);
int kiln_l0_index_sync(struct kiln_l0_index *index, struct kiln_err *err);
uint64_t kiln_l0_index_bytes(struct kiln_l0_index *index);
// Entries whose key begins with that byte.
uint64_t kiln_l0_index_count(struct kiln_l0_index *index, unsigned char first);
// Deletes the entries not used for longest, until at most max_bytes are in use; nothing below that.
int kiln_l0_index_trim(struct kiln_l0_index *index, uint64_t max_bytes, struct kiln_err *err);
// How often this index was set aside since it was opened, counting a file found unsound at open.
uint64_t kiln_l0_index_losses(struct kiln_l0_index *index);
