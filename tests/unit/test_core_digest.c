// SHA-256 by published examples (FIPS 180-4), files, copies, text form, threads.
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/core/digest.h"

static const struct {
    const char *text, *hex;
} examples[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void assert_hex(const struct kiln_digest *digest, const char *expected) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    assert_string_equal(hex, expected);
}

static void known_answers(void **state) {
    (void)state;
    struct kiln_hasher *hasher = kiln_hasher_new();
    assert_non_null(hasher);
    for (size_t i = 0; i < 3; i++) {
        struct kiln_digest digest;
        size_t len = strlen(examples[i].text);
        kiln_digest_of(examples[i].text, len, &digest);
        assert_hex(&digest, examples[i].hex);
        for (size_t at = 0; at < len; at++)
            kiln_hasher_update(hasher, examples[i].text + at, 1);
        kiln_hasher_finish(hasher, &digest); // and is ready again
        assert_hex(&digest, examples[i].hex);
    }
    kiln_hasher_free(hasher);
}

static int file_with(const void *data, size_t len) {
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_int_equal(write(fd, data, len), len);
    return fd;
}

static void files(void **state) {
    (void)state;
    size_t len = 300001;
    kiln_autofree unsigned char *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = (unsigned char)(i * 31);
    struct kiln_digest expected, found;
    uint64_t size = 0;
    kiln_digest_of(data, len, &expected);
    kiln_autofd int fd = file_with(data, len);
    assert_int_equal(lseek(fd, 17, SEEK_SET), 17);
    assert_int_equal(kiln_digest_of_fd(fd, len, &found, &size, NULL), 0);
    assert_true(kiln_digest_equal(&found, &expected));
    assert_int_equal(size, len);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 17);
    size = 5;
    memset(&found, 0, sizeof found);
    assert_int_equal(kiln_digest_of_fd(fd, len - 1, &found, &size, NULL), KILN_E_LIMIT);
    assert_int_equal(size, 5);
    assert_true(kiln_digest_is_zero(&found));
    // The thread's hasher is clean after the failure.
    kiln_digest_of("abc", 3, &found);
    assert_hex(&found, examples[1].hex);
}

static void copies(void **state) {
    (void)state;
    kiln_autofd int in = file_with("xabc", 4), out = file_with("", 0);
    struct kiln_digest digest;
    uint64_t size;
    char back[8];
    assert_int_equal(lseek(in, 1, SEEK_SET), 1);
    assert_int_equal(kiln_digest_copy_fd(in, out, 3, &digest, &size, NULL), 0);
    assert_hex(&digest, examples[1].hex);
    assert_int_equal(size, 3);
    assert_int_equal(pread(out, back, sizeof back, 0), 3);
    assert_memory_equal(back, "abc", 3);
    lseek(in, 0, SEEK_SET);
    assert_int_equal(kiln_digest_copy_fd(in, out, 3, &digest, NULL, NULL), KILN_E_LIMIT);
    kiln_autofd int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
    lseek(in, 0, SEEK_SET);
    assert_int_equal(kiln_digest_copy_fd(in, read_only, 9, &digest, NULL, NULL), KILN_E_IO);
    assert_int_equal(kiln_digest_copy_fd(in, -1, 9, &digest, NULL, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_digest_of_fd(-1, 9, &digest, NULL, NULL), KILN_E_IO);
}

static void text_form(void **state) {
    (void)state;
    struct kiln_digest digest = {.bytes = {9}};
    static const char *const bad[] = {"", "ab", "BA7816BF8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
                                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0",
                                      "ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(kiln_digest_parse(bad[i], &digest, NULL), KILN_E_INVAL);
    assert_int_equal(digest.bytes[0], 9);
    assert_int_equal(kiln_digest_parse(examples[1].hex, &digest, NULL), 0);
    assert_hex(&digest, examples[1].hex);
    struct kiln_digest bigger = digest;
    bigger.bytes[31]++;
    assert_true(kiln_digest_compare(&digest, &bigger) < 0);
    assert_false(kiln_digest_equal(&digest, &bigger));
}

static void *hash_often(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        struct kiln_digest digest;
        kiln_digest_of("abc", 3, &digest);
        if (digest.bytes[0] != 0xba || digest.bytes[31] != 0xad)
            return (void *)1;
    }
    return NULL;
}

static void threads(void **state) {
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hash_often, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(files),
                                       cmocka_unit_test(copies), cmocka_unit_test(text_form),
                                       cmocka_unit_test(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
