// Files, without following anybody's links by accident.
//
// Paths are relative to a directory descriptor (AT_FDCWD for the process's own). Functions that read hostile trees use
// openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS. All descriptors are O_CLOEXEC.
// Units: bytes. Ownership: returned descriptors belong to the caller. Thread: re-entrant.
#pragma once

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

// Opens `path` beneath dirfd; flags as for open(2). Symlinks anywhere in the path are refused. *fd is set on success.
int kiln_fs_open_beneath(int dirfd, const char *path, int flags, int *fd, struct kiln_err *err);
// Reads a whole regular file into buf (appends); KILN_E_LIMIT when it would exceed buf->max.
int kiln_fs_read_file(int dirfd, const char *path, struct kiln_buf *buf, struct kiln_err *err);
int kiln_fs_read_fd(int fd, struct kiln_buf *buf, struct kiln_err *err);
// Opens what must be this user's alone: a regular file, not through a link, owned by the effective user, with none of the mode
// bits `forbidden` (077 for a secret). KILN_E_DENIED says which of these fails.
int kiln_fs_open_private(int dirfd, const char *path, mode_t forbidden, int *fd, struct kiln_err *err);
// Writes all of the bytes (retries short writes and EINTR).
int kiln_fs_write_all(int fd, const void *data, size_t len, struct kiln_err *err);
// Writes `path` by a temporary file in the same directory and rename; replaces what was there.
int kiln_fs_write_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode, struct kiln_err *err);
// Makes a new file with these bytes; what is there already, a link too, is refused. Not synced.
int kiln_fs_make_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode, struct kiln_err *err);
// mkdir -p with `mode` for each directory made; an existing directory is fine, anything else there is KILN_E_EXISTS.
int kiln_fs_make_dirs(int dirfd, const char *path, mode_t mode, struct kiln_err *err);
int kiln_fs_make_parents(int dirfd, const char *path, mode_t mode, struct kiln_err *err); // all but the last name of `path`
// Removes a tree without following symlinks, across no mount; absent is fine. Makes directories writable on its way.
int kiln_fs_remove_tree(int dirfd, const char *path, struct kiln_err *err);
// Copies from the current offset of `in` to its end by reflink, copy_file_range or read/write, whichever works.
// *copied may be NULL. KILN_E_LIMIT when more than max_bytes would be copied.
int kiln_fs_copy_fd(int in, int out, uint64_t max_bytes, uint64_t *copied, struct kiln_err *err);
// A directory descriptor for an absolute path; made (mode 0700) when absent.
int kiln_fs_open_dir(const char *path, int *fd, struct kiln_err *err);
