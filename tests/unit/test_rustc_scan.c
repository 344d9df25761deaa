#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/lexer.h"
#include "lib/rustc/scan.h"

// Tokens as text: kind letter and contents, joined by spaces.
static void lex(const char *data, size_t len, struct kiln_buf *out) {
    static const char kinds[] = {[KILN_TOKEN_IDENT] = 'i', [KILN_TOKEN_LIFETIME] = 'l', [KILN_TOKEN_STRING] = 's',
                                 [KILN_TOKEN_CHAR] = 'c',  [KILN_TOKEN_NUMBER] = 'n',   [KILN_TOKEN_PUNCT] = 'p'};
    struct kiln_lexer lexer;
    struct kiln_token token;
    kiln_lexer_init(&lexer, data, len);
    for (;;) {
        kiln_lexer_next(&lexer, &token);
        if (token.kind == KILN_TOKEN_END)
            break;
        if (out->len)
            kiln_buf_add_str(out, " ");
        bool odd_string = token.kind == KILN_TOKEN_STRING && !token.plain;
        kiln_buf_addf(out, "%c:%.*s", odd_string ? 'o' : kinds[token.kind], (int)token.len, token.text);
    }
}

static void test_lexer(void **state) {
    (void)state;
    static const struct {
        const char *source, *tokens;
    } table[] = {
        {"", ""},
        {"a1_ 12u8 0x1f 1.5e3", "i:a1_ n:12u8 n:0x1f n:1 p:. n:5e3"},
        {"a//b\nc/*d*/e/**/f", "i:a i:c i:e i:f"},
        {"a /* b /* c */ d */ e", "i:a i:e"},
        {"a /* b /* c */ d", "i:a"},
        {"a /*/ b */ c", "i:a i:c"},
        {"/", "p:/"},
        {"\"a\" \"b\\\"c\" \"\\\\\" d", "s:a s:b\\\"c s:\\\\ i:d"},
        {"\"// no comment\" \"/*\" x", "s:// no comment s:/* i:x"},
        {"r\"a\\\" r#\"b\"c\"# r##\"d\"#e\"## r\"\"", "s:a\\ s:b\"c s:d\"#e s:"},
        {"b\"a\" br\"b\\\" br#\"c\"# c\"d\" cr\"e\" cr#\"f\"#", "o:a o:b\\ o:c o:d o:e o:f"},
        {"r#env r#\"env\"# r #x br#x", "i:env s:env i:r p:# i:x i:br p:# i:x"},
        {"bar\"a\" rb\"b\" x'y'", "i:bar s:a i:rb s:b i:x c:'y'"},
        {"'a' 'a 'static '\\'' '\\\\' '\\u{41}' b'x' b'\\'' '\"' \"z\"",
         "c:'a' l:'a l:'static c:'\\'' c:'\\\\' c:'\\u{41}' c:'x' c:'\\'' c:'\"' s:z"},
        {"<'a,'b>(&'a str,'c')", "p:< l:'a p:, l:'b p:> p:( p:& l:'a i:str p:, c:'c' p:)"},
        {"'\xc3\xa9' '\xc3\xa9 'r#in '\xf0\x9f\x98\x80' '('", "c:'\xc3\xa9' l:'\xc3\xa9 l:'r#in c:'\xf0\x9f\x98\x80' c:'('"},
        {"'''", "c:'''"},
        {"'\n\"a\"", "c:'\n s:a"},
        {"\xef\xbb\xbf" "a", "i:a"},
        {"#!/bin/env run\"\na", "i:a"},
        {"#! [a] b", "p:# p:! p:[ i:a p:] i:b"},
        {"#! /* x */ // y\n [a]", "p:# p:! p:[ i:a p:]"},
        {"x #!y\nz", "i:x p:# p:! i:y i:z"},
        {"a\xe2\x80\xa8" "b\xc2\x85" "c\xe2\x80\x8e" "d\xe2\x80\x9c", "i:a i:b i:c i:d\xe2\x80\x9c"},
        {"\"open", "s:open"},
        {"\"open\\", "s:open\\"},
        {"r##\"open\"#", "s:open\"#"},
        {"'\\", "c:'\\"},
        {"'", "c:'"},
        {"b'", "c:'"},
        {"r#", "i:r p:#"},
        {"\x01\x7f", "p:\x01 p:\x7f"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
        lex(table[i].source, strlen(table[i].source), &out);
        if (strcmp(kiln_buf_text(&out), table[i].tokens) != 0)
            fail_msg("row %zu: %s", i, kiln_buf_text(&out));
    }
}

// rustc takes up to 255 '#' around a raw string.
static void test_hashes(void **state) {
    (void)state;
    for (size_t hashes = 254; hashes <= 256; hashes++) {
        kiln_autobuf struct kiln_buf source = KILN_BUF_INIT(4096);
        kiln_buf_add_str(&source, "r");
        for (size_t i = 0; i < hashes; i++)
            kiln_buf_add_str(&source, "#");
        kiln_buf_add_str(&source, "\"a\"");
        for (size_t i = 0; i < hashes; i++)
            kiln_buf_add_str(&source, "#");
        kiln_buf_add_str(&source, " b");
        struct kiln_lexer lexer;
        struct kiln_token token;
        kiln_lexer_init(&lexer, source.data, source.len);
        kiln_lexer_next(&lexer, &token);
        assert_int_equal(token.kind, hashes <= 255 ? KILN_TOKEN_STRING : KILN_TOKEN_IDENT);
        kiln_lexer_next(&lexer, &token);
        assert_int_equal(token.kind, hashes <= 255 ? KILN_TOKEN_IDENT : KILN_TOKEN_PUNCT);
    }
}

static void test_value(void **state) {
    (void)state;
    static const struct {
        const char *source, *value;
    } table[] = {
        {"\"plain\"", "plain"},
        {"\"\\n\\r\\t\\\\\\\"\\'\\x41\\x7f\"", "\n\r\t\\\"'A\x7f"},
        {"\"\\u{41}\\u{e9}\\u{20AC}\\u{1_F600}\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\"a\\\n   \t\n b\\\r\n  c\"", "abc"},
        {"\"\\q\\xg\\x4\\u\\u{\\u{110000}\\u{41\"", "\\q\\xg\\x4\\u\\u{\\u{110000}\\u{41"},
        {"r\"\\n\"", "\\n"},
        {"b\"\\xff\"", "\xff"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
        struct kiln_lexer lexer;
        struct kiln_token token;
        kiln_lexer_init(&lexer, table[i].source, strlen(table[i].source));
        kiln_lexer_next(&lexer, &token);
        assert_int_equal(token.kind, KILN_TOKEN_STRING);
        kiln_token_value(&token, &out);
        if (strcmp(kiln_buf_text(&out), table[i].value) != 0)
            fail_msg("row %zu: %s", i, kiln_buf_text(&out));
    }
}

enum { USED = 1, VALUE = 2, COMPUTED = 4 };

static const struct row {
    const char *source, *names; // joined by commas
    unsigned flags;
} rows[] = {
    {"", "", 0},
    {"env!(\"A\") option_env!(\"B\") env![\"C\"] env!{\"D\"} std::env!(\"E\") ::core::option_env! ( \"F\" )", "A,B,C,D,E,F", 0},
    {"env!(\"B\") env!(\"A\") env!(\"B\") env!(\"A\")", "A,B", 0},
    {"env!(\"A\",) env!(\"B\", \"message\") env! /* c */ ( // d\n \"C\" /* e */ , \"m\")", "A,B,C", 0},
    {"env!(r\"A\") env!(r#\"B\"#) env!(\"\\x43\") r#env!(\"D\") env!(\"\\u{45}\")", "A,B,C,D,E", 0},
    {"macro_rules! m { () => { env!(\"A\") }; } quote! { option_env!(\"B\") }", "A,B", 0},
    {"// env!(\"A\")\n/* env!(\"B\") /* */ env!(\"C\") */ \"env!(\\\"D\\\")\" r#\"env!(\"E\")\"#", "", 0},
    {"my_env!(\"A\") env(\"B\") env != (\"C\") environment!(\"D\") env!{}", "", COMPUTED},
    {"env!($x)", "", COMPUTED},
    {"macro_rules! m { ($n:literal) => { option_env!($n) } }", "", COMPUTED},
    {"env!(concat!(\"A\", \"B\"))", "", COMPUTED},
    {"env!(stringify!(A))", "", COMPUTED},
    {"env!(\"A\" \"B\")", "A", COMPUTED},
    {"env!(\"A\".len())", "A", COMPUTED},
    {"env!(b\"A\")", "", COMPUTED},
    {"env!()", "", COMPUTED},
    {"env!(\"\")", "", COMPUTED},
    {"env!(\"A=B\")", "", COMPUTED},
    {"env!(\"A\\0\")", "", COMPUTED},
    {"env!(\"A\"", "A", 0},
    {"env!(", "", COMPUTED},
    {"fn env<T>(x: T) -> T { x } let c = 'x'; env!(\"A\")", "A", 0},
    {"let c = '\"'; env!(\"A\"); let d = '\"';", "A", 0},
    {"fn f<'a>() { env!(\"A\") } // '", "A", 0},
    {"include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"));", "OUT_DIR", USED},
    {"include_str![concat!{env!(\"OUT_DIR\"), \"/x.rs\"}]", "OUT_DIR", USED},
    {"std::include_bytes! { std::concat! ( core::env! [ \"OUT_DIR\" , \"m\" ] , \"/x\" , ) }", "OUT_DIR", USED},
    {"include!(concat!(concat!(env!(r\"OUT_DIR\"), \"/a\"), \"/b\"))", "OUT_DIR", USED},
    {"include!(env!(\"OUT_DIR\"))", "OUT_DIR", USED},
    {"macro_rules! m { ($f:expr) => { include!(concat!(env!(\"OUT_DIR\"), $f)); } }", "OUT_DIR", USED},
    {"include!(concat!(\"/x\", env!(\"OUT_DIR\")))", "OUT_DIR", USED},
    {"include!(env!(\"X\"))", "X", 0},
    {"include!(concat!(env!(\"OUT_DIR\"), env!(\"X\")))", "OUT_DIR,X", USED},
    {"include!(concat!(env!(\"OUT_DIR\"), \"/x\")); const D: &str = env!(\"OUT_DIR\");", "OUT_DIR", USED | VALUE},
    {"const D: &str = env!(\"OUT_DIR\");", "OUT_DIR", USED | VALUE},
    {"macro_rules! d { () => { env!(\"OUT_DIR\") } }", "OUT_DIR", USED | VALUE},
    {"env!(\"OUT\\x5fDIR\")", "OUT_DIR", USED | VALUE},
    {"concat!(env!(\"OUT_DIR\"), \"/x\")", "OUT_DIR", USED | VALUE},
    {"include!(wrap!(env!(\"OUT_DIR\")))", "OUT_DIR", USED | VALUE},
    {"include!(concat!(wrap!(env!(\"OUT_DIR\"))))", "OUT_DIR", USED | VALUE},
    {"include!((env!(\"OUT_DIR\")))", "OUT_DIR", USED | VALUE},
    {"include!(option_env!(\"OUT_DIR\"))", "OUT_DIR", USED | VALUE},
    {"include(env!(\"OUT_DIR\"))", "OUT_DIR", USED | VALUE},
    {"my_include!(concat!(env!(\"OUT_DIR\")))", "OUT_DIR", USED | VALUE},
    {"include!(\"a.rs\"); env!(\"OUT_DIR\")", "OUT_DIR", USED | VALUE},
    {"option_env!(\"OUT_DIR\")", "OUT_DIR", USED | VALUE},
    {"my!(\"OUT_DIR\")", "", USED | VALUE},
    {"my!(f(b\"OUT_DIR\"))", "", USED | VALUE},
    {"my!(\"OUT\\\n  _DIR\")", "", USED | VALUE},
    {"#[my(dir = \"OUT_DIR\")] struct S;", "", USED | VALUE},
    {"#![my(\"OUT_DIR\")]", "", USED | VALUE},
    {"macro_rules! m { () => { f(\"OUT_DIR\") } }", "", USED | VALUE},
    {"macro_rules! m { () => {} } f(\"OUT_DIR\") [\"OUT_DIR\"]", "", USED},
    {"#[a] fn g() { if !(x()) { f(\"OUT_DIR\") } else { !{ \"OUT_DIR\" } } }", "", USED},
    {"a!(b) c![d] e!{f} g(\"OUT_DIR\")", "", USED},
    {"std::env::var(\"OUT_DIR\") env::var_os(\"OUT_DIR\")", "", USED},
    {"env::var(\"OUT_DIR\"); x == \"OUT_DIR\"", "", USED},
    {"println!(\"{}\", env::var(\"OUT_DIR\"))", "", USED},
    {"println!(\"{:?}\", env::var_os(\"OUT_DIR\"))", "", USED},
    {"println!(\"{}\", \"OUT_DIR\")", "", USED | VALUE},
    {"var!(\"OUT_DIR\")", "", USED | VALUE},
    {"my!(env::var(x, \"OUT_DIR\"))", "", USED | VALUE},
    {"OUT_DIR 'O' \"OUT_DIR/x\" \"$OUT_DIR\" // \"OUT_DIR\"", "", 0},
    {"} ) ] env!(\"A\") ) include!(concat!(env!(\"OUT_DIR\"), 1)", "A,OUT_DIR", USED},
};

static void join(const struct kiln_scan_facts *facts, struct kiln_buf *out) {
    for (size_t i = 0; i < facts->env_count; i++) {
        if (i)
            kiln_buf_add_str(out, ",");
        kiln_buf_add_str(out, facts->env_names[i]);
    }
}

static void test_facts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autoscan struct kiln_scan_facts facts = {0};
        kiln_autobuf struct kiln_buf names = KILN_BUF_INIT(4096);
        assert_int_equal(kiln_scan_source(rows[i].source, strlen(rows[i].source), &facts, NULL), 0);
        kiln_scan_finish(&facts);
        join(&facts, &names);
        unsigned flags = (facts.out_dir_used ? USED : 0u) | (facts.out_dir_as_value ? VALUE : 0u) |
                         (facts.env_computed ? COMPUTED : 0u);
        if (strcmp(kiln_buf_text(&names), rows[i].names) != 0 || flags != rows[i].flags)
            fail_msg("row %zu: names %s flags %u: %s", i, kiln_buf_text(&names), flags, rows[i].source);
    }
}

