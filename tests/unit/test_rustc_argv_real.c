// What argv.h says of rustc, asked of the rustc on this machine: which files are left, which lines are refused, which
// flags exist, how targets call their files. Skipped without a rustc.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/proc.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/argv_table.h"
#include "lib/rustc/argv_target.h"

#define WORDS_MAX 128
#define RUN_MS_MAX 60000

static char *rustc;    // path of the compiler
static char *work_dir; // sources, and "o" for outputs
static bool is_1_95;

extern char **environ;

static const struct {
    const char *name, *text;
} sources[] = {
    {"gen.rs", "pub fn f<T: std::fmt::Debug>(t: T) -> String { format!(\"{:?}\", t) }\n"
               "pub mod a { pub fn g() -> String { super::f(1u8) } }\n"
               "pub mod b { #[derive(Debug)] pub struct S; pub fn g() -> String { super::f(S) } }\n"
               "#[no_mangle] pub extern \"C\" fn cc() -> i32 { a::g().len() as i32 }\n"
               "#[allow(dead_code)] fn main() { println!(\"{}{}\", a::g(), b::g()) }\n"},
    {"empty.rs", ""},
    {"macro.rs", "extern crate proc_macro;\n"
                 "#[proc_macro] pub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }\n"},
    {"long.rs", "type A = (i32, i32, i32, i32); type B = (A, A, A, A); type C = (B, B, B, B); type D = (C, C, C, C);\n"
                "pub fn n(x: &(D, D, D)) { std::mem::drop(x) }\n"},
    {"nocore.rs", "#![allow(internal_features)]\n#![feature(no_core, lang_items)]\n#![no_core]\n"
                  "#[lang = \"pointee_sized\"] trait PointeeSized {}\n"
                  "#[lang = \"meta_sized\"] trait MetaSized: PointeeSized {}\n"
                  "#[lang = \"sized\"] trait Sized: MetaSized {}\n#[no_mangle] extern \"C\" fn cc() {}\n"},
    {"args", "--crate-type\r\nlib\r\n--out-dir\no\ngen.rs"},
};

struct words {
    char *items[WORDS_MAX];
    size_t count;
};

static void words_release(struct words *words) {
    for (size_t i = 0; i < words->count; i++)
        free(words->items[i]);
}
#define autowords __attribute__((cleanup(words_release)))

static int add_word(void *context, const char *word, struct kiln_err *err) {
    (void)err;
    struct words *words = context;
    assert_true(words->count < WORDS_MAX - 1);
    words->items[words->count++] = strdup(word);
    words->items[words->count] = NULL;
    return 0;
}

static void split(const char *text, struct words *words) {
    kiln_autofree char *copy = strdup(text);
    char *rest = copy, *word;
    while ((word = strsep(&rest, " ")))
        if (*word)
            add_word(words, word, NULL);
}

