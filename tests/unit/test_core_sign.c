// Key files: made once, refused when loose, one winner of a race; signatures by the vectors of RFC 8032.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/sign.h"

struct place {
    char dir[32];
    int dirfd;
};

static int setup(void **state) {
    struct place *place = calloc(1, sizeof *place);
    strcpy(place->dir, "/tmp/kiln-sign-XXXXXX");
    assert_non_null(mkdtemp(place->dir));
    place->dirfd = open(place->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = place;
    return 0;
}

static int teardown(void **state) {
    struct place *place = *state;
    close(place->dirfd);
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, place->dir, NULL), 0);
    free(place);
    return 0;
}

static void put(const struct place *place, const char *name, mode_t mode, const char *text) {
    unlinkat(place->dirfd, name, 0);
    kiln_autofd int fd = openat(place->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
}

static int load(const struct place *place, const char *name, struct kiln_digest *id) {
    struct kiln_sign_key *key = NULL;
    int rc = kiln_sign_key_load_or_make(place->dirfd, name, &key, NULL);
    if (rc) {
        assert_null(key);
        return rc;
    }
    if (id)
        kiln_sign_key_id(key, id);
    kiln_sign_key_free(key);
    return 0;
}

static const struct {
    const char *private_hex, *public_hex, *message, *signature_hex;
} vectors[] = {
    // RFC 8032, section 7.1, tests 1 to 3
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
     "655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb\n",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "\x72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
     "b00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7\n",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "\xaf\x82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
     "c027beceea1ec40a"},
};

static void assert_hex(const uint8_t *bytes, size_t len, const char *hex) {
    char found[2 * KILN_SIGNATURE_BYTES + 1];
    for (size_t i = 0; i < len; i++)
        snprintf(found + 2 * i, 3, "%02x", bytes[i]);
    assert_string_equal(found, hex);
}

static void known_answers(void **state) {
    const struct place *place = *state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct kiln_sign_key *key = NULL;
        uint8_t signature[KILN_SIGNATURE_BYTES], public_key[KILN_PUBLIC_KEY_BYTES];
        put(place, "key", 0600, vectors[i].private_hex);
        assert_int_equal(kiln_sign_key_load_or_make(place->dirfd, "key", &key, NULL), 0);
        kiln_sign_key_public(key, public_key);
        assert_hex(public_key, sizeof public_key, vectors[i].public_hex);
        assert_int_equal(kiln_sign(key, vectors[i].message, strlen(vectors[i].message), signature, NULL), 0);
        assert_hex(signature, sizeof signature, vectors[i].signature_hex);
        // The public file follows the private one, also when an older one lies there.
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(100);
        assert_int_equal(kiln_fs_read_file(place->dirfd, "key.pub", &text, NULL), 0);
        assert_int_equal(text.len, 65);
        assert_memory_equal(text.data, vectors[i].public_hex, 64);
        kiln_sign_key_free(key);
    }
}