static void test_several_files(void **state) {
    (void)state;
    kiln_autoscan struct kiln_scan_facts facts = {0};
    static const char *const files[] = {"env!(\"B\")", "include!(", "env!(\"OUT_DIR\")", "env!(\"A\")", "env!(\"B\")"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        assert_int_equal(kiln_scan_source(files[i], strlen(files[i]), &facts, NULL), 0);
    kiln_scan_finish(&facts);
    kiln_autobuf struct kiln_buf names = KILN_BUF_INIT(4096);
    join(&facts, &names);
    assert_string_equal(kiln_buf_text(&names), "A,B,OUT_DIR");
    assert_true(facts.out_dir_as_value);
}

// Inputs that a careless lexer reads again and again, at a size where that would not end.
static void test_linear(void **state) {
    (void)state;
    static const char *const units[] = {"/*", "r#\"", "\\\"", "\"####", "(", "'", "env!(\"A\")", "env!(", "r######\"\"####", "b'\\"};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(9u << 20);
        while (text.len < 8u << 20)
            kiln_buf_add_str(&text, units[u]);
        kiln_autoscan struct kiln_scan_facts facts = {0};
        assert_int_equal(kiln_scan_source(text.data, text.len, &facts, NULL), 0);
        kiln_scan_finish(&facts);
    }
}