// Exit status; what was printed goes to *out and *errout.
static int run(const struct words *words, bool bootstrap, struct kiln_buf *out, struct kiln_buf *errout) {
    static char unstable[] = "RUSTC_BOOTSTRAP=1";
    char *env[1024];
    size_t count = 0;
    // rustup's own variables stay: they lead to the compiler.
    for (char **at = environ; *at && count < 1000; at++)
        if (strncmp(*at, "RUSTC", 5) && strncmp(*at, "RUST_", 5))
            env[count++] = *at;
    if (bootstrap)
        env[count++] = unstable;
    env[count] = NULL;
    const struct kiln_proc_options options = {.program = rustc, .argv = words->items, .envp = env, .cwd = work_dir};
    struct kiln_err err = {0};
    int status;
    if (kiln_proc_run(&options, kiln_clock_ms() + RUN_MS_MAX, out, errout, &status, &err))
        fail_msg("%s", err.text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int run_text(const char *line, bool bootstrap, struct kiln_buf *out) {
    autowords struct words words = {0};
    kiln_autobuf struct kiln_buf errout = KILN_BUF_INIT(1 << 22);
    add_word(&words, rustc, NULL);
    split(line, &words);
    return run(&words, bootstrap, out, &errout);
}

static char *out_path(const char *name) {
    char *path;
    assert_true(asprintf(&path, "%s/o/%s", work_dir, name) > 0);
    return path;
}

static void empty_out_dir(void) {
    kiln_autofree char *dir = out_path("");
    DIR *stream = opendir(dir);
    assert_non_null(stream);
    for (struct dirent *entry; (entry = readdir(stream));)
        if (entry->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(stream), entry->d_name, 0), 0);
    closedir(stream);
}

static char *place_same(void *context, const struct kiln_arg *arg) {
    (void)context;
    return strdup(arg->path);
}

static void parse(const char *line, const struct kiln_argv_options *options, struct kiln_rustc_call *call) {
    autowords struct words words = {0};
    split(line, &words);
    struct kiln_err err = {0};
    if (kiln_rustc_parse(words.count, words.items, options, call, &err))
        fail_msg("%s: %s", line, err.text);
}

// Each file that is there was expected, each required one is there, with the right mode.
static void compare_out_dir(const char *line, const struct kiln_rustc_call *call) {
    struct kiln_expected_output *outputs;
    size_t count, found_prefix = 0;
    assert_int_equal(kiln_rustc_outputs(call, &outputs, &count, NULL), 0);
    kiln_autofree char *dir = out_path("");
    DIR *stream = opendir(dir);
    assert_non_null(stream);
    for (struct dirent *entry; (entry = readdir(stream));) {
        size_t k = 0;
        if (entry->d_name[0] == '.')
            continue;
        while (k < count && (outputs[k].prefix ? strncmp(outputs[k].name, entry->d_name, strlen(outputs[k].name))
                                               : strcmp(outputs[k].name, entry->d_name)))
            k++;
        if (k == count)
            fail_msg("%s: leaves %s", line, entry->d_name);
        found_prefix += outputs[k].prefix;
        struct stat st;
        assert_int_equal(fstatat(dirfd(stream), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
        if (!S_ISREG(st.st_mode) || (st.st_mode & 0111 ? true : false) != outputs[k].executable)
            fail_msg("%s: mode of %s is %o", line, entry->d_name, st.st_mode);
    }
    closedir(stream);
    for (size_t k = 0; k < count; k++) {
        kiln_autofree char *path = out_path(outputs[k].name);
        if (outputs[k].required && access(path, F_OK))
            fail_msg("%s: %s is not there", line, outputs[k].name);
    }
    assert_int_equal(found_prefix != 0, strstr(line, "long.rs") != NULL);
    kiln_rustc_outputs_free(outputs, count);
}

static void compile_and_compare(const char *flags, bool bootstrap) {
    kiln_autofree char *line = NULL;
    assert_true(asprintf(&line, "rustc --crate-name some_name --out-dir o %s", flags) > 0);
    kiln_autocall struct kiln_rustc_call call;
    parse(line, &(struct kiln_argv_options){0}, &call);
    if (call.kind != KILN_CALL_COMPILE)
        fail_msg("%s: %s", line, call.reason ? call.reason : "pass");
    autowords struct words words = {0};
    add_word(&words, rustc, NULL);
    assert_int_equal(kiln_rustc_rewrite(&call, place_same, &words, add_word, NULL), 0);
    empty_out_dir();
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 22), errout = KILN_BUF_INIT(1 << 22);
    if (run(&words, bootstrap, &out, &errout))
        fail_msg("%s: %s", line, kiln_buf_text(&errout));
    compare_out_dir(line, &call);
}

static void outputs_of_each_kind(void **state) {
    (void)state;
    static const char *const types[] = {"lib", "bin", "dylib", "cdylib", "staticlib"};
    static const char *const emits[] = {"link", "dep-info,metadata,link", "dep-info,metadata", "link,obj",
                                        "asm,llvm-ir,llvm-bc,obj,mir", "dep-info"};
    char flags[256];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t e = 0; e < sizeof emits / sizeof *emits; e++) {
            snprintf(flags, sizeof flags, "--crate-type %s --emit=%s -Cextra-filename=-0123abcd gen.rs", types[t], emits[e]);
            compile_and_compare(flags, false);
        }
}

static void outputs_of_other_calls(void **state) {
    (void)state;
    static const char *const rows[] = {
        "gen.rs",
        "gen.rs --crate-type lib",
        "--test gen.rs",
        "--test --crate-type lib gen.rs --emit=dep-info,link -Cextra-filename=-h",
        "--test gen.rs --emit=dep-info,metadata",
        "--crate-type proc-macro -Cprefer-dynamic --extern proc_macro --emit=dep-info,link macro.rs -Cextra-filename=-h",
        "--crate-type proc-macro --extern proc_macro --emit=dep-info,metadata macro.rs",
        "--crate-type proc-macro -g -Csplit-debuginfo=packed macro.rs",
        "--crate-type cdylib --crate-type staticlib --crate-type rlib --emit=dep-info,link gen.rs",
        "--crate-type lib,dylib,staticlib --emit=metadata,link gen.rs -Cextra-filename=-h",
        "--crate-type lib,cdylib,staticlib --emit=dep-info,link -g -Csplit-debuginfo=packed gen.rs",
        "--crate-type bin -g -Csplit-debuginfo=packed -Cextra-filename=-h gen.rs",
        "--crate-type bin -Cdebuginfo=line-tables-only -Csplit-debuginfo=packed gen.rs",
        "--crate-type bin -Csplit-debuginfo=packed gen.rs",
        "--crate-type bin -Cdebuginfo=none -Csplit-debuginfo=packed gen.rs",
        "--crate-type bin -Csplit-debuginfo=unpacked gen.rs",
        "--crate-type bin -g -Csplit-debuginfo=off gen.rs",
        "--crate-type bin -g -Csplit-debuginfo=packed --emit=asm,obj gen.rs",
        "--crate-type bin -g -Csplit-debuginfo=unpacked --emit=metadata gen.rs",
        "--crate-type bin -Cstrip=symbols -g -Csplit-debuginfo=packed gen.rs",
        "--crate-type lib -Clinker-plugin-lto --emit=link,metadata gen.rs",
        "--crate-type lib -Clto=thin -Ccodegen-units=4 --emit=link gen.rs",
        "--crate-type lib -Cembed-bitcode=no -O -Ccodegen-units=16 --emit=dep-info,metadata,link gen.rs",
        "--crate-type lib -O -Ccodegen-units=1 --emit=asm,llvm-ir,llvm-bc,obj,link gen.rs",
        "--crate-type lib --emit=obj,llvm-bc -Clinker-plugin-lto gen.rs",
        "--crate-type lib --emit=obj,asm,mir,link empty.rs",
        "--crate-type cdylib -g -Csplit-debuginfo=packed empty.rs",
        "--crate-type lib --emit=metadata,link -Cextra-filename=-h long.rs",
        "--crate-type bin -Clink-arg=-Wl,-z,relro,-z,now -Clink-arg=-Wl,--gc-sections -Clinker=cc gen.rs",
        "--crate-type cdylib -Clink-arg=-Wl,-soname,libz.so.1 -Clink-arg=-Wl,-rpath,$ORIGIN/../lib gen.rs",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        compile_and_compare(rows[i], false);
    if (!is_1_95)
        return;
    static const char *const wasm[] = {
        "--crate-type cdylib --target wasm32-unknown-unknown -Cpanic=abort --emit=link,metadata,dep-info nocore.rs",
        "--crate-type staticlib,lib --target wasm32-unknown-unknown -Cpanic=abort nocore.rs -Cextra-filename=-h",
        "--crate-type lib --target x86_64-pc-windows-msvc -g --emit=link,metadata,dep-info,obj nocore.rs",
        "--crate-type lib --target aarch64-apple-darwin -g --emit=link,metadata nocore.rs",
    };
    for (size_t i = 0; i < sizeof wasm / sizeof *wasm; i++)
        compile_and_compare(wasm[i], true);
}

// What Kiln calls malformed, rustc refuses; what it reads, rustc reads the same way.
static void refused_lines(void **state) {
    (void)state;
    static const char base[] = "--crate-name x --crate-type lib --out-dir o gen.rs --emit=metadata";
    static const char *const refused[] = {
        "--edition 2021 --edition 2021", "--test --test", "--test=yes", "--cfg", "--crate-name y", "-v --verbose", "-Copt-level",
        "--extern a-b=p", "-L native=", "-l static:bundle=z", "-l static:+new=z", "-l raw-dylib=z", "-l static=", "-l :z",
        "-l z:", "-C=opt-level=3", "-Cnew=file", "-q", "-gq", "--out-di o", "--emit=link,,metadata", "--crate-type sdylib",
        "--crate-type bin", "-- --emit=metadata", "-", "empty.rs", "--color never --color never", "--out-dir p",
        "--error-format json --error-format json", "--target a --target b", "--sysroot a --sysroot b",
        "--diagnostic-width 80 --diagnostic-width 80", "-o a -o b", "--explain E0308 --explain E0308", "-V -V", "-h -h",
    };
    static const char *const accepted[] = {
        "--cap-lints allow --cap-lints warn", "-Copt_level=2 --codegen=opt-level=1 --C opt-level=0", "-gO -gOg", "-Wunused -Adead_code",
        "--L=o -Lall=o -Lnative=o", "--cfg=a --cfg b=\"c\"", "--json=artifacts --json=diagnostic-short --error-format=json",
        "--crate-type lib,rlib --emit=metadata,metadata", "--extern proc_macro", "-Cmetadata=a -Cmetadata=b -Ctarget-cpu=x86-64",
    };
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 22);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        kiln_autofree char *line = NULL, *typed = NULL;
        assert_true(asprintf(&line, "%s %s", base, refused[i]) > 0 && asprintf(&typed, "rustc %s", line) > 0);
        kiln_autocall struct kiln_rustc_call call;
        parse(typed, &(struct kiln_argv_options){0}, &call);
        if (call.kind == KILN_CALL_COMPILE || run_text(line, false, &out) == 0)
            fail_msg("%s: accepted", refused[i]);
    }
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        kiln_autofree char *line = NULL, *typed = NULL;
        assert_true(asprintf(&line, "%s %s", base, accepted[i]) > 0 && asprintf(&typed, "rustc %s", line) > 0);
        kiln_autocall struct kiln_rustc_call call;
        parse(typed, &(struct kiln_argv_options){0}, &call);
        if (call.kind != KILN_CALL_COMPILE || run_text(line, false, &out))
            fail_msg("%s: refused (%s)", accepted[i], call.reason ? call.reason : "by rustc");
    }
    assert_int_equal(run_text("--crate-name y @args", false, &out), 0);
}

