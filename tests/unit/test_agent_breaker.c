#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "producer/agent/breaker.h"

static void it_opens_closes_and_lets_one_try(void **state) {
    (void)state;
    char reason[64];
    struct kiln_breaker *breaker = kiln_breaker_new(1000);
    assert_false(kiln_breaker_open(breaker, 5, reason, sizeof reason));
    kiln_breaker_trip(breaker, 10, "sandbox_unavailable: no bwrap");
    assert_true(kiln_breaker_open(breaker, 11, reason, sizeof reason));
    assert_string_equal(reason, "sandbox_unavailable: no bwrap");
    assert_true(kiln_breaker_open(breaker, 1009, reason, sizeof reason));
    assert_false(kiln_breaker_open(breaker, 1010, reason, sizeof reason)); // one tries
    assert_true(kiln_breaker_open(breaker, 1011, reason, sizeof reason));  // the others wait for it
    kiln_breaker_succeed(breaker);
    assert_false(kiln_breaker_open(breaker, 1012, reason, sizeof reason));
    kiln_breaker_free(breaker);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_opens_closes_and_lets_one_try)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
