// A tree: the canonical listing of a directory, and the pack that carries its bytes.
//
// Encoding (frozen by golden vectors in schemas/canonical.md); the tree digest is SHA-256 of it:
//   "kiln-tree-1\0" be32 count, then per entry in strictly ascending byte order of path:
//   u8 kind, field path, and  DIR: nothing | FILE: u8 executable, be64 size, 32 digest bytes | LINK: field target |
//   WITHHELD: nothing.   (field = be32 length + bytes)
// Paths are canonical relative paths (lib/base/path.h). Every parent of an entry is an entry of kind DIR that comes
// before it; a child of a FILE, LINK or WITHHELD is refused. A LINK's target is relative, canonical after resolving
// its leading "../" against the link's directory, and stays inside the tree. WITHHELD names something that exists on
// the client and is not given to the job.
//
// Pack (one object for a package): "kiln-pack-1\0" be64 length of the tree encoding, the encoding, then the contents
// of all FILE entries in order without padding. A pack is named by its tree digest; every content digest is checked on
// the way. Errors: KILN_E_CORRUPT for bytes that do not match, KILN_E_LIMIT past the limits below.
// Ownership: struct kiln_tree owns its entries. Thread: re-entrant.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

#define KILN_TREE_ENTRIES_MAX 200000u
#define KILN_TREE_BYTES_MAX (64u << 20)          // of the encoding
#define KILN_PACK_CONTENT_MAX (4ull << 30)       // of all files together

enum kiln_tree_kind { KILN_TREE_DIR = 1, KILN_TREE_FILE = 2, KILN_TREE_LINK = 3, KILN_TREE_WITHHELD = 4 };

struct kiln_tree_entry {
    char *path;
    enum kiln_tree_kind kind;
    bool executable;           // FILE
    uint64_t size;             // FILE
    struct kiln_digest digest; // FILE
    char *target;              // LINK
};

struct kiln_tree {
    struct kiln_tree_entry *entries;
    size_t count, cap;
};

void kiln_tree_release(struct kiln_tree *tree);
#define kiln_autotree __attribute__((cleanup(kiln_tree_release)))

// Adders copy their strings; any order. Missing parents are added by kiln_tree_finish(), which sorts, checks all the
// rules above and refuses duplicates. Only a finished tree may be encoded.
int kiln_tree_add_dir(struct kiln_tree *tree, const char *path, struct kiln_err *err);
int kiln_tree_add_file(struct kiln_tree *tree, const char *path, bool executable, uint64_t size,
                       const struct kiln_digest *digest, struct kiln_err *err);
int kiln_tree_add_link(struct kiln_tree *tree, const char *path, const char *target, struct kiln_err *err);
int kiln_tree_add_withheld(struct kiln_tree *tree, const char *path, struct kiln_err *err);
int kiln_tree_finish(struct kiln_tree *tree, struct kiln_err *err);

const struct kiln_tree_entry *kiln_tree_find(const struct kiln_tree *tree, const char *path); // NULL when absent
int kiln_tree_encode(const struct kiln_tree *tree, struct kiln_buf *out, struct kiln_err *err);
// Strict: accepts exactly what encode produces. *tree must be zeroed; untouched on failure.
int kiln_tree_decode(const void *data, size_t len, struct kiln_tree *tree, struct kiln_err *err);
int kiln_tree_digest(const struct kiln_tree *tree, struct kiln_digest *digest, struct kiln_err *err);

// Writes the pack of `tree` whose files lie beneath dirfd (opened without following links) to out_fd, hashing each file
// again; a file that changed since is KILN_E_CORRUPT with retriable set.
int kiln_pack_write(const struct kiln_tree *tree, int dirfd, int out_fd, struct kiln_err *err);
// Checks a pack against the tree digest, reading fd from its start. *tree (zeroed) may be NULL.
int kiln_pack_verify(int fd, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err);
// Reads the tree at the head of a pack, checked against its digest; the contents behind it are not looked at.
int kiln_pack_read_tree(int fd, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err);
// The time of everything unpacked: 2006-07-24 01:21:28 UTC, which cargo itself gives the files of packages.
#define KILN_PACK_MTIME_S 1153704088
// Unpacks into the empty directory dirfd while checking; modes 0755 and 0644 (0755 executable), all times as above. On
// failure the caller removes what is there.
int kiln_pack_unpack(int fd, const struct kiln_digest *expected, int dirfd, struct kiln_err *err);
// Gives what is unpacked in dirfd that time: times are not in the key, so they must be the same for everybody.
int kiln_tree_set_times(const struct kiln_tree *tree, int dirfd, struct kiln_err *err);
