// The list of public packages: which package trees belong to everybody. Signed by the same roots as the trust record.
//
// Core encoding (canonical, golden vector in schemas/canonical.md; notation of that page): "kiln-public-1\0", be64 version,
//   be64 issued_ms, be64 expires_ms, list of entries (text package "NAME-VERSION", 32 SHA-256 of the archive, 32 digest of the
//   tree that the archive unpacks to), strictly ascending by (package, tree digest). At most 200000 entries, 64 MiB.
//   Envelope: lib/core/rooted.h with "kiln-public-signed-1\0".
// A job's inputs are public only when each package tree is listed; the reader judges version and time.
// Ownership: the list owns its entries. Thread: re-entrant.
#pragma once

#include "lib/core/rooted.h"

#define KILN_PUBLIC_BYTES_MAX (64u << 20)
#define KILN_PUBLIC_ENTRIES_MAX 200000u
#define KILN_PUBLIC_PACKAGE_BYTES_MAX 255u

struct kiln_public_package {
    char *package; // "serde-1.0.200"
    struct kiln_digest archive, tree;
};

struct kiln_public_list {
    uint64_t version, issued_ms, expires_ms;
    struct kiln_public_package *packages;
    size_t count;
};

void kiln_public_list_release(struct kiln_public_list *list);
#define kiln_autopublic_list __attribute__((cleanup(kiln_public_list_release)))
int kiln_public_list_add(struct kiln_public_list *list, const char *package, const struct kiln_digest *archive,
                         const struct kiln_digest *tree, struct kiln_err *err);
int kiln_public_list_finish(struct kiln_public_list *list, struct kiln_err *err); // sorts, checks, refuses duplicates
int kiln_public_list_encode(const struct kiln_public_list *list, struct kiln_buf *out, struct kiln_err *err);
int kiln_public_list_decode(const void *data, size_t len, struct kiln_public_list *list, struct kiln_err *err); // strict
int kiln_public_list_sign(const struct kiln_public_list *list, const struct kiln_sign_key *const *roots, size_t count,
                          struct kiln_buf *envelope, struct kiln_err *err); // as kiln_rooted_sign
int kiln_public_list_open(const void *envelope, size_t len, const struct kiln_roots *roots, struct kiln_public_list *list,
                          struct kiln_err *err); // as kiln_rooted_open
bool kiln_public_list_has(const struct kiln_public_list *list, const char *package, const struct kiln_digest *tree);
