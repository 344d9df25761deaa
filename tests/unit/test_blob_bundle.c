// Bundles: what was written comes back, and of what somebody else wrote only exactly the outputs of the result, each from one frame
// that is no larger than it need be.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/blob/bundle.h"

static const char library[] = "the bytes of a library", text[] = "a text";

static struct kiln_digest digest_of(const char *bytes) {
    struct kiln_digest digest;
    kiln_digest_of(bytes, strlen(bytes), &digest);
    return digest;
}

static int file_of(const void *bytes, size_t len) {
    int fd = memfd_create("bundle", MFD_CLOEXEC);
    assert_int_equal(kiln_fs_write_all(fd, bytes, len, NULL), 0);
    return fd;
}

// Outputs: a library, and a text twice.
static void make_result(struct kiln_result *result) {
    const struct kiln_digest one = digest_of(library), two = digest_of(text);
    *result = (struct kiln_result){0};
    assert_int_equal(kiln_result_add_output(result, KILN_OUTPUT_FILE, "liba.rlib", false, strlen(library), &one, NULL), 0);
    assert_int_equal(kiln_result_add_output(result, KILN_OUTPUT_STDOUT, "", false, strlen(text), &two, NULL), 0);
    assert_int_equal(kiln_result_add_output(result, KILN_OUTPUT_STDERR, "", false, strlen(text), &two, NULL), 0);
}

struct seen {
    size_t count;
    char bytes[8][64];
};

static int see(void *context, const struct kiln_digest *digest, uint64_t size, int fd) {
    struct seen *seen = context;
    struct kiln_digest found;
    assert_int_equal(read(fd, seen->bytes[seen->count], sizeof seen->bytes[0]), size);
    kiln_digest_of(seen->bytes[seen->count++], size, &found);
    assert_true(kiln_digest_equal(digest, &found));
    close(fd);
    return 0;
}

static int read_back(int fd, struct seen *seen) {
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_err err;
    make_result(&result);
    *seen = (struct seen){0};
    return kiln_bundle_read(fd, &result, -1, see, seen, &err);
}

static void comes_back(void **state) {
    (void)state;
    kiln_autofd int one = file_of(library, strlen(library)), two = file_of(text, strlen(text)), bundle = memfd_create("b", MFD_CLOEXEC);
    const struct kiln_bundle_member members[] = {{digest_of(library), strlen(library), one}, {digest_of(text), strlen(text), two},
                                                 {digest_of(text), strlen(text), two}};
    struct kiln_digest digest, found;
    uint64_t size, found_size;
    struct seen seen;
    assert_int_equal(kiln_bundle_write(members, 3, bundle, &digest, &size, NULL), 0);
    assert_int_equal(kiln_digest_of_fd(bundle, 1 << 20, &found, &found_size, NULL), 0);
    assert_true(kiln_digest_equal(&digest, &found));
    assert_int_equal(size, found_size);
    assert_int_equal(read_back(bundle, &seen), 0);
    assert_int_equal(seen.count, 2); // equal ones once
    assert_string_equal(seen.bytes[0], library);
    assert_string_equal(seen.bytes[1], text);
    struct kiln_bundle_member liar = members[0];
    liar.digest.bytes[0] ^= 1;
    assert_int_equal(kiln_bundle_write(&liar, 1, bundle, &digest, &size, NULL), KILN_E_CORRUPT);
}

// A bundle by hand: frames of uncompressed blocks.
struct hand {
    struct kiln_buf head, body;
    uint32_t count;
};

static void add_block(struct kiln_buf *body, const char *bytes, size_t len, bool last) {
    uint32_t block = (uint32_t)len << 3 | last;
    const uint8_t header[3] = {(uint8_t)block, (uint8_t)(block >> 8), (uint8_t)(block >> 16)};
    kiln_buf_add(body, header, sizeof header);
    kiln_buf_add(body, bytes, len);
}

