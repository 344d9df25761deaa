#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/package.h"
#include "lib/rustc/paths.h"
#include "tests/unit/sandbox_text.h"

#define REGISTRY "/home/u/.cargo/registry/src/index-1949cf8c"
#define CHECKOUTS "/home/u/.cargo/git/checkouts"

static const struct {
    const char *dir, *name, *version, *cwd, *source, *cargo_home;
    enum kiln_package_kind kind;
    const char *name_version, *mount, *sandbox_cwd, *remap_real, *remap_sandbox, *shown;
} good[] = {
    {REGISTRY "/serde-1.0.2", "serde", "1.0.2", REGISTRY "/serde-1.0.2", REGISTRY "/serde-1.0.2/src/lib.rs", NULL,
     KILN_PACKAGE_REGISTRY, "serde-1.0.2", "@/reg/serde-1.0.2", "@/reg/serde-1.0.2", REGISTRY "/serde-1.0.2",
     "@/reg/serde-1.0.2", "/kiln/serde-1.0.2"},
    {REGISTRY "/z-s-2.0.1+z.1-rc.2", "z-s", "2.0.1+z.1-rc.2", REGISTRY "/z-s-2.0.1+z.1-rc.2", "build.rs", "",
     KILN_PACKAGE_REGISTRY, "z-s-2.0.1+z.1-rc.2", "@/reg/z-s-2.0.1+z.1-rc.2", "@/reg/z-s-2.0.1+z.1-rc.2",
     REGISTRY "/z-s-2.0.1+z.1-rc.2", "@/reg/z-s-2.0.1+z.1-rc.2", "/kiln/z-s-2.0.1+z.1-rc.2"},
    {"/c/registry/src/i/a-1.0.0", "a", "1.0.0", "/c/registry/src/i/a-1.0.0", "/c/registry/src/i/a-1.0.0/lib.rs", "/x/../c/",
     KILN_PACKAGE_REGISTRY, "a-1.0.0", "@/reg/a-1.0.0", "@/reg/a-1.0.0", "/c/registry/src/i/a-1.0.0", "@/reg/a-1.0.0",
     "/kiln/a-1.0.0"},
    {CHECKOUTS "/bits-0a1b/77aabbc", "bits", "0.1.0", CHECKOUTS "/bits-0a1b/77aabbc",
     CHECKOUTS "/bits-0a1b/77aabbc/src/lib.rs", NULL, KILN_PACKAGE_GIT, "bits-0.1.0-git-77aabbc", "@/git/bits-0a1b/77aabbc",
     "@/git/bits-0a1b/77aabbc", CHECKOUTS "/bits-0a1b/77aabbc", "@/git/bits-0a1b/77aabbc", "/kiln/bits-0.1.0-git-77aabbc"},
    {CHECKOUTS "/bits-0a1b/77aabbc/sub/deep", "sub", "0.1.0", CHECKOUTS "/bits-0a1b/77aabbc/sub/deep",
     CHECKOUTS "/bits-0a1b/77aabbc/sub/deep/lib.rs", NULL, KILN_PACKAGE_GIT, "sub-0.1.0-git-77aabbc",
     "@/git/bits-0a1b/77aabbc/sub/deep", "@/git/bits-0a1b/77aabbc/sub/deep", CHECKOUTS "/bits-0a1b/77aabbc",
     "@/git/bits-0a1b/77aabbc", "/kiln/sub-0.1.0-git-77aabbc"},
    {CHECKOUTS "/bits-0a1b/77aabbc/sub", "sub", "0.1.0", CHECKOUTS "/bits-0a1b/77aabbc", "sub/src/main.rs", NULL,
     KILN_PACKAGE_GIT, "sub-0.1.0-git-77aabbc", "@/git/bits-0a1b/77aabbc/sub", "@/git/bits-0a1b/77aabbc",
     CHECKOUTS "/bits-0a1b/77aabbc", "@/git/bits-0a1b/77aabbc", "/kiln/sub-0.1.0-git-77aabbc"},
    {"/home/u/ws/crates/a", "a", "0.1.0", "/home/u/ws", "crates/a/src/lib.rs", NULL, KILN_PACKAGE_MEMBER, "a-0.1.0-ws",
     "@/ws/crates/a", "@/ws", "/home/u/ws", "@/ws", "/kiln/a-0.1.0-ws"},
    {"/home/u/ws", "root", "0.1.0", "/home/u/ws", "src/main.rs", NULL, KILN_PACKAGE_MEMBER, "root-0.1.0-ws", "@/ws", "@/ws",
     "/home/u/ws", "@/ws", "/kiln/root-0.1.0-ws"},
    {"/home/u/a b", "root", "0.1.0", "/home/u/a b", "src/./x/../main.rs", NULL, KILN_PACKAGE_MEMBER, "root-0.1.0-ws", "@/ws",
     "@/ws", "/home/u/a b", "@/ws", "/kiln/root-0.1.0-ws"},
    {"/home/u/ext", "ext", "0.3.0", "/home/u/ext", "/home/u/ext/src/lib.rs", NULL, KILN_PACKAGE_PATH, "ext-0.3.0-path",
     "@/path/ext-0.3.0", "@/path/ext-0.3.0", "/home/u/ext", "@/path/ext-0.3.0", "/kiln/ext-0.3.0-path"},
    {REGISTRY "/serde-1.0.2", "serde", "1.0.2", REGISTRY "/serde-1.0.2", REGISTRY "/serde-1.0.2/src/lib.rs", "/other",
     KILN_PACKAGE_PATH, "serde-1.0.2-path", "@/path/serde-1.0.2", "@/path/serde-1.0.2", REGISTRY "/serde-1.0.2",
     "@/path/serde-1.0.2", "/kiln/serde-1.0.2-path"},
};

