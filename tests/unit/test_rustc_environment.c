#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rustc/environment.h"
#include "lib/rustc/paths.h"

enum class_of { FIXED = 1, UNIT = 2, CARRIED = 4, FORBIDDEN = 8, LINK_FORBIDDEN = 16 };

static void each_name_has_its_class(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int classes;
    } rows[] = {
        {"PATH", FIXED},        {"HOME", FIXED},          {"CARGO_MAKEFLAGS", FIXED}, {"CARGO", FIXED},
        {"OUT_DIR", UNIT},      {"CARGO_PKG_NAME", UNIT}, {"CARGO_BIN_EXE_x", UNIT},  {"CARGO_MANIFEST_DIR", UNIT},
        {"RUSTC_BOOTSTRAP", CARRIED}, {"SOURCE_DATE_EPOCH", CARRIED},                 {"CLIPPY_ARGS", CARRIED},
        {"RUSTC_LOG", FORBIDDEN}, {"LIBRARY_PATH", LINK_FORBIDDEN}, {"COMPILER_PATH", LINK_FORBIDDEN},
        {"SECRET_TOKEN", 0},    {"CARGO_REGISTRY_TOKEN", 0}, {"", 0}, {"CARGO_PKG", 0}, {"LD_PRELOAD", FIXED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int found = kiln_environment_is_fixed(rows[i].name) * FIXED + kiln_environment_is_unit(rows[i].name) * UNIT +
                    kiln_environment_is_carried(rows[i].name) * CARRIED;
        if (kiln_environment_forbids(rows[i].name, false))
            found |= FORBIDDEN;
        else if (kiln_environment_forbids(rows[i].name, true))
            found |= LINK_FORBIDDEN;
        if (found != rows[i].classes)
            print_error("%s\n", rows[i].name);
        assert_int_equal(found, rows[i].classes);
    }
}

static void fixed_values_name_no_client(void **state) {
    (void)state;
    char *value = NULL;
    assert_true(kiln_environment_fixed("PATH", &value));
    assert_string_equal(value, "/usr/bin");
    free(value);
    assert_true(kiln_environment_fixed("HOME", &value));
    assert_int_equal(strncmp(value, kiln_sandbox_root(), strlen(kiln_sandbox_root())), 0);
    free(value);
    assert_true(kiln_environment_fixed("LD_PRELOAD", &value));
    assert_null(value);
    assert_false(kiln_environment_fixed("ANYTHING", &value));
}

static void every_fixed_name_is_listed_once(void **state) {
    (void)state;
    unsigned count = 0;
    for (const char *name; (name = kiln_environment_fixed_name(count)); count++)
        for (unsigned other = 0; other < count; other++)
            assert_string_not_equal(name, kiln_environment_fixed_name(other));
    assert_true(count > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_name_has_its_class),
        cmocka_unit_test(fixed_values_name_no_client),
        cmocka_unit_test(every_fixed_name_is_listed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