static void read_whole(const char *name, struct kiln_buf *out) {
    kiln_autofree char *path = out_path(name);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, path, out, NULL), 0);
}

// The reason why a library with a strange linker is no reason to run locally.
static void linker_flags_leave_libraries_alone(void **state) {
    (void)state;
    static const char *const lines[] = {
        "--crate-name x --crate-type lib --out-dir o gen.rs --emit=link,metadata",
        "--crate-name x --crate-type lib --out-dir o gen.rs --emit=link,metadata -Clinker=/nowhere/clang "
        "-Clink-arg=-fuse-ld=/nowhere/mold -Clink-args=-Tnowhere.ld -Crpath",
    };
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 22);
    struct kiln_buf bytes[4] = {KILN_BUF_INIT(1 << 24), KILN_BUF_INIT(1 << 24), KILN_BUF_INIT(1 << 24), KILN_BUF_INIT(1 << 24)};
    for (int i = 0; i < 2; i++) {
        empty_out_dir();
        assert_int_equal(run_text(lines[i], false, &out), 0);
        read_whole("libx.rlib", &bytes[i]);
        read_whole("libx.rmeta", &bytes[2 + i]);
    }
    for (int i = 0; i < 4; i += 2) {
        assert_int_equal(bytes[i].len, bytes[i + 1].len);
        assert_memory_equal(bytes[i].data, bytes[i + 1].data, bytes[i].len);
    }
    for (int i = 0; i < 4; i++)
        kiln_buf_release(&bytes[i]);
}