static void assert_expands(const char *got, const char *want) {
    kiln_autofree char *text = expand(want);
    assert_non_null(got);
    assert_string_equal(got, text);
}

static void test_good(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const struct kiln_package_query query = {.manifest_dir = good[i].dir, .name = good[i].name, .version = good[i].version,
                                                 .crate_name = "x", .cargo_home = good[i].cargo_home, .home = "/home/u",
                                                 .cwd = good[i].cwd, .source = good[i].source};
        kiln_autopackage struct kiln_package package = {0};
        assert_int_equal(kiln_package_classify(&query, &package, NULL), 0);
        if (package.kind != good[i].kind)
            fail_msg("row %zu: kind %d (%s)", i, package.kind, package.reason ? package.reason : "");
        assert_null(package.reason);
        assert_string_equal(package.name_version, good[i].name_version);
        assert_string_equal(package.dir, good[i].dir);
        assert_expands(package.mount, good[i].mount);
        assert_expands(package.cwd, good[i].sandbox_cwd);
        assert_string_equal(package.remap_real, good[i].remap_real);
        assert_expands(package.remap_sandbox, good[i].remap_sandbox);
        assert_string_equal(package.shown, good[i].shown);
        kiln_autopathmap struct kiln_path_map map = {0};
        assert_int_equal(kiln_path_map_add(&map, package.remap_real, package.remap_sandbox, package.shown, NULL), 0);
    }
}

static void test_names(void **state) {
    (void)state;
    static const char edges[] = "AZaz09._+-";
    struct kiln_package_query query = {.manifest_dir = "/w", .name = edges, .version = edges, .crate_name = "x",
                                       .home = "/home/u", .cwd = "/w", .source = "a.rs"};
    kiln_autopackage struct kiln_package package = {0};
    assert_int_equal(kiln_package_classify(&query, &package, NULL), 0);
    assert_int_equal(package.kind, KILN_PACKAGE_MEMBER);
    kiln_package_release(&package);
    char longest[KILN_PACKAGE_NAME_MAX - 1];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    query.name = longest;
    query.version = "1";
    assert_int_equal(kiln_package_classify(&query, &package, NULL), 0);
    assert_int_equal(package.kind, KILN_PACKAGE_MEMBER);
    kiln_package_release(&package);
    query.version = "12";
    assert_int_equal(kiln_package_classify(&query, &package, NULL), 0);
    assert_int_equal(package.kind, KILN_PACKAGE_OTHER);
    for (const char *odd = "/@[`{:="; *odd; odd++) {
        query.version = (char[]){'1', *odd, 0};
        assert_int_equal(kiln_package_classify(&query, &package, NULL), 0);
        assert_int_equal(package.kind, KILN_PACKAGE_OTHER);
    }
}

