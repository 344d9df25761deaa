// Trees: building, finding, and a decoder that refuses whatever the encoder would not make.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/path.h"
#include "lib/core/tree.h"

#define BUF KILN_BUF_INIT(KILN_TREE_BYTES_MAX)

static const struct kiln_digest some_digest = {.bytes = {1, 2, 3}};

struct raw_entry {
    int kind; // 0 ends the list
    const char *path, *target;
    int executable;
    size_t path_len; // when the path holds a NUL
};

static void encode_raw(const struct raw_entry *entries, struct kiln_buf *out) {
    uint32_t count = 0;
    while (entries[count].kind)
        count++;
    kiln_buf_add(out, "kiln-tree-1", 12);
    kiln_buf_add_be32(out, count);
    for (const struct raw_entry *e = entries; e->kind; e++) {
        kiln_buf_add_u8(out, (uint8_t)e->kind);
        kiln_buf_add_field(out, e->path, e->path_len ? e->path_len : strlen(e->path));
        if (e->kind == KILN_TREE_FILE) {
            kiln_buf_add_u8(out, (uint8_t)e->executable);
            kiln_buf_add_be64(out, 7);
            kiln_buf_add(out, some_digest.bytes, sizeof some_digest.bytes);
        }
        if (e->kind == KILN_TREE_LINK)
            kiln_buf_add_field_str(out, e->target);
    }
}

static int decode(const struct kiln_buf *bytes) {
    struct kiln_tree tree = {0};
    struct kiln_err err;
    int rc = kiln_tree_decode(bytes->data, bytes->len, &tree, &err);
    if (rc) {
        assert_null(tree.entries);
        return rc;
    }
    kiln_autobuf struct kiln_buf again = BUF;
    assert_int_equal(kiln_tree_encode(&tree, &again, &err), 0);
    assert_int_equal(again.len, bytes->len);
    assert_memory_equal(again.data, bytes->data, bytes->len);
    kiln_tree_release(&tree);
    return 0;
}

static const struct {
    const char *rule;
    int code;
    struct raw_entry entries[4];
} cases[] = {
    {"empty tree", 0, {{0}}},
    {"all kinds",
     0,
     {{1, "a", 0, 0, 0}, {2, "a/b", 0, 1, 0}, {3, "a/c", "../d", 0, 0}}},
    {"byte order puts a-b before a/b", 0, {{1, "a", 0, 0, 0}, {4, "a-b", 0, 0, 0}, {4, "a/b", 0, 0, 0}}},
    {"bytes above 0x7f sort unsigned", 0, {{4, "a", 0, 0, 0}, {4, "\xc3\xa4", 0, 0, 0}}},
    {"link to the parent directory", 0, {{1, "a", 0, 0, 0}, {3, "a/up", "..", 0, 0}}},
    {"out of order", KILN_E_CORRUPT, {{4, "b", 0, 0, 0}, {4, "a", 0, 0, 0}}},
    {"duplicate", KILN_E_CORRUPT, {{4, "a", 0, 0, 0}, {4, "a", 0, 0, 0}}},
    {"missing parent", KILN_E_CORRUPT, {{4, "a/b", 0, 0, 0}}},
    {"missing parent after an unrelated entry", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {4, "a-b/c", 0, 0, 0}}},
    {"missing parent two levels down", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {4, "a/b/c", 0, 0, 0}}},
    {"child of a file", KILN_E_CORRUPT, {{2, "a", 0, 0, 0}, {4, "a/b", 0, 0, 0}}},
    {"child of a link", KILN_E_CORRUPT, {{1, "d", 0, 0, 0}, {3, "l", "d", 0, 0}, {2, "l/x", 0, 0, 0}}},
    {"child of a withheld entry", KILN_E_CORRUPT, {{4, "a", 0, 0, 0}, {2, "a/b", 0, 0, 0}}},
    {"kind 5", KILN_E_CORRUPT, {{5, "a", 0, 0, 0}}},
    {"executable 2", KILN_E_CORRUPT, {{2, "a", 0, 2, 0}}},
    {"absolute path", KILN_E_CORRUPT, {{4, "/a", 0, 0, 0}}},
    {"trailing slash", KILN_E_CORRUPT, {{1, "a/", 0, 0, 0}}},
    {"empty path", KILN_E_CORRUPT, {{4, "", 0, 0, 0}}},
    {"dot", KILN_E_CORRUPT, {{1, ".", 0, 0, 0}}},
    {"dot dot", KILN_E_CORRUPT, {{1, "..", 0, 0, 0}, {2, "../a", 0, 0, 0}}},
    {"dot dot inside", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {1, "a/..", 0, 0, 0}}},
    {"double slash", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {2, "a//b", 0, 0, 0}}},
    {"NUL in a path", KILN_E_CORRUPT, {{4, "a\0b", 0, 0, 3}}},
    {"newline in a path", KILN_E_CORRUPT, {{4, "a\nb", 0, 0, 0}}},
    {"link out of the root", KILN_E_CORRUPT, {{3, "l", "../x", 0, 0}}},
    {"link to above the root", KILN_E_CORRUPT, {{3, "l", "..", 0, 0}}},
    {"link out of a directory", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {3, "a/l", "../../x", 0, 0}}},
    {"absolute link", KILN_E_CORRUPT, {{3, "l", "/etc/passwd", 0, 0}}},
    {"empty link", KILN_E_CORRUPT, {{3, "l", "", 0, 0}}},
    {"link to itself's directory", KILN_E_CORRUPT, {{3, "l", ".", 0, 0}}},
    {"link with dot dot after a name", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {3, "a/l", "b/../../../x", 0, 0}}},
    {"link with a trailing slash", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {3, "l", "a/", 0, 0}}},
    {"link with ../ only", KILN_E_CORRUPT, {{1, "a", 0, 0, 0}, {3, "a/l", "../", 0, 0}}},
};