static bool listed(const char *text, const char *prefix, const struct kiln_flag *flag) {
    char needle[128];
    snprintf(needle, sizeof needle, "%s%s%s", prefix, flag->name, prefix[0] == '-' ? "" : "=val");
    size_t len = strlen(needle);
    for (const char *at = text; (at = strstr(at, needle)); at += len)
        if (at[len] == ' ' || at[len] == '\n')
            return true;
    return false;
}

static void check_codegen_names(const char *help) {
    size_t found = 0;
    for (const char *at = help; (at = strstr(at, "=val -- ")); at++) {
        const char *name = at;
        while (name > help && name[-1] != ' ')
            name--;
        found++;
        if (!kiln_flag_find(KILN_FLAGS_CODEGEN, name, (size_t)(at - name)))
            fail_msg("-C %.*s is not in the table", (int)(at - name), name);
    }
    size_t count;
    kiln_flag_table(KILN_FLAGS_CODEGEN, &count);
    assert_int_equal(found, count);
}

static void check_long_names(const char *help) {
    size_t found = 0;
    for (const char *at = help; (at = strstr(at, "--")); at += 2) {
        // An option begins a line or follows its letter.
        const char *line = at;
        while (line > help && line[-1] != '\n')
            line--;
        size_t indent = strspn(line, " ");
        if (line + indent != at && !(line[indent] == '-' && line + indent + 4 == at))
            continue;
        size_t len = strspn(at + 2, "abcdefghijklmnopqrstuvwxyz-");
        if (!len)
            continue;
        found++;
        if (!kiln_flag_find(KILN_FLAGS_TOP, at + 2, len))
            fail_msg("--%.*s is not in the table", (int)len, at + 2);
    }
    assert_true(found > 25);
}

