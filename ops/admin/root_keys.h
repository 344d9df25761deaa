// The private keys of roots that sign here: files named on the command line, best on a machine that is not on the network.
#pragma once

#include "lib/core/rooted.h"

struct kiln_root_keys {
    struct kiln_sign_key *keys[KILN_TRUST_ROOTS_MAX];
    size_t count;
};

// files: paths with commas between them.
int kiln_root_keys_load(const char *files, struct kiln_root_keys *keys, struct kiln_err *err);
void kiln_root_keys_release(struct kiln_root_keys *keys);
#define kiln_autoroot_keys __attribute__((cleanup(kiln_root_keys_release)))
// A key file of any use; a new one is made only when `make` says so.
enum kiln_key_file { KILN_KEY_MUST_EXIST, KILN_KEY_MUST_BE_NEW };
int kiln_key_file_open(const char *path, enum kiln_key_file file, struct kiln_sign_key **key, struct kiln_err *err);