static void made_once(void **state) {
    const struct place *place = *state;
    struct kiln_digest one, again, other;
    assert_int_equal(load(place, "a", &one), 0);
    assert_int_equal(load(place, "a", &again), 0);
    assert_int_equal(load(place, "b", &other), 0);
    assert_true(kiln_digest_equal(&one, &again));
    assert_false(kiln_digest_equal(&one, &other));
    struct stat st;
    assert_int_equal(fstatat(place->dirfd, "a", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    assert_int_equal(st.st_nlink, 1);
    unlinkat(place->dirfd, "a.pub", 0);
    assert_int_equal(load(place, "a", NULL), 0);
    assert_int_equal(fstatat(place->dirfd, "a.pub", &st, AT_SYMLINK_NOFOLLOW), 0);
}

static void refuses_loose_files(void **state) {
    const struct place *place = *state;
    static const mode_t loose[] = {0604, 0640, 0644, 0660, 0610, 0601, 0666, 0777};
    for (size_t i = 0; i < sizeof loose / sizeof *loose; i++) {
        put(place, "key", loose[i], vectors[0].private_hex);
        assert_int_equal(load(place, "key", NULL), KILN_E_DENIED);
    }
    put(place, "real", 0600, vectors[0].private_hex);
    unlinkat(place->dirfd, "key", 0);
    assert_int_equal(symlinkat("real", place->dirfd, "key"), 0);
    assert_int_equal(load(place, "key", NULL), KILN_E_DENIED);
    unlinkat(place->dirfd, "key", 0);
    assert_int_equal(mkfifoat(place->dirfd, "key", 0600), 0);
    assert_int_equal(load(place, "key", NULL), KILN_E_DENIED);
    unlinkat(place->dirfd, "key", 0);
    assert_int_equal(mkdirat(place->dirfd, "key", 0700), 0);
    assert_int_equal(load(place, "key", NULL), KILN_E_DENIED);
    put(place, "theirs", 0600, vectors[0].private_hex);
    if (geteuid() == 0) { // only root can give a file away
        assert_int_equal(fchownat(place->dirfd, "theirs", 65534, 65534, 0), 0);
        assert_int_equal(load(place, "theirs", NULL), KILN_E_DENIED);
    }
}

static void refuses_malformed_files(void **state) {
    const struct place *place = *state;
    static const char *const texts[] = {
        "",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f6\n",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n\n",
        "9D61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        put(place, "key", 0600, texts[i]);
        assert_int_equal(load(place, "key", NULL), KILN_E_CORRUPT);
    }
    static const char *const names[] = {"", ".hidden", "../key", "a/b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(load(place, names[i], NULL), KILN_E_INVAL);
}

#define MAKERS 16

// Processes, because that is what an agent and its children are; all start at one moment.
static void racing_makers(void **state) {
    const struct place *place = *state;
    for (int round = 0; round < 10; round++) {
        char name[16];
        snprintf(name, sizeof name, "race%d", round);
        int gate[2], answers[2];
        assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
        assert_int_equal(pipe2(answers, O_CLOEXEC), 0);
        pid_t pids[MAKERS];
        for (int i = 0; i < MAKERS; i++) {
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (pids[i] == 0) {
                struct kiln_digest id;
                struct kiln_sign_key *key = NULL;
                close(gate[1]);
                if (read(gate[0], &id, 1) != 0 || kiln_sign_key_load_or_make(place->dirfd, name, &key, NULL))
                    _exit(1);
                kiln_sign_key_id(key, &id);
                kiln_sign_key_free(key);
                _exit(write(answers[1], &id, sizeof id) == sizeof id ? 0 : 1);
            }
        }
        close(gate[0]);
        close(gate[1]);
        close(answers[1]);
        struct kiln_digest first, id;
        for (int i = 0; i < MAKERS; i++) {
            assert_int_equal(read(answers[0], &id, sizeof id), sizeof id);
            if (i == 0)
                first = id;
            assert_true(kiln_digest_equal(&first, &id));
        }
        close(answers[0]);
        for (int i = 0; i < MAKERS; i++) {
            int status;
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_int_equal(status, 0);
        }
        struct kiln_digest final;
        assert_int_equal(load(place, name, &final), 0);
        assert_true(kiln_digest_equal(&first, &final));
    }
}

static void trust(void **state) {
    const struct place *place = *state;
    struct kiln_sign_key *key = NULL;
    struct kiln_trust *trusted = NULL;
    uint8_t signature[KILN_SIGNATURE_BYTES];
    struct kiln_digest id;
    assert_int_equal(kiln_sign_key_load_or_make(place->dirfd, "k", &key, NULL), 0);
    kiln_sign_key_id(key, &id);
    assert_int_equal(kiln_sign(key, "text", 4, signature, NULL), 0);
    assert_int_equal(kiln_trust_new(&trusted, NULL), 0);
    assert_int_equal(kiln_trust_verify(trusted, &id, "text", 4, signature, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_trust_add_file(trusted, place->dirfd, "absent", NULL), KILN_E_NOTFOUND);
    assert_int_equal(kiln_trust_add_file(trusted, place->dirfd, "k", NULL), 0);
    assert_int_equal(kiln_trust_add_file(trusted, place->dirfd, "k", NULL), 0); // known already
    assert_int_equal(kiln_trust_verify(trusted, &id, "text", 4, signature, NULL), 0);
    assert_int_equal(kiln_trust_verify(trusted, &id, "texT", 4, signature, NULL), KILN_E_CORRUPT);
    signature[63] ^= 1;
    assert_int_equal(kiln_trust_verify(trusted, &id, "text", 4, signature, NULL), KILN_E_CORRUPT);
    // A public file that others may write is no trust.
    assert_int_equal(fchmodat(place->dirfd, "k.pub", 0666, 0), 0);
    assert_int_equal(kiln_trust_add_file(trusted, place->dirfd, "k", NULL), KILN_E_DENIED);
    kiln_trust_free(trusted);
    kiln_sign_key_free(key);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {CASE(known_answers),           CASE(made_once),     CASE(refuses_loose_files),
                                       CASE(refuses_malformed_files), CASE(racing_makers), CASE(trust)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
