// Hints are written by whoever may write for the tenant: only what an agent writes is taken.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "producer/agent/hints.h"

static struct kiln_hint hint_of(uint32_t number, bool is_public) {
    struct kiln_hint hint = {.is_public = is_public};
    memcpy(hint.action.bytes, &number, sizeof number);
    return hint;
}

static struct kiln_hints hints_of(uint32_t count) {
    struct kiln_hints hints = {0};
    for (uint32_t i = 0; i < count; i++) {
        const struct kiln_hint hint = hint_of(count - i, i % 2);
        assert_int_equal(kiln_hints_add(&hints, &hint, NULL), 0);
    }
    return hints;
}

static void what_is_encoded_comes_back_in_its_order(void **state) {
    (void)state;
    struct kiln_hints hints = hints_of(40), back = {0};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    assert_int_equal(kiln_hints_encode(&hints, &bytes, NULL), 0);
    assert_int_equal(bytes.len, 17 + 40 * 33);
    assert_int_equal(kiln_hints_decode(bytes.data, bytes.len, &back, NULL), 0);
    assert_int_equal(back.count, 40);
    for (size_t i = 0; i < back.count; i++) {
        assert_true(kiln_digest_equal(&back.all[i].action, &hints.all[i].action));
        assert_int_equal(back.all[i].is_public, i % 2);
    }
    kiln_hints_release(&hints);
    kiln_hints_release(&back);
}

static void an_action_is_named_once_and_the_list_is_bounded(void **state) {
    (void)state;
    struct kiln_hints hints = hints_of(5);
    const struct kiln_hint again = hint_of(3, false);
    assert_int_equal(kiln_hints_add(&hints, &again, NULL), 0);
    assert_int_equal(hints.count, 5);
    hints.count = KILN_HINTS_MAX; // as if it were full
    const struct kiln_hint more = hint_of(77, false);
    free(hints.all);
    hints.all = calloc(KILN_HINTS_MAX, sizeof *hints.all);
    assert_int_equal(kiln_hints_add(&hints, &more, NULL), 0);
    assert_int_equal(hints.count, KILN_HINTS_MAX);
    kiln_hints_release(&hints);
}

static void refused(const void *data, size_t len) {
    struct kiln_hints hints = {0};
    struct kiln_err err = {0};
    assert_int_equal(kiln_hints_decode(data, len, &hints, &err), KILN_E_CORRUPT);
    assert_null(hints.all);
    assert_int_equal(hints.count, 0);
}

static void everything_else_is_refused(void **state) {
    (void)state;
    struct kiln_hints hints = hints_of(3);
    kiln_autobuf struct kiln_buf good = KILN_BUF_INIT(KILN_HINTS_BYTES_MAX);
    assert_int_equal(kiln_hints_encode(&hints, &good, NULL), 0);
    for (size_t len = 0; len < good.len; len++)
        refused(good.data, len);
    unsigned char bytes[200];
    assert_true(good.len + 1 < sizeof bytes);
    memcpy(bytes, good.data, good.len);
    bytes[good.len] = 0;
    refused(bytes, good.len + 1); // something behind it
    bytes[0] ^= 1;
    refused(bytes, good.len);
    bytes[0] ^= 1;
    memset(bytes + 13, 0xff, 4); // a count that no memory has
    refused(bytes, good.len);
    memcpy(bytes, good.data, good.len);
    bytes[17] = 2; // a scope that is none
    refused(bytes, good.len);
    memcpy(bytes, good.data, good.len);
    memcpy(bytes + 17 + 33, bytes + 17, 33); // the same twice
    refused(bytes, good.len);
    kiln_hints_release(&hints);
}

static void more_than_the_bound_is_refused(void **state) {
    (void)state;
    const uint32_t count = KILN_HINTS_MAX + 1;
    size_t len = 17 + 33 * (size_t)count;
    unsigned char *bytes = calloc(1, len);
    memcpy(bytes, "kiln-hints-1", 13);
    bytes[15] = (unsigned char)(count >> 8);
    bytes[16] = (unsigned char)count;
    for (uint32_t i = 0; i < count; i++)
        memcpy(bytes + 18 + 33 * (size_t)i, &i, sizeof i);
    refused(bytes, len);
    struct kiln_hints hints = {0};
    bytes[15] = KILN_HINTS_MAX >> 8;
    bytes[16] = 0;
    assert_int_equal(kiln_hints_decode(bytes, len - 33, &hints, NULL), 0);
    assert_int_equal(hints.count, KILN_HINTS_MAX);
    kiln_hints_release(&hints);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_comes_back_in_its_order),
        cmocka_unit_test(an_action_is_named_once_and_the_list_is_bounded),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(more_than_the_bound_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
