// A package's archive (.crate) and the tree that it unpacks to, as an agent sees it below its registry.
#pragma once

#include "lib/core/digest.h"

struct kiln_archive {
    char package[256]; // NAME-VERSION: the file's name, and the one directory in the archive
    struct kiln_digest archive, tree;
};

// Digest of the file and its package name; nothing is unpacked.
int kiln_archive_identify(const char *file, struct kiln_archive *archive, struct kiln_err *err);
// Unpacks beneath `scratch` (removed again) and takes the tree's digest. Only for archives whose digest somebody vouches for.
int kiln_archive_take_tree(const char *file, const char *scratch, struct kiln_archive *archive, struct kiln_err *err);
