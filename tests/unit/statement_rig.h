// Keys with known bytes, and the vectors of schemas/canonical.md.
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/core/sign.h"

// RFC 8032 section 7.1: private and public bytes of tests 1 and 2.
#define RIG_RFC8032_1                                                                                                  \
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",                                                \
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define RIG_RFC8032_2                                                                                                  \
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",                                                \
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"

static inline void rig_write_key(int dirfd, const char *name, const char *hex) {
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(dprintf(fd, "%s\n", hex), 65);
    close(fd);
}

static inline struct kiln_sign_key *rig_key(const char *private_hex, const char *public_hex) {
    char dir[] = "/tmp/kiln-keys-XXXXXX";
    assert_non_null(mkdtemp(dir));
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rig_write_key(dirfd, "key", private_hex);
    rig_write_key(dirfd, "key.pub", public_hex);
    struct kiln_sign_key *key;
    assert_int_equal(kiln_sign_key_load_or_make(dirfd, "key", &key, NULL), 0);
    unlinkat(dirfd, "key", 0);
    unlinkat(dirfd, "key.pub", 0);
    close(dirfd);
    assert_int_equal(rmdir(dir), 0);
    return key;
}

static inline void rig_vector(const char *name, struct kiln_buf *out) {
    FILE *page = fopen(KILN_SOURCE_DIR "/schemas/canonical.md", "r");
    assert_non_null(page);
    char line[256], head[64];
    snprintf(head, sizeof head, "```vector %s\n", name);
    bool inside = false;
    while (fgets(line, sizeof line, page) && !(inside && strncmp(line, "digest ", 7) == 0)) {
        unsigned byte;
        for (const char *at = line; inside && sscanf(at, "%2x", &byte) == 1; at += 2)
            kiln_buf_add_u8(out, (uint8_t)byte);
        inside |= strcmp(line, head) == 0;
    }
    fclose(page);
    assert_true(inside);
}