static struct {
    struct kiln_scan_facts facts;
    size_t files, bytes, computed, out_dir, value;
    int64_t ns;
} corpus;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int scan_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)ftw;
    size_t len = strlen(path);
    if (flag != FTW_F || st->st_size == 0 || len < 3 || strcmp(path + len - 3, ".rs") != 0)
        return 0;
    kiln_autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *data = fd < 0 ? MAP_FAILED : mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED)
        return -1;
    struct kiln_scan_facts facts = {0};
    int64_t start = now_ns();
    int rc = kiln_scan_source(data, (size_t)st->st_size, &facts, NULL);
    corpus.ns += now_ns() - start;
    corpus.files++;
    corpus.bytes += (size_t)st->st_size;
    corpus.computed += facts.env_computed;
    corpus.out_dir += facts.out_dir_used;
    corpus.value += facts.out_dir_as_value;
    kiln_scan_release(&facts);
    munmap(data, (size_t)st->st_size);
    return rc;
}

static char *registry(void) {
    const char *cargo_home = getenv("CARGO_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int rc = cargo_home ? asprintf(&path, "%s/registry/src", cargo_home)
                        : asprintf(&path, "%s/.cargo/registry/src", home ? home : "");
    return rc < 0 ? NULL : path;
}

static void test_registry(void **state) {
    (void)state;
    kiln_autofree char *path = registry();
    assert_int_equal(nftw(path, scan_entry, 32, FTW_PHYS), 0);
    assert_true(corpus.files > 0);
    print_message("%zu files, %zu bytes, %.0f MB/s; OUT_DIR in %zu, as a value in %zu, computed names in %zu\n",
                  corpus.files, corpus.bytes, (double)corpus.bytes * 1e3 / (double)(corpus.ns ? corpus.ns : 1),
                  corpus.out_dir, corpus.value, corpus.computed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lexer), cmocka_unit_test(test_hashes),        cmocka_unit_test(test_value),
        cmocka_unit_test(test_facts), cmocka_unit_test(test_several_files), cmocka_unit_test(test_linear),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(test_registry),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed)
        return failed;
    kiln_autofree char *path = registry();
    if (!path || access(path, R_OK)) {
        printf("skip: no registry sources at %s\n", path ? path : "(none)");
        return 77;
    }
    return cmocka_run_group_tests(real, NULL, NULL);
}