#define LONG_64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void test_other(void **state) {
    (void)state;
    static const struct kiln_package_query table[] = {
        {NULL, "a", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", NULL, "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", NULL, "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "1.0.0", NULL, NULL, "/home/u", "/w", "a.rs"}, // a build script's probe
        {"/w", "", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a/b", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "..", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "-a", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "1.0.0=/x", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "../1", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "1 0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "a", "1\n0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "\xc3\xa9", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w", "abcdefgh", LONG_64 LONG_64 LONG_64, "a", NULL, "/home/u", "/w", "a.rs"},
        {"w", "a", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/", "a", "1.0.0", "a", NULL, "/home/u", "/", "a.rs"},
        {"/w/../w", "a", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w/", "a", "1.0.0", "a", NULL, "/home/u", "/w", "a.rs"},
        {"/w=x", "a", "1.0.0", "a", NULL, "/home/u", "/w=x", "a.rs"},
        {"/w\n", "a", "1.0.0", "a", NULL, "/home/u", "/w\n", "a.rs"},
        {"/w", "a", "1.0.0", "a", NULL, "/home/u", "w", "a.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w", "b/src/lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w", "a/../b/lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w", "../../../../etc/x.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w/a", "/w/b/lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w/a", "/w/ab/lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w", "/w/a/lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w/a/src", "lib.rs"},
        {"/w/a", "a", "1.0.0", "a", NULL, "/home/u", "/w/a", "/w/a"},
        {REGISTRY "/a-1.0.1", "a", "1.0.0", "a", NULL, "/home/u", REGISTRY "/a-1.0.1", REGISTRY "/a-1.0.1/lib.rs"},
        {REGISTRY "/x/a-1.0.0", "a", "1.0.0", "a", NULL, "/home/u", REGISTRY "/x/a-1.0.0", REGISTRY "/x/a-1.0.0/lib.rs"},
        {REGISTRY "/a-1.0.0/sub", "a", "1.0.0", "a", NULL, "/home/u", REGISTRY "/a-1.0.0/sub",
         REGISTRY "/a-1.0.0/sub/lib.rs"},
        {REGISTRY, "a", "1.0.0", "a", NULL, "/home/u", REGISTRY, "lib.rs"},
        {REGISTRY "/a-1.0.0", "a", "1.0.0", "a", NULL, "/home/u", REGISTRY, REGISTRY "/a-1.0.0/lib.rs"},
        {CHECKOUTS "/co", "a", "1.0.0", "a", NULL, "/home/u", CHECKOUTS "/co", "lib.rs"},
        {CHECKOUTS "/c o/rev", "a", "1.0.0", "a", NULL, "/home/u", CHECKOUTS "/c o/rev", "lib.rs"},
        {CHECKOUTS "/co/re:v", "a", "1.0.0", "a", NULL, "/home/u", CHECKOUTS "/co/re:v", "lib.rs"},
        {CHECKOUTS "/co/.rev", "a", "1.0.0", "a", NULL, "/home/u", CHECKOUTS "/co/.rev", "lib.rs"},
        {CHECKOUTS "/co/rev/a", "a", "1.0.0", "a", NULL, "/home/u", CHECKOUTS "/co", CHECKOUTS "/co/rev/a/lib.rs"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autopackage struct kiln_package package = {0};
        assert_int_equal(kiln_package_classify(&table[i], &package, NULL), 0);
        if (package.kind != KILN_PACKAGE_OTHER)
            fail_msg("row %zu: kind %d", i, package.kind);
        assert_non_null(package.reason);
        assert_null(package.dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
