// A bundle: all outputs of one result in one object, so that a hit costs two requests, the pointer and this.
//
// Encoding: "kiln-bundle-1\0", be32 count, per member in the order of storage: 32 digest, be64 size, be64 stored size; then
// the members' stored bytes, each one zstd frame (RFC 8878) of its own, .rmeta first. Named by the SHA-256 of its bytes.
// Hostile input: sizes are bounded before anything is allocated, and each member's digest is checked while it is written.
// Thread: re-entrant.
#pragma once

#include "lib/core/result.h"

#define KILN_BUNDLE_MEMBERS_MAX 4096u
#define KILN_BUNDLE_NAME "bundle" // in quarantine, where an executor may not say what is true yet

struct kiln_bundle_member {
    struct kiln_digest digest;
    uint64_t size;
    int fd; // of the bytes; borrowed
};

// Writes to out_fd (from offset 0), and gives name and size. Members with equal digests are stored once.
int kiln_bundle_write(const struct kiln_bundle_member *members, size_t count, int out_fd, struct kiln_digest *digest,
                      uint64_t *size, struct kiln_err *err);
// Calls visit with each member's bytes in a fresh descriptor (at offset 0; visit owns it). Only members that `result` lists, each
// with its size; KILN_E_CORRUPT unless all of the result's outputs are there and nothing else.
int kiln_bundle_read(int fd, const struct kiln_result *result, int scratch_dir,
                     int (*visit)(void *context, const struct kiln_digest *digest, uint64_t size, int fd), void *context,
                     struct kiln_err *err);
