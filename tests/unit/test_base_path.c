#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/path.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void relative_paths(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int code;
    } cases[] = {
        {"a", 0},
        {"a/b.c/d-e", 0},
        {"..a/b..", 0},
        {"...", 0},
        {".hidden/.x", 0},
        {"sp ace/\xc3\xa9", 0},
        {"", KILN_E_INVAL},
        {"/a", KILN_E_INVAL},
        {"a/", KILN_E_INVAL},
        {"a//b", KILN_E_INVAL},
        {".", KILN_E_INVAL},
        {"a/./b", KILN_E_INVAL},
        {"..", KILN_E_INVAL},
        {"a/../b", KILN_E_INVAL},
        {"a/..", KILN_E_INVAL},
        {"a\nb", KILN_E_INVAL},
        {"a\x01", KILN_E_INVAL},
        {"a\x1f", KILN_E_INVAL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct kiln_err err = {0};
        if (kiln_path_check_relative(cases[i].path, &err) != cases[i].code)
            fail_msg("\"%s\": %s", cases[i].path, err.text);
    }
}

static char *repeat(const char *piece, size_t times) {
    char *text = calloc(times, strlen(piece) + 1);
    assert_non_null(text);
    for (size_t i = 0; i < times; i++)
        strcat(text, piece);
    return text;
}

static void limits(void **state) {
    (void)state;
    static const struct {
        const char *piece;
        size_t times;
        const char *tail;
        int code;
    } cases[] = {
        {"a", 255, "", 0},
        {"a", 256, "", KILN_E_INVAL},
        {"a/", 127, "a", 0},
        {"a/", 128, "a", KILN_E_INVAL},
        {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde/", 63, "abcdefghijklmnopqrstuvwxyz", 0},
        {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde/", 64, "a", KILN_E_INVAL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *head = repeat(cases[i].piece, cases[i].times);
        char *path = malloc(strlen(head) + strlen(cases[i].tail) + 1);
        assert_non_null(path);
        strcat(strcpy(path, head), cases[i].tail);
        assert_int_equal(kiln_path_check_relative(path, NULL), cases[i].code);
        free(path);
        free(head);
    }
}

static void absolute_paths(void **state) {
    (void)state;
    assert_int_equal(kiln_path_check_absolute("/", NULL), 0);
    assert_int_equal(kiln_path_check_absolute("/a/b", NULL), 0);
    static const char *const refused[] = {"", "a", "//", "/a/", "/a/../b", "/.", "/a//b"};
    for (size_t i = 0; i < COUNT(refused); i++)
        assert_int_equal(kiln_path_check_absolute(refused[i], NULL), KILN_E_INVAL);
}

static void join(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"/a", "b", "/a/b"}, {"/a/", "b", "/a/b"}, {"/", "b", "/b"}, {"/a", "/b", "/b"}, {"", "b", "b"}, {"x", "", "x/"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *joined = kiln_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
}

static void normalize(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"/", "/"},           {"//", "/"},         {"/a/b", "/a/b"},      {"/a//b/", "/a/b"}, {"/a/./b/.", "/a/b"},
        {"/a/../b", "/b"},    {"/a/b/../..", "/"}, {"/a/..b/...", "/a/..b/..."}, {"/..", NULL},      {"/a/../..", NULL},
        {"/a/../../b", NULL}, {"a/b", NULL},       {"", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *normal = kiln_path_normalize(cases[i][0]);
        if (cases[i][1])
            assert_string_equal(normal, cases[i][1]);
        else
            assert_null(normal);
        free(normal);
    }
}

static void beneath(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"/a/b/c", "/a/b", "c"}, {"/a/b", "/a/b", ""},      {"/a/bc", "/a/b", NULL}, {"/a", "/a/b", NULL},
        {"/a/b", "/a/", "b"},    {"/a//b", "/a", "b"},      {"/a", "/", "a"},        {"/", "/", ""},
        {"a/b", "a", "b"},       {"/a/b", "", NULL},        {"a", "/", NULL},        {"/ab/c", "/a", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *rest = kiln_path_beneath(cases[i][0], cases[i][1]);
        if (cases[i][2])
            assert_string_equal(rest, cases[i][2]);
        else
            assert_null(rest);
    }
}

static void base_and_dir(void **state) {
    (void)state;
    static const char *const cases[][3] = {{"/a/b", "b", "/a"}, {"/a", "a", "/"},      {"a", "a", "."},
                                           {"a/b", "b", "a"},   {"/a//b", "b", "/a"},  {"/", "", "/"},
                                           {"//b", "b", "/"},   {"a/b/", "", "a/b"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_string_equal(kiln_path_base(cases[i][0]), cases[i][1]);
        char *dir = kiln_path_dir(cases[i][0]);
        assert_string_equal(dir, cases[i][2]);
        free(dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relative_paths), cmocka_unit_test(limits),  cmocka_unit_test(absolute_paths),
        cmocka_unit_test(join),           cmocka_unit_test(normalize), cmocka_unit_test(beneath),
        cmocka_unit_test(base_and_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
