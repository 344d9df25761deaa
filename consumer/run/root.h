// The sandbox's root tree: a small tmpfs with mount points, links and small files, the binds, and three bounded tmpfs.
//
// Everything is made inside a mount namespace that the caller has just entered (nothing of it is seen by, or left on, the
// host): the tree is mounted over KILN_ROOT_PLACE there. All of it is read-only, nosuid and nodev, except the out, tmp and
// observer directories (writable, noexec) and the two device nodes. In a user namespace entered later these attributes
// cannot be taken off again.
// Sources of binds are found again by the name behind the descriptor, since a descriptor of another mount namespace
// cannot be mounted; device and inode must be the same, else the bind is refused.
#pragma once

#include <sys/types.h>

#include "consumer/run/spec.h"

#define KILN_ROOT_PLACE "/tmp"

struct kiln_root {
    int dir;          // the root of the tree
    int out_dir, observer_dir, tmp_dir;
};

#define KILN_ROOT_INIT ((struct kiln_root){-1, -1, -1, -1})

struct kiln_root_owner {
    uid_t uid; // of the writable directories: the job's, as this process's user namespace names it
    gid_t gid;
};

int kiln_root_build(const struct kiln_run_spec *spec, const struct kiln_root_owner *owner, struct kiln_root *root,
                    struct kiln_err *err);
void kiln_root_release(struct kiln_root *root); // closes the descriptors

#define KILN_ROOT_NOISE_BYTES (64u << 10) // of each of the two random devices

// Fills `out` with the bytes that stand for /dev/urandom: xoshiro256** (Blackman and Vigna, 2018) whose state is the seed,
// stirred by splitmix64 so that no seed is the all-zero state.
void kiln_root_noise(const uint8_t seed[32], unsigned char *out, size_t len);
