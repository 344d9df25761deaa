// The local cache (L0): results and content by digest, with an LMDB index, and the host's memos.
//
// DIR/l0/index (LMDB: results of actions, memo, closure, local verdicts, macro objects, scans) and DIR/l0/cas/ab/HEX
// (files, 0444, whose access time is their last use). Anything unreadable, corrupt or missing is a miss and counted, never
// an error of the build: a corrupt index is set aside and made new.
// Bounds: max_bytes for the blobs, least recently used first (an open descriptor outlives its eviction); a sixteenth of it,
// within 16 and 512 MiB, for the index, whose entries go by the hour of their last use.
// One agent per directory (the caller holds the lock); thread-safe. Durability: kill -9 loses at most the last half second
// of index writes and a power failure the last seconds; neither leaves anything wrong or in the way.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

struct kiln_l0;

struct kiln_l0_stats {
    uint64_t bytes, objects; // blobs, in blocks of 4 KiB
    uint64_t actions;        // results in the index; one that was put is counted once it is written
    uint64_t evicted_bytes, corrupt; // since it was opened
};

int kiln_l0_open(const char *dir, uint64_t max_bytes, struct kiln_l0 **l0, struct kiln_err *err);
void kiln_l0_close(struct kiln_l0 *l0);
void kiln_l0_stats(struct kiln_l0 *l0, struct kiln_l0_stats *stats);

// The signed envelope of an action's result. KILN_E_NOTFOUND on a miss.
int kiln_l0_get_result(struct kiln_l0 *l0, const struct kiln_digest *action, struct kiln_buf *envelope, struct kiln_err *err);
int kiln_l0_put_result(struct kiln_l0 *l0, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_err *err);
void kiln_l0_drop_result(struct kiln_l0 *l0, const struct kiln_digest *action); // found invalid

// A descriptor on checked bytes. The bytes are hashed on each open: KILN_E_CORRUPT drops the object and is counted;
// KILN_E_NOTFOUND is a plain miss. An open object is not evicted under the reader (the descriptor keeps it).
// A blob whose bytes are right but whose size is not `size` is KILN_E_CORRUPT and stays.
int kiln_l0_open_blob(struct kiln_l0 *l0, const struct kiln_digest *digest, uint64_t size, int *fd, struct kiln_err *err);
// Adds content from fd (from its start) by reflink or copy, hashed on the way; a file of ours that nobody may write is
// linked. Present already is success. KILN_E_CORRUPT when the bytes have another digest.
int kiln_l0_add_blob(struct kiln_l0 *l0, int fd, const struct kiln_digest *digest, uint64_t size, struct kiln_err *err);
bool kiln_l0_has_blob(struct kiln_l0 *l0, const struct kiln_digest *digest);
// Evicts until the bounds hold; called by a timer of the agent, and by a thread of its own after an add that passed them.
// Cheap when they hold.
int kiln_l0_evict(struct kiln_l0 *l0, struct kiln_err *err);

// A new file without a name on the file system of the cache, to try what that can do.
int kiln_l0_open_scratch(struct kiln_l0 *l0, int *fd, struct kiln_err *err);

// Host memos: small values under a table and a key; losing one costs time only, except that LOCAL verdicts lost mean one
// more execution. Values at most 1 MiB, keys at most 500 bytes.
enum kiln_memo_table {
    KILN_MEMO_FILE,    // stat identity -> digest (memo.h)
    KILN_MEMO_TREE,    // package directory identity -> tree digest
    KILN_MEMO_SCAN,    // tree digest -> lexical facts
    KILN_MEMO_CLOSURE, // content digest of a library -> stems of its closure
    KILN_MEMO_LOCAL,   // action digest -> reasons
    KILN_MEMO_MACRO,   // content digest of a proc-macro object -> verdict
    KILN_MEMO_TOOLCHAIN, // compiler resolution -> manifest digests
    KILN_MEMO_PACKAGE, // "/kiln/NAME-VERSION" + target dir -> real directory
    KILN_MEMO_PUBLIC,  // content digest of a library that a public result gave -> nothing
    KILN_MEMO_HISTORY, // kind of unit -> how long its results took (history.h)
    KILN_MEMO_HINTS,   // build -> what it used (hints.h)
    KILN_MEMO_TABLES,
};
int kiln_l0_memo_get(struct kiln_l0 *l0, enum kiln_memo_table table, const void *key, size_t key_len,
                     struct kiln_buf *value, struct kiln_err *err);
// Writes are batched: visible to gets at once, durable within a second.
int kiln_l0_memo_put(struct kiln_l0 *l0, enum kiln_memo_table table, const void *key, size_t key_len, const void *value,
                     size_t value_len, struct kiln_err *err);
