#include "tests/unit/trust_rig.h"

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/core/public_list.h"

static const struct kiln_digest archive = {{7}}, tree = {{1}}, other_tree = {{2}};

static void make(struct kiln_public_list *list) {
    struct kiln_err err = {0};
    *list = (struct kiln_public_list){.version = 4, .issued_ms = RIG_NOW, .expires_ms = RIG_NOW + 1};
    assert_ok(kiln_public_list_add(list, "serde-1.0.1", &archive, &other_tree, &err));
    assert_ok(kiln_public_list_add(list, "itoa-1.0.0", &archive, &tree, &err));
    assert_ok(kiln_public_list_add(list, "serde-1.0.1", &archive, &tree, &err)); // as another version of Kiln reads it
    assert_ok(kiln_public_list_finish(list, &err));
}

static void a_list_comes_back(void **state) {
    (void)state;
    struct kiln_err err = {0};
    kiln_autopublic_list struct kiln_public_list list = {0}, back = {0};
    kiln_autobuf struct kiln_buf one = KILN_BUF_INIT(1 << 20), other = KILN_BUF_INIT(1 << 20);
    make(&list);
    assert_ok(kiln_public_list_encode(&list, &one, &err));
    assert_ok(kiln_public_list_decode(one.data, one.len, &back, &err));
    assert_int_equal(back.version, 4);
    assert_int_equal(back.count, 3);
    assert_true(kiln_public_list_has(&back, "serde-1.0.1", &tree));
    assert_true(kiln_public_list_has(&back, "serde-1.0.1", &other_tree));
    assert_false(kiln_public_list_has(&back, "itoa-1.0.0", &other_tree));
    assert_false(kiln_public_list_has(&back, "itoa", &tree));
    assert_ok(kiln_public_list_encode(&back, &other, &err));
    assert_int_equal(one.len, other.len);
    assert_memory_equal(one.data, other.data, one.len);
    for (size_t len = 0; len < one.len; len++)
        assert_int_equal(kiln_public_list_decode(one.data, len, &back, NULL), KILN_E_CORRUPT);
    kiln_buf_add_u8(&one, 0);
    assert_int_equal(kiln_public_list_decode(one.data, one.len, &back, NULL), KILN_E_CORRUPT);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {"", "a/b", "..", ".", "a\n"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        kiln_autopublic_list struct kiln_public_list list = {0};
        make(&list);
        assert_int_equal(kiln_public_list_add(&list, names[i], &archive, &tree, NULL), 0);
        assert_int_equal(kiln_public_list_finish(&list, NULL), KILN_E_INVAL);
    }
    kiln_autopublic_list struct kiln_public_list list = {0};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    make(&list);
    assert_int_equal(kiln_public_list_add(&list, "itoa-1.0.0", &other_tree, &tree, NULL), 0); // two archives, one tree
    assert_int_equal(kiln_public_list_finish(&list, NULL), KILN_E_INVAL);
    kiln_public_list_release(&list);
    make(&list);
    struct kiln_public_package first = list.packages[0];
    list.packages[0] = list.packages[1];
    list.packages[1] = first;
    assert_int_equal(kiln_public_list_encode(&list, &out, NULL), KILN_E_INVAL);
    list.packages[1] = list.packages[0];
    list.packages[0] = first;
    list.version = 0;
    assert_int_equal(kiln_public_list_encode(&list, &out, NULL), KILN_E_INVAL);
    list.version = 1;
    list.expires_ms = list.issued_ms;
    assert_int_equal(kiln_public_list_encode(&list, &out, NULL), KILN_E_INVAL);
    assert_int_equal(out.len, 0);
}

// A root's signature over one kind of document is none over the other.
static void a_list_is_no_trust_record(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    uint8_t root[1][KILN_PUBLIC_KEY_BYTES];
    const struct kiln_roots roots = {(const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])root, 1, 1};
    rig_public(scratch, "root-1", root[0]);
    struct kiln_sign_key *key = rig_key(scratch, "root-1");
    kiln_autopublic_list struct kiln_public_list list = {0}, back = {0};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20), changed = KILN_BUF_INIT(1 << 20);
    make(&list);
    assert_ok(kiln_public_list_sign(&list, (const struct kiln_sign_key *const *)&key, 1, &envelope, &err));
    kiln_sign_key_free(key);
    assert_ok(kiln_public_list_open(envelope.data, envelope.len, &roots, &back, &err));
    kiln_autotrust_record struct kiln_trust_record record = {0};
    assert_int_equal(kiln_trust_record_open(envelope.data, envelope.len, roots.keys, 1, 1, &record, NULL), KILN_E_CORRUPT);
    kiln_buf_add(&changed, "kiln-trust-signed-1", sizeof "kiln-trust-signed-1");
    kiln_buf_add(&changed, envelope.data + sizeof "kiln-public-signed-1", envelope.len - sizeof "kiln-public-signed-1");
    assert_int_equal(kiln_trust_record_open(changed.data, changed.len, roots.keys, 1, 1, &record, NULL), KILN_E_CORRUPT);
    for (size_t bit = 3; bit < envelope.len * 8; bit += 8) {
        kiln_autopublic_list struct kiln_public_list none = {0};
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (kiln_public_list_open(envelope.data, envelope.len, &roots, &none, NULL) != KILN_E_CORRUPT)
            fail_msg("bit %zu flipped and still good", bit);
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void a_full_list_fits(void **state) {
    (void)state;
    struct kiln_err err = {0};
    kiln_autopublic_list struct kiln_public_list list = {.version = 1, .issued_ms = 1, .expires_ms = 2}, back = {0};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_PUBLIC_BYTES_MAX);
    char name[128];
    for (unsigned i = 0; i < KILN_PUBLIC_ENTRIES_MAX; i++) {
        snprintf(name, sizeof name, "a-package-with-quite-a-long-name-%06u-1.0.0", i * 7919 % KILN_PUBLIC_ENTRIES_MAX);
        assert_ok(kiln_public_list_add(&list, name, &archive, &tree, &err));
    }
    assert_int_equal(kiln_public_list_add(&list, "one-more", &archive, &tree, NULL), KILN_E_LIMIT);
    assert_ok(kiln_public_list_finish(&list, &err));
    assert_ok(kiln_public_list_encode(&list, &out, &err));
    uint64_t before = kiln_clock_ms();
    assert_ok(kiln_public_list_decode(out.data, out.len, &back, &err));
    assert_true(kiln_clock_ms() - before < 5000);
    assert_true(kiln_public_list_has(&back, name, &tree));
    assert_false(kiln_public_list_has(&back, name, &archive));
}

// A count that the bytes behind it cannot hold costs no memory.
static void a_count_is_no_promise(void **state) {
    (void)state;
    kiln_autopublic_list struct kiln_public_list back = {0};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1024);
    kiln_buf_add(&out, "kiln-public-1", sizeof "kiln-public-1");
    kiln_buf_add_be64(&out, 1);
    kiln_buf_add_be64(&out, 1);
    kiln_buf_add_be64(&out, 2);
    kiln_buf_add_be32(&out, KILN_PUBLIC_ENTRIES_MAX);
    assert_int_equal(kiln_public_list_decode(out.data, out.len, &back, NULL), KILN_E_CORRUPT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_comes_back),    cmocka_unit_test(what_makes_no_sense_is_refused),
        scratch_test(a_list_is_no_trust_record), cmocka_unit_test(a_full_list_fits),
        cmocka_unit_test(a_count_is_no_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
