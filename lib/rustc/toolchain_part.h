// One part of a toolchain (producer/agent/toolchain.h): which files of the host it consists of, its name, and its staging.
#pragma once

#include <stdbool.h>

#include "lib/core/tree.h"

struct kiln_part_file {
    char *host;  // absolute path on the host, "" for a directory that is only watched
    char *tree;  // path in the part's tree; NULL: a directory watched for additions
};

struct kiln_part_files {
    struct kiln_part_file *files;
    size_t count, cap;
};

void kiln_part_files_release(struct kiln_part_files *files);
// Copies both; the same tree path twice is kept once (the first).
int kiln_part_files_add(struct kiln_part_files *files, const char *host, const char *tree_or_null, struct kiln_err *err);

// The three lists. `trusted_only`: KILN_E_DENIED for a file that neither root nor the caller owns.
int kiln_part_rustc(const char *sysroot, const char *host, const char *target, bool clippy,
                    struct kiln_part_files *files, struct kiln_err *err);
int kiln_part_runtime(const char *sysroot, const char *host, struct kiln_part_files *files, struct kiln_err *err);
int kiln_part_link(const char *cc, struct kiln_part_files *files, struct kiln_err *err);
bool kiln_part_trusted(const struct kiln_part_files *files);

// What stat says of all files and directories of the list, as one digest: equal while nothing changed.
int kiln_part_identity(const struct kiln_part_files *files, struct kiln_digest *identity, struct kiln_err *err);
// The digest of the part's tree, without copying anything.
int kiln_part_digest(const struct kiln_part_files *files, struct kiln_digest *digest, struct kiln_err *err);
// Copies the files to STAGE_DIR/HEX/root and the tree to STAGE_DIR/HEX/tree; there already is success.
int kiln_part_stage(const struct kiln_part_files *files, const char *stage_dir, struct kiln_digest *digest,
                    struct kiln_err *err);

// "hosts NUL trees NUL" form for the memo.
int kiln_part_files_encode(const struct kiln_part_files *files, struct kiln_buf *out, struct kiln_err *err);
int kiln_part_files_decode(struct kiln_reader *reader, struct kiln_part_files *files, struct kiln_err *err);
