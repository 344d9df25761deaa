// Digest of a file without reading it again: remembered by device, inode, size, mtime and ctime.
//
// A file that changed within the last two seconds before it was hashed is not remembered (its time stamps cannot tell a
// second change from the first). Files that the wrapper itself placed are remembered at once with the identity it
// reported after the rename, when the file system gives every change its own time (probed per device at first use);
// else the two-second rule holds for them too. Thread-safe.
#pragma once

#include <sys/stat.h>

#include "producer/agent/l0.h"

struct kiln_memo;

int kiln_memo_new(struct kiln_l0 *l0, struct kiln_memo **memo, struct kiln_err *err);
void kiln_memo_free(struct kiln_memo *memo);
// Digest and size of an open regular file; reads it only when it is not known.
int kiln_memo_digest_fd(struct kiln_memo *memo, int fd, struct kiln_digest *digest, uint64_t *size, struct kiln_err *err);
// Digest of a file known only by its stat (no open): true when remembered.
bool kiln_memo_known(struct kiln_memo *memo, const struct stat *st, struct kiln_digest *digest);
void kiln_memo_record(struct kiln_memo *memo, const struct stat *st, const struct kiln_digest *digest); // two-second rule
void kiln_memo_record_placed(struct kiln_memo *memo, uint64_t dev, uint64_t ino, uint64_t size, int64_t mtime_ns,
                             int64_t ctime_ns, const struct kiln_digest *digest);