static void tables_name_all_flags(void **state) {
    (void)state;
    if (!is_1_95)
        skip();
    kiln_autobuf struct kiln_buf help = KILN_BUF_INIT(1 << 20), codegen = KILN_BUF_INIT(1 << 20), unstable = KILN_BUF_INIT(1 << 20);
    assert_int_equal(run_text("--help -v", true, &help), 0);
    assert_int_equal(run_text("-C help", false, &codegen), 0);
    assert_int_equal(run_text("-Z help", true, &unstable), 0);
    check_long_names(kiln_buf_text(&help));
    check_codegen_names(kiln_buf_text(&codegen));
    size_t count;
    const struct kiln_flag *table = kiln_flag_table(KILN_FLAGS_UNSTABLE, &count);
    for (size_t i = 0; i < count; i++)
        if (!listed(kiln_buf_text(&unstable), " ", &table[i]))
            fail_msg("rustc has no -Z %s", table[i].name);
    table = kiln_flag_table(KILN_FLAGS_TOP, &count);
    for (size_t i = 0; i < count; i++)
        if (table[i].name[0] && strcmp(table[i].name, "env-set") && !listed(kiln_buf_text(&help), "--", &table[i]))
            fail_msg("rustc has no --%s", table[i].name);
}

// All the names that Kiln gives to the linked outputs of a target, in the order in which rustc prints them.
static void check_target(const char *target, const struct kiln_target_names *names) {
    bool wasm = strncmp(target, "wasm", 4) == 0;
    kiln_autofree char *line = NULL;
    assert_true(asprintf(&line, "- --crate-name x --print=file-names --target %s --crate-type bin --crate-type cdylib %s "
                                "--crate-type staticlib --crate-type rlib",
                         target, wasm ? "" : "--crate-type dylib --crate-type proc-macro") > 0);
    kiln_autobuf struct kiln_buf printed = KILN_BUF_INIT(1 << 16);
    assert_int_equal(run_text(line, false, &printed), 0);
    char dll[64];
    snprintf(dll, sizeof dll, "%sx%s\n", names->dll_prefix, names->dll_suffix);
    kiln_autofree char *all = NULL, *without = NULL;
    assert_true(asprintf(&all, "x%s\n%s%s%slibx.a\nlibx.rlib\n", names->exe_suffix, dll, wasm ? "" : dll, wasm ? "" : dll) > 0);
    assert_true(asprintf(&without, "x%s\n%slibx.a\nlibx.rlib\n", names->exe_suffix, dll) > 0);
    const char *text = kiln_buf_text(&printed);
    if (strcmp(text, all) && !(names->dll_optional && strcmp(text, without) == 0))
        fail_msg("%s: %s", target, text);
}

static void names_of_targets(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf list = KILN_BUF_INIT(1 << 16);
    assert_int_equal(run_text("--print=target-list", false, &list), 0);
    kiln_autofree char *text = strdup(kiln_buf_text(&list));
    size_t known = 0;
    char *rest = text, *target;
    while ((target = strsep(&rest, "\n"))) {
        const struct kiln_target_names *names = *target ? kiln_target_names(target) : NULL;
        if (!names)
            continue;
        known++;
        check_target(target, names);
    }
    assert_true(known > 60);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st, (void)type, (void)where;
    return remove(path);
}

static int set_up(void **state) {
    (void)state;
    char template[] = "/tmp/kiln-argv-XXXXXX";
    if (!mkdtemp(template))
        return -1;
    work_dir = strdup(template);
    kiln_autofree char *out = out_path("");
    if (mkdir(out, 0700))
        return -1;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        kiln_autofree char *path = NULL;
        if (asprintf(&path, "%s/%s", work_dir, sources[i].name) < 0)
            return -1;
        kiln_autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        size_t len = strlen(sources[i].text);
        if (fd < 0 || write(fd, sources[i].text, len) != (ssize_t)len)
            return -1;
    }
    kiln_autobuf struct kiln_buf version = KILN_BUF_INIT(4096);
    if (run_text("-V", false, &version))
        return -1;
    is_1_95 = strncmp(kiln_buf_text(&version), "rustc 1.95.", 11) == 0;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    int rc = nftw(work_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(work_dir);
    return rc;
}

static char *find_program(const char *name) {
    const char *list = getenv("PATH");
    kiln_autofree char *copy = strdup(list ? list : "");
    char *rest = copy, *dir;
    while ((dir = strsep(&rest, ":"))) {
        char *path;
        if (asprintf(&path, "%s/%s", dir, name) < 0)
            return NULL;
        if (*dir == '/' && access(path, X_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

int main(void) {
    rustc = find_program("rustc");
    if (!rustc) {
        printf("skipped: no rustc in PATH\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_of_each_kind),  cmocka_unit_test(outputs_of_other_calls),
        cmocka_unit_test(refused_lines),         cmocka_unit_test(linker_flags_leave_libraries_alone),
        cmocka_unit_test(tables_name_all_flags), cmocka_unit_test(names_of_targets),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    free(rustc);
    return failed;
}