static void decodes_or_refuses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kiln_autobuf struct kiln_buf bytes = BUF;
        encode_raw(cases[i].entries, &bytes);
        int rc = decode(&bytes);
        if (rc != cases[i].code)
            fail_msg("%s: %d, expected %d", cases[i].rule, rc, cases[i].code);
    }
}

// Every proper prefix and every appended byte of a good encoding is refused; so is every flipped bit of its framing.
static void refuses_torn_bytes(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf bytes = BUF;
    encode_raw(cases[1].entries, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        struct kiln_buf part = {.data = malloc(len ? len : 1), .len = len};
        memcpy(part.data, bytes.data, len);
        assert_int_equal(decode(&part), KILN_E_CORRUPT);
        free(part.data);
    }
    kiln_buf_add_u8(&bytes, 0);
    assert_int_equal(decode(&bytes), KILN_E_CORRUPT);
    bytes.len--;
    for (size_t bit = 0; bit < 16 * 8; bit++) { // magic and count
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_not_equal(decode(&bytes), 0);
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_int_equal(decode(&bytes), 0);
}

static void bounds_counts(void **state) {
    (void)state;
    static const uint32_t counts[] = {1, 1000, KILN_TREE_ENTRIES_MAX, KILN_TREE_ENTRIES_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        kiln_autobuf struct kiln_buf bytes = BUF;
        kiln_buf_add(&bytes, "kiln-tree-1", 12);
        kiln_buf_add_be32(&bytes, counts[i]);
        assert_int_equal(decode(&bytes), KILN_E_CORRUPT);
    }
    // Enough bytes for the count, and still too many entries.
    kiln_autobuf struct kiln_buf bytes = BUF;
    kiln_buf_add(&bytes, "kiln-tree-1", 12);
    kiln_buf_add_be32(&bytes, KILN_TREE_ENTRIES_MAX + 1);
    assert_int_equal(kiln_buf_reserve(&bytes, 2000000), 0);
    memset(bytes.data + bytes.len, 1, 2000000);
    bytes.len += 2000000;
    assert_int_equal(decode(&bytes), KILN_E_LIMIT);
}

static void finish_sorts_and_adds_parents(void **state) {
    (void)state;
    struct kiln_err err;
    kiln_autotree struct kiln_tree tree = {0};
    static const char *const files[] = {"src/b/c/d.rs", "src-x", "src/a", "src/b/z", "src.y/q", "a"};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(kiln_tree_add_file(&tree, files[i], false, 1, &some_digest, &err), 0);
    assert_int_equal(kiln_tree_add_dir(&tree, "src/b", &err), 0);
    assert_int_equal(kiln_tree_finish(&tree, &err), 0);
    static const char *const expected[] = {"a",       "src",     "src-x",     "src.y",        "src.y/q",
                                           "src/a",   "src/b",   "src/b/c",   "src/b/c/d.rs", "src/b/z"};
    assert_int_equal(tree.count, 10);
    for (size_t i = 0; i < 10; i++) {
        assert_string_equal(tree.entries[i].path, expected[i]);
        assert_ptr_equal(kiln_tree_find(&tree, expected[i]), &tree.entries[i]);
    }
    assert_null(kiln_tree_find(&tree, "src/b/"));
    assert_null(kiln_tree_find(&tree, "sr"));
    assert_null(kiln_tree_find(&tree, ""));
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_tree_encode(&tree, &bytes, &err), 0);
    assert_int_equal(decode(&bytes), 0);
}

static void finish_refuses(void **state) {
    (void)state;
    static const struct {
        const char *one, *other;
    } pairs[] = {{"a", "a"}, {"a/../b", "c"}, {"/a", "c"}, {"a", "a/b"}, {"", "c"}, {"a//b", "c"}, {"a/b\x01", "c"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        kiln_autotree struct kiln_tree tree = {0};
        struct kiln_err err;
        assert_int_equal(kiln_tree_add_file(&tree, pairs[i].one, false, 1, &some_digest, &err), 0);
        assert_int_equal(kiln_tree_add_withheld(&tree, pairs[i].other, &err), 0);
        assert_int_equal(kiln_tree_finish(&tree, &err), KILN_E_INVAL);
    }
}

static void large_tree(void **state) {
    (void)state;
    kiln_autotree struct kiln_tree tree = {0};
    char path[64];
    for (unsigned i = 0; i < 150000; i++) {
        snprintf(path, sizeof path, "d%03u/e%02u/f%u", i * 7919 % 1000, i % 100, i);
        assert_int_equal(kiln_tree_add_file(&tree, path, false, i, &some_digest, NULL), 0);
    }
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_tree_encode(&tree, &bytes, NULL), 0);
    assert_int_equal(decode(&bytes), 0);
}

static void refuses_one_entry_too_many(void **state) {
    (void)state;
    kiln_autotree struct kiln_tree tree = {0};
    char path[16];
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i <= KILN_TREE_ENTRIES_MAX; i++) {
        snprintf(path, sizeof path, "%u", i);
        rc = kiln_tree_add_withheld(&tree, path, NULL);
    }
    assert_int_equal(rc, KILN_E_LIMIT);
    assert_int_equal(tree.count, KILN_TREE_ENTRIES_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_or_refuses),            cmocka_unit_test(refuses_torn_bytes),
        cmocka_unit_test(bounds_counts),                 cmocka_unit_test(finish_sorts_and_adds_parents),
        cmocka_unit_test(finish_refuses),                cmocka_unit_test(large_tree),
        cmocka_unit_test(refuses_one_entry_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