static void add_frame(struct kiln_buf *body, const char *bytes, unsigned empty_blocks) {
    const uint8_t start[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, (uint8_t)strlen(bytes)};
    kiln_buf_add(body, start, sizeof start);
    for (unsigned i = 0; i < empty_blocks; i++)
        add_block(body, "", 0, false);
    add_block(body, bytes, strlen(bytes), true);
}

static void add_member(struct hand *hand, const struct kiln_digest *digest, uint64_t size, size_t stored) {
    kiln_buf_add(&hand->head, digest->bytes, sizeof digest->bytes);
    kiln_buf_add_be64(&hand->head, size);
    kiln_buf_add_be64(&hand->head, stored);
    hand->count++;
}

static void add(struct hand *hand, const char *named, const char *bytes, uint64_t size, unsigned empty_blocks) {
    const struct kiln_digest digest = digest_of(named);
    size_t before = hand->body.len;
    add_frame(&hand->body, bytes, empty_blocks);
    add_member(hand, &digest, size, hand->body.len - before);
}

static void add_honest(struct hand *hand, const char *bytes) { add(hand, bytes, bytes, strlen(bytes), 0); }

static void library_twice(struct hand *hand) { add_honest(hand, library), add_honest(hand, library), add_honest(hand, text); }
static void text_missing(struct hand *hand) { add_honest(hand, library); }
static void one_more(struct hand *hand) { add_honest(hand, library), add_honest(hand, text), add_honest(hand, "more"); }
static void other_bytes(struct hand *hand) { add(hand, library, "The bytes of a library", strlen(library), 0), add_honest(hand, text); }
static void longer(struct hand *hand) { add(hand, library, "the bytes of a library and more", strlen(library), 0), add_honest(hand, text); }
static void shorter(struct hand *hand) { add(hand, library, "the bytes", strlen(library), 0), add_honest(hand, text); }
static void another_size(struct hand *hand) { add(hand, library, library, strlen(library) + 1, 0), add_honest(hand, text); }
static void padded(struct hand *hand) { add(hand, library, library, strlen(library), 200), add_honest(hand, text); }
static void two_frames(struct hand *hand) {
    const struct kiln_digest digest = digest_of(library);
    add_frame(&hand->body, library, 0);
    add_frame(&hand->body, "", 0);
    add_member(hand, &digest, strlen(library), hand->body.len);
    add_honest(hand, text);
}
static void bytes_after(struct hand *hand) { add_honest(hand, library), add_honest(hand, text), kiln_buf_add(&hand->body, "x", 1); }
static void cut(struct hand *hand) { add_honest(hand, library), add_honest(hand, text), hand->body.len--; }
static void no_frame(struct hand *hand) { add_honest(hand, library), add_honest(hand, text), hand->body.data[0] ^= 1; }
static void too_many(struct hand *hand) { add_honest(hand, library), add_honest(hand, text), hand->count = 1u << 31; }
static void honest(struct hand *hand) { add_honest(hand, text), add_honest(hand, library); }

static void takes_only_what_the_result_lists(void **state) {
    static void (*const cases[])(struct hand *hand) = {library_twice, text_missing, one_more, other_bytes, longer, shorter, another_size,
                                                       padded, two_frames, bytes_after, cut, no_frame, too_many, honest};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hand hand = {KILN_BUF_INIT(1 << 16), KILN_BUF_INIT(1 << 16), 0};
        kiln_autobuf struct kiln_buf whole = KILN_BUF_INIT(1 << 17);
        struct seen seen;
        cases[i](&hand);
        kiln_buf_add(&whole, "kiln-bundle-1", sizeof "kiln-bundle-1");
        kiln_buf_add_be32(&whole, hand.count);
        kiln_buf_add(&whole, hand.head.data, hand.head.len);
        kiln_buf_add(&whole, hand.body.data, hand.body.len);
        kiln_autofd int fd = file_of(whole.data, whole.len);
        int rc = read_back(fd, &seen);
        if (rc != (cases[i] == honest ? 0 : KILN_E_CORRUPT))
            fail_msg("case %zu: %d", i, rc);
        kiln_buf_release(&hand.head);
        kiln_buf_release(&hand.body);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(takes_only_what_the_result_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
