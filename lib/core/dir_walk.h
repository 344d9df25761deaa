// Which entries of a directory are an input, before any file is read.
//
// Package directories go in whole, except: dot entries and `target` directly below the root (they differ between
// checkouts and are never given: asking for one is undeclared, see consumer/run/witness.h), and, at any depth, version
// control directories and cargo target directories (CACHEDIR.TAG), symlinks that leave the tree and special files, which
// are WITHHELD entries. OUT_DIR goes in whole except top-level *.d files, which hold absolute paths. A native library
// directory contributes its regular files named lib*.
// Limits: KILN_DIR_ENTRIES_MAX entries and KILN_DIR_BYTES_MAX; more is KILN_E_LIMIT.
// Order: that of the names within each directory, whatever the file system's. Thread: re-entrant.
#pragma once

#include <sys/stat.h>

#include "lib/core/tree.h"

#define KILN_DIR_ENTRIES_MAX 60000u
#define KILN_DIR_BYTES_MAX (1ull << 30)

enum kiln_dir_rule { KILN_DIR_PACKAGE, KILN_DIR_GENERATED, KILN_DIR_LIBRARIES };

struct kiln_dir_entry {
    char *path;
    enum kiln_tree_kind kind;
    struct stat st;
    char *target; // LINK
};

struct kiln_dir_walk {
    enum kiln_dir_rule rule;
    struct kiln_dir_entry *entries;
    size_t count, cap;
    uint64_t bytes;
    int root; // of the directory, to open its files beneath
};

// Release it also after a failure. KILN_E_NOTFOUND: no such directory.
int kiln_dir_walk_start(struct kiln_dir_walk *walk, const char *dir, enum kiln_dir_rule rule, struct kiln_err *err);
void kiln_dir_walk_release(struct kiln_dir_walk *walk);
#define kiln_autodir_walk __attribute__((cleanup(kiln_dir_walk_release)))
