// A directory of immutable files under canonical relative keys: the floor of the directory store and of the local cache.
//
// An object is written to a temporary file, hashed, made durable when asked, and published by link(2), so that a key
// never shows half an object and never changes while it is right. One whose bytes are wrong (a disk that lies, a power
// failure) is replaced by the next put. Use is recorded in the access time, which kiln_objects_open() sets itself: so
// there is no index that could disagree with the files. Temporary files of a process that died are removed at the next
// open (a live writer holds a lock on its own). Mode 0444; several processes may share a directory.
// Thread: handles may be shared between threads. Errors: KILN_E_INVAL for a key that is not canonical.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/core/digest.h"

struct kiln_objects;

enum kiln_object_conflict {
    KILN_OBJECT_MEND,    // the right bytes there: success; other bytes: replaced
    KILN_OBJECT_FAIL,    // anything there: KILN_E_EXISTS
    KILN_OBJECT_REPLACE, // replaced whatever it is
};

struct kiln_object_put {
    const char *key;
    enum kiln_object_conflict conflict;
    uint64_t max_bytes;                 // for descriptors; KILN_E_LIMIT past it
    const struct kiln_digest *expected; // KILN_E_CORRUPT when the bytes have another digest; may be NULL
    bool durable;                       // one fsync before it is visible
    bool may_link;                      // a file that is ours and that nobody may write is linked, not copied
};

struct kiln_objects_usage {
    uint64_t bytes, objects, removed_bytes; // bytes in whole blocks of 4 KiB
};

// The directory is made (0700) when absent.
int kiln_objects_new(const char *path, struct kiln_objects **objects, struct kiln_err *err);
void kiln_objects_free(struct kiln_objects *objects);
// *added_bytes (may be NULL): what the directory grew by; 0 when the object was there.
int kiln_objects_put_fd(struct kiln_objects *objects, const struct kiln_object_put *put, int fd, uint64_t *added_bytes,
                        struct kiln_err *err);
int kiln_objects_put_bytes(struct kiln_objects *objects, const struct kiln_object_put *put, const void *data, size_t len,
                           uint64_t *added_bytes, struct kiln_err *err);
// A read-only descriptor and the size; the bytes are not looked at. Counts as use.
int kiln_objects_open(struct kiln_objects *objects, const char *key, int *fd, uint64_t *size, struct kiln_err *err);
bool kiln_objects_has(struct kiln_objects *objects, const char *key);
// Removes an object, or all below a key; absent is fine. Directories that become empty go too.
int kiln_objects_remove(struct kiln_objects *objects, const char *key, struct kiln_err *err);
// Removes the least recently used until max_bytes are left, never what was used or written within keep_ms; counts what
// is left. UINT64_MAX only counts.
int kiln_objects_prune(struct kiln_objects *objects, uint64_t max_bytes, uint64_t keep_ms,
                       struct kiln_objects_usage *usage, struct kiln_err *err);
