// Puts the outputs that the agent passed by descriptor where rustc would have put them.
//
// A file is written whole before it has its name: anonymous (O_TMPFILE) and then linked, or, where the file system has no
// such files or the name is taken, through a temporary name ".kiln-..." and rename. What is in the way is replaced, a
// symlink too; nothing is followed. SIGINT, SIGTERM and SIGHUP wait while an order is worked on and are delivered before
// the call returns: at no moment does a name stand for a part of a file, and nothing temporary stays behind.
#pragma once

#include "lib/ipc/frames.h"

// Places order->files from fds (one each, borrowed). Every path must be out_dir + "/" + a plain name; anything else
// is refused, as is a descriptor that is not a regular file of the size that the order says. out_dir is made when it is
// absent. identities has room for order->files_count entries and is filled on success. On failure some files of the
// order may be in place, whole.
int kiln_place_files(const char *out_dir, const struct kiln_place_order *order, const int *fds, size_t fds_count,
                     struct kiln_placed_file *identities, struct kiln_err *err);
