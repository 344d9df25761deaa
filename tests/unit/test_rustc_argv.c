#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/core/action.h"
#include "lib/rustc/argv.h"

#define ARGS_MAX 256
#define BASE "rustc --crate-name x --crate-type lib --out-dir o x.rs "

// A command line as it would be typed: words between blanks, or between backquotes where they hold blanks.
struct line {
    char *text;
    char *argv[ARGS_MAX];
    size_t argc;
};

static void line_release(struct line *line) { free(line->text); }
#define autoline __attribute__((cleanup(line_release)))

static void split(const char *text, struct line *line) {
    line->text = strdup(text);
    line->argc = 0;
    for (char *at = line->text; *at;) {
        at += strspn(at, " ");
        if (!*at)
            break;
        assert_true(line->argc < ARGS_MAX);
        char end = *at == '`' ? '`' : ' ';
        at += end == '`';
        line->argv[line->argc++] = at;
        at += strcspn(at, (char[]){end, 0});
        if (*at)
            *at++ = 0;
    }
}

// The files that @file arguments may name.
static int read_fake_file(void *context, const char *path, struct kiln_buf *out, struct kiln_err *err) {
    (void)context;
#define FILE(name, contents) {name, contents, sizeof contents - 1}
    static const struct {
        const char *path, *text;
        size_t len;
    } files[] = {
        FILE("args", "--crate-type\r\nlib\r\n--out-dir\no\nx.rs"), FILE("empty", ""), FILE("blank", "--cfg\na\n\n"),
        FILE("name", "x\n"), FILE("nested", "@args\n"), FILE("cr", "x.rs\r"), FILE("nul", "--cfg\0a"),
        FILE("latin", "--cfg\n\xe9"), FILE("shell:args", "--crate-type lib"),
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(files[i].path, path) == 0)
            return kiln_buf_add(out, files[i].text, files[i].len);
    return kiln_fail(err, KILN_E_NOTFOUND, "%s", path);
}

static const struct kiln_argv_options plain_options = {.read_file = read_fake_file};

static void parse_with(const char *text, const struct kiln_argv_options *options, struct kiln_rustc_call *call) {
    autoline struct line line;
    struct kiln_err err = {0};
    split(text, &line);
    memset(call, 0xa5, sizeof *call);
    int rc = kiln_rustc_parse(line.argc, line.argv, options, call, &err);
    if (rc)
        fail_msg("%s: %s", text, err.text);
}

static void parse(const char *text, struct kiln_rustc_call *call) { parse_with(text, &plain_options, call); }

static char *place_same(void *context, const struct kiln_arg *arg) {
    (void)context;
    return strdup(arg->path);
}

// Joins the written arguments with blanks.
static int collect(void *context, const char *arg, struct kiln_err *err) {
    (void)err;
    struct kiln_buf *out = context;
    if (out->len)
        kiln_buf_add_str(out, " ");
    return kiln_buf_add_str(out, arg);
}

static void check_canonical(const char *text, const char *expected) {
    kiln_autocall struct kiln_rustc_call call;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    struct kiln_err err = {0};
    parse(text, &call);
    if (call.kind != KILN_CALL_COMPILE)
        fail_msg("%s: %s", text, call.reason ? call.reason : "no compile");
    assert_int_equal(kiln_rustc_rewrite(&call, place_same, &out, collect, &err), 0);
    if (strcmp(kiln_buf_text(&out), expected))
        fail_msg("%s\n  gives   %s\n  expected %s", text, kiln_buf_text(&out), expected);
}

static void spellings(void **state) {
    (void)state;
    static const struct {
        const char *line, *canonical;
    } rows[] = {
        {"rustc --crate-name=x --crate-type=lib --out-dir=o x.rs", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {BASE, "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {BASE "-C opt-level=3 -Copt_level=2 --codegen opt-level=1 --codegen=opt-level=0 --C opt-level=s",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs -Copt-level=3 -Copt-level=2 -Copt-level=1 -Copt-level=0 "
         "-Copt-level=s"},
        {BASE "-C prefer-dynamic -Cprefer_dynamic=yes", "--crate-name=x --crate-type=lib --out-dir=o x.rs -Cprefer-dynamic "
                                                         "-Cprefer-dynamic=yes"},
        {BASE "-Wwarnings -W unused -A dead_code --allow x -Dy -F z --force-warn w --deny=v",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs --warn=warnings --warn=unused --allow=dead_code --allow=x --deny=y "
         "--forbid=z --force-warn=w --deny=v"},
        {BASE "-gO -vOCdebuginfo=1 -gLnative=n", "--crate-name=x --crate-type=lib --out-dir=o x.rs -g -O --verbose -O "
                                                 "-Cdebuginfo=1 -g -Lnative=n"},
        {BASE "--L=d --l foo", "--crate-name=x --crate-type=lib --out-dir=o x.rs -Lall=d -lfoo"},
        {BASE "-L d -Lall=native=d -L crate=c -L framework=f", "--crate-name=x --crate-type=lib --out-dir=o x.rs -Lall=d "
                                                               "-Lall=native=d -Lcrate=c -Lframework=f"},
        {BASE "-L dependency=a -L native=n -L dependency=b -Ldependency=a",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs -Ldependency=a -Lnative=n"},
        {BASE "--extern a=/t/liba.rmeta --extern proc_macro --extern priv:b=/t/libb.rlib --extern noprelude,nounused:core",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs --extern=a=/t/liba.rmeta --extern=proc_macro "
         "--extern=priv:b=/t/libb.rlib --extern=noprelude,nounused:core"},
        {BASE "-l static:+bundle,-verbatim=z:zz -ldylib=m -l c",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs -lstatic:+bundle,-verbatim=z:zz -ldylib=m -lc"},
        {BASE "--cfg `feature=\"a b\"` --check-cfg `cfg(f, values(\"x\"))` --cfg=k=\"v=w\" --cap-lints allow",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs --cfg=feature=\"a b\" --check-cfg=cfg(f, values(\"x\")) "
         "--cfg=k=\"v=w\" --cap-lints=allow"},
        {BASE "-Z unstable-options -Zmacro_backtrace -Zmir-opt-level=2",
         "--crate-name=x --crate-type=lib --out-dir=o x.rs -Zunstable-options -Zmacro-backtrace -Zmir-opt-level=2"},
        {"rustc --crate-name x --crate-type lib --out-dir o -- x.rs", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {"rustc --crate-name x --crate-type lib --out-dir -- x.rs", "--crate-name=x --crate-type=lib --out-dir=-- x.rs"},
        {"rustc --crate-name x --crate-type lib --out-dir -o x.rs", "--crate-name=x --crate-type=lib --out-dir=-o x.rs"},
        {"rustc --crate-name x @args", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {"rustc --crate-name @name @args @empty --cfg @name", "--crate-name=x --crate-type=lib --out-dir=o x.rs --cfg=x"},
        {"/a/clippy-driver /b/rustc --crate-name x @args", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {"clippy-driver rustc.exe --crate-name x @args", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
        {"clippy-driver --crate-name x @args", "--crate-name=x --crate-type=lib --out-dir=o x.rs"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_canonical(rows[i].line, rows[i].canonical);
}

static void reasons(void **state) {
    (void)state;
    static const struct {
        const char *extra, *reason; // behind BASE; NULL: a compile
    } rows[] = {
        {"", NULL},
        {"-o out", "output_path: -o"},
        {"-oout", "output_path: -oout"},
        {"--emit=link=a", "output_path: --emit=link=a"},
        {"--emit=link,dep-info=a --emit=link", "output_path: --emit=link,dep-info=a"},
        {"--emit thin-link-bitcode", "emit: thin-link-bitcode"},
        {"--emit=", "emit: "},
        {"--emit=link,,metadata", "emit: link,,metadata"},
        {"--crate-type sdylib", "crate_type: sdylib"},
        {"--crate-type=bin", "crate_type: a mix that rustc refuses"},
        {"--crate-type=dylib,cdylib", "output_collision: dylib and cdylib have one name"},
        {"--new-flag=file", "unknown_flag: --new-flag=file"},
        {"-q", "unknown_flag: -q"},
        {"-gq", "unknown_flag: -gq"},
        {"-crate-name", "unknown_flag: -crate-name"},
        {"--out-di o", "unknown_flag: --out-di"},
        {"-Cnew=file", "unknown_flag: -Cnew=file"},
        {"-C=opt-level=3", "unknown_flag: -C=opt-level=3"},
        {"-C ``", "unknown_flag: -C"},
        {"-Znew=file", "unknown_flag: -Znew=file"},
        {"-Zself-profile=d", "unknown_flag: -Zself-profile=d"},
        {"-Zdump-mir=all", "unknown_flag: -Zdump-mir=all"},
        {"-Zls=root", "unknown_flag: -Zls=root"},
        {"-Zcrate-attr=doc=include_str!(\"f\")", "unknown_flag: -Zcrate-attr=doc=include_str!(\"f\")"},
        {"-Zshell-argfiles", "unknown_flag: -Zshell-argfiles"},
        {"-Zcodegen-backend=f.so", "codegen_backend: -Zcodegen-backend=f.so"},
        {"-Zthreads=8", "threads: -Zthreads=8"},
        {"-Zremap-cwd-prefix=.", "user_remap: -Zremap-cwd-prefix=."},
        {"-Copt-level", "malformed: -Copt-level"},
        {"--edition 2021 --edition 2021", "malformed: --edition"},
        {"--test --test", "malformed: --test"},
        {"--test=yes", "malformed: --test=yes"},
        {"--cfg", "malformed: --cfg"},
        {"--crate-name y", "malformed: --crate-name"},
        {"-v --verbose", "malformed: --verbose"},
        {"--extern a-b=p", "malformed: --extern"},
        {"--extern a=", "malformed: --extern"},
        {"--extern odd:a=p", "malformed: --extern"},
        {"-L native=", "malformed: -L"},
        {"-L@RUSTC_BUILTIN/x", "malformed: -L@RUSTC_BUILTIN/x"},
        {"-l static:bundle=z", "malformed: -l"},
        {"-l static:+new=z", "malformed: -l"},
        {"-l raw-dylib=z", "malformed: -l"},
        {"-l static=", "malformed: -l"},
        {"-l :z", "malformed: -l"},
        {"-l z:", "malformed: -l"},
        {"-l link-arg=-T/x", "link_arg: -llink-arg=-T/x"},
        {"-l static:+verbatim=../z.a", "native_library_path: ../z.a"},
        {"-C incremental=d", "incremental"},
        {"-C incremental=d -o x", "incremental"},
        {"-C ar=x", "ar: -C"},
        {"-C dlltool=x", "dlltool: -C"},
        {"-C passes=insert-gcov-profiling", "llvm_passes: -C"},
        {"-C save-temps", "save_temps"},
        {"-C save-temps=yes", "save_temps"},
        {"-C save-temps=no", NULL},
        {"-C profile-generate", "profile_generate: -C"},
        {"-C profile-use=f", "profile_use: f"},
        {"-Z profile-sample-use=f", "profile_use: f"},
        {"-C instrument-coverage", "coverage"},
        {"-C instrument-coverage=off", NULL},
        {"-C instrument-coverage=all -C instrument-coverage=no", NULL},
        {"-C linker-plugin-lto", NULL},
        {"-C linker-plugin-lto=y", NULL},
        {"-C linker-plugin-lto=/x/LLVMgold.so", "linker_plugin: /x/LLVMgold.so"},
        {"-C llvm-args=-inline-threshold=5", NULL},
        {"-C llvm-args=`-inline-threshold=5`", "llvm_args: `-inline-threshold=5`"},
        {"`-Cllvm-args=--inline-threshold=5 --unroll-threshold=9`", NULL},
        {"`-Cllvm-args=--inline-threshold=5 -pgo-test-profile-file=f`",
         "llvm_args: --inline-threshold=5 -pgo-test-profile-file=f"},
        {"-Cllvm-args=-inline-threshold=f", "llvm_args: -inline-threshold=f"},
        {"-C target-cpu=native", "native_cpu: -Ctarget-cpu=native"},
        {"-C target_cpu=native", "native_cpu: -Ctarget-cpu=native"},
        {"-C target-cpu=x86-64-v3", NULL},
        {"-Z tune-cpu=native", "native_cpu: -Ztune-cpu=native"},
        {"-C target-feature=+avx,native", "native_cpu: -Ctarget-feature=+avx,native"},
        {"-C target-feature=+native", "native_cpu: -Ctarget-feature=+native"},
        {"-C target-feature=+avx2,-sse4a", NULL},
        {"--sysroot /s", "sysroot: /s"},
        {"--target my.json", "target_json: my.json"},
        {"--target ./dir/x86_64-unknown-linux-gnu", "target_json: ./dir/x86_64-unknown-linux-gnu"},
        {"--target x86_64-pc-windows-msvc", NULL},
        {"--target x86_64-pc-windows-msvc --crate-type cdylib", "target_os: x86_64-pc-windows-msvc"},
        {"--target aarch64-apple-darwin --crate-type staticlib", "target_os: aarch64-apple-darwin"},
        {"--target aarch64-apple-darwin --crate-type cdylib --emit=metadata", NULL},
        {"--target wasm32-unknown-emscripten --test", "target_os: wasm32-unknown-emscripten"},
        {"--target aarch64-unknown-linux-musl --test", NULL},
        {"--remap-path-prefix /a=/b", "user_remap: /a=/b"},
        {"--remap-path-prefix /a=/kiln/x-1.0", "user_remap: /a=/kiln/x-1.0"},
        {"--remap-path-scope all", "user_remap: --remap-path-scope"},
        {"-g -C split-debuginfo=unpacked", "split_debuginfo_unpacked"},
        {"-C split-debuginfo=unpacked", NULL},
        {"-g -C split-debuginfo=unpacked -C debuginfo=none", NULL},
        {"-g -C split-debuginfo=unpacked --emit=metadata", NULL},
        {"-g -C split-debuginfo=unpacked --emit=obj", "split_debuginfo_unpacked"},
        {"-g -C split-debuginfo=packed", NULL},
        {"--emit=asm -C codegen-units=4", "llvm_outputs: several codegen units or LTO"},
        {"--emit=asm -C codegen-units=1", NULL},
        {"--emit=obj -C lto", "llvm_outputs: several codegen units or LTO"},
        {"--emit=obj -C lto=off", NULL},
        {"--emit=link -C codegen-units=4 -C lto", NULL},
        {"-C extra-filename=-1.2", "extra_filename: -1.2"},
        {"-C extra-filename=/../x", "extra_filename: /../x"},
        {"y.rs", "sources: 2"},
        {"-- --emit=metadata", "sources: 2"},
        {"-", "sources: 2"},
        {"@blank", "sources: 2"},
        {"@nosuch", "argument_file: nosuch"},
        {"@nul", "argument_file: nul"},
        {"@latin", "argument_file: latin"},
        {"--cfg \xe9", "not_utf8: an argument"},
        {"--cfg \xc3\xa9", NULL},
        {"--cfg \xed\xa0\x80", "not_utf8: an argument"},
        // What only the linker reads does not matter to a library.
        {"-C linker=/x/clang -C link-arg=-T/x -C rpath", NULL},
        {"-C linker=/x/clang --crate-type cdylib", "linker: /x/clang"},
        {"-C linker=cc --crate-type cdylib", NULL},
        {"-C rpath --test", "rpath"},
        {"-C rpath=no --test", NULL},
        {"-C linker=clang --test --emit=metadata", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autocall struct kiln_rustc_call call;
        kiln_autofree char *line = NULL;
        assert_true(asprintf(&line, "%s%s", BASE, rows[i].extra) > 0);
        parse(line, &call);
        const char *reason = call.kind == KILN_CALL_LOCAL ? call.reason : call.kind == KILN_CALL_PASS ? "pass" : NULL;
        if (!reason != !rows[i].reason || (reason && strcmp(reason, rows[i].reason)))
            fail_msg("%s: %s, expected %s", rows[i].extra, reason ? reason : "compile", rows[i].reason ? rows[i].reason : "compile");
    }
}

static void whole_line_reasons(void **state) {
    (void)state;
    static const struct {
        const char *line, *reason; // "pass": no compile
    } rows[] = {
        {"rustc --crate-type lib --out-dir o x.rs", "no_crate_name"},
        {"rustc --crate-name x --crate-type lib x.rs", "no_out_dir"},
        {"rustc --crate-name x --crate-type lib --out-dir= x.rs", "no_out_dir"},
        {"rustc --crate-name x\xc3\xa9 --crate-type lib --out-dir o x.rs", "crate_name: x\xc3\xa9"},
        {"rustc --crate-name ../x --crate-type lib --out-dir o x.rs", "crate_name: ../x"},
        {"rustc --crate-name x-y --crate-type lib --out-dir o x.rs", "crate_name: x-y"},
        {"rustc --crate-name x --crate-type lib --out-dir o ``", "malformed: an empty source"},
        {"rustc --crate-name x --crate-type lib --out-dir o @cr", NULL},
        {"rustc --crate-name x --crate-type lib --out-dir o @nested", NULL},
        {"rustc --crate-name x --crate-type lib --out-dir o @shell:args", "unknown_flag: --crate-type lib"},
        {"rustc --crate-name x --out-dir o x.rs", NULL},
        {"other /x/rustc --crate-name x --crate-type lib --out-dir o x.rs", "sources: 2"},
        {"clippy-driver /x/other --crate-name x --crate-type lib --out-dir o x.rs", "sources: 2"},
        {"clippy-driver --rustc --crate-name x --crate-type lib --out-dir o x.rs", "unknown_flag: --rustc"},
        {"rustc", "pass"},
        {"rustc -vV", "pass"},
        {"rustc -V", "pass"},
        {"rustc --version --verbose", "pass"},
        {"rustc --help -v", "pass"},
        {"rustc -h", "pass"},
        {"rustc --explain E0001", "pass"},
        {"rustc -C help", "pass"},
        {"rustc -Zhelp", "pass"},
        {"rustc -Whelp", "pass"},
        {"rustc -A help", "pass"},
        {"rustc -Ctarget-cpu=help x.rs", "pass"},
        {"rustc -Ctarget-feature=help x.rs", "pass"},
        {"rustc --print cfg", "pass"},
        {"rustc --print=cfg=file", "pass"},
        {BASE "--print link-args", "pass"},
        {BASE "--print=native-static-libs -Cincremental=d", "pass"},
        {"rustc - --crate-name ___ --print=file-names --crate-type bin -Wwarnings", "pass"},
        {"rustc --crate-name x --crate-type lib --out-dir o -", "pass"},
        {"rustc --crate-name x --crate-type lib --out-dir o", "pass"},
        {"clippy-driver rustc -vV", "pass"},
        {"clippy-driver rustc", "pass"},
        {"clippy-driver", "pass"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autocall struct kiln_rustc_call call;
        parse(rows[i].line, &call);
        const char *reason = call.kind == KILN_CALL_LOCAL ? call.reason : call.kind == KILN_CALL_PASS ? "pass" : NULL;
        if (!reason != !rows[i].reason || (reason && strcmp(reason, rows[i].reason)))
            fail_msg("%s: %s, expected %s", rows[i].line, reason ? reason : "compile", rows[i].reason ? rows[i].reason : "compile");
    }
}

static void link_arguments(void **state) {
    (void)state;
    static const struct {
        const char *arg;
        bool plain;
    } rows[] = {
        {"-nostartfiles", true}, {"-static-pie", true}, {"-no-pie", true}, {"-fuse-ld=lld", true}, {"-lm", true},
        {"-Wl,--gc-sections", true}, {"-Wl,-z,relro,-z,now", true}, {"-Wl,-zrelro", true},
        {"-Wl,-z,stack-size=0x100000", true}, {"-Wl,-O1", true}, {"-Wl,-soname,libx.so.1", true},
        {"-Wl,--soname=libx.so.1", true}, {"-Wl,-rpath,$ORIGIN", true}, {"-Wl,-rpath,$ORIGIN/../lib:$ORIGIN", true},
        {"-Wl,-rpath=${ORIGIN}/x,--enable-new-dtags", true}, {"-Wl,--build-id=sha1", true}, {"-Wl,--build-id", true},
        {"-Wl,--icf=all", true}, {"-Wl,--exclude-libs,ALL", true}, {"-Wl,--as-needed", true}, {"--export=f", true},
        {"--no-entry", true}, {"--initial-memory=65536", true}, {"--allow-undefined", true},
        {"", false}, {"-", false}, {"x.o", false}, {"/x/y.o", false}, {"@file", false}, {"-T", false}, {"-Tx.ld", false},
        {"-L.", false}, {"-lfoo", false}, {"-l:x.a", false}, {"-B/x", false}, {"--sysroot=/x", false}, {"-specs=f", false},
        {"-fuse-ld=/x/ld", false}, {"-fuse-ld=mold", false}, {"--ld-path=/x", false}, {"-o", false}, {"-Wl,", false},
        {"-Wl,x.o", false}, {"-Wl,--gc-sections,x.o", false}, {"-Wl,-z", false}, {"-Wl,-z,relro,now", false},
        {"-Wl,-z,x", false}, {"-Wl,--version-script=f", false}, {"-Wl,--version-script,f", false},
        {"-Wl,--dynamic-list=f", false}, {"-Wl,-T,f", false}, {"-Wl,-Map=f", false}, {"-Wl,@f", false},
        {"-Wl,-rpath,/x", false}, {"-Wl,-rpath,$ORIGIN:/x", false}, {"-Wl,-rpath,$ORIGIN:", false},
        {"-Wl,-rpath,$ORIGINx", false}, {"-Wl,-rpath,", false}, {"-Wl,-rpath", false}, {"-Wl,-rpath-link,$ORIGIN", false},
        {"-Wl,-soname,../x", false}, {"-Wl,-soname,-Map=f", false}, {"-Wl,--build-id=uuid", false},
        {"-Wl,--gc-sections=x", false}, {"-Wl,-plugin,f", false}, {"-Wl,--just-symbols=f", false}, {"--reproduce=f", false},
        {"-Wl,-z,relro,,x", false}, {"-march=native", false}, {"-Wl,--threads=f", false}, {"--soname", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        static const char *const forms[] = {"-C link-arg=", "-Clink-args=-no-pie\t", "-Zpre-link-arg="};
        for (size_t form = 0; form < sizeof forms / sizeof *forms; form++) {
            kiln_autocall struct kiln_rustc_call call;
            kiln_autofree char *line = NULL;
            // An empty word of a list is no argument at all.
            if (form == 1 && !rows[i].arg[0])
                continue;
            assert_true(asprintf(&line, BASE "--test %s%s", forms[form], rows[i].arg) > 0);
            parse(line, &call);
            if ((call.kind == KILN_CALL_COMPILE) != rows[i].plain)
                fail_msg("%s: %s", line, call.reason ? call.reason : "compile");
            if (!rows[i].plain)
                assert_int_equal(strncmp(call.reason, "link_arg: ", 10), 0);
        }
    }
}

static void fields(void **state) {
    (void)state;
    kiln_autocall struct kiln_rustc_call call;
    parse("/tc/clippy-driver /tc/rustc --crate-name a_b --edition=2024 s/lib.rs --error-format=json "
          "--json=diagnostic-rendered-ansi,artifacts --crate-type cdylib,rlib --crate-type staticlib --emit=dep-info,metadata "
          "--emit link -O -C opt-level=1 -C debuginfo=0 -g -C metadata=m -C metadata=n -Cextra-filename=-e -C extra-filename=-f "
          "-C prefer-dynamic -C linker=cc -C split-debuginfo=packed -C target-cpu=znver2 -C lto --color=never "
          "--target x86_64-unknown-linux-gnu --out-dir /o -L dependency=/d -L /all --extern priv:p=/d/libp.rmeta "
          "--extern proc_macro -l static:+whole-archive=z:y -lm -C codegen-units=7",
          &call);
    assert_int_equal(call.kind, KILN_CALL_COMPILE);
    assert_true(call.clippy && !call.test && call.json_artifacts && call.json_rendered && call.prefer_dynamic);
    assert_int_equal(call.crate_types, KILN_CRATE_CDYLIB | KILN_CRATE_RLIB | KILN_CRATE_STATICLIB);
    assert_int_equal(call.emits, KILN_EMIT_LINK | KILN_EMIT_METADATA | KILN_EMIT_DEP_INFO);
    const char *const values[][2] = {
        {call.crate_name, "a_b"}, {call.source, "s/lib.rs"}, {call.out_dir, "/o"}, {call.extra_filename, "-f"},
        {call.metadata, "m n"}, {call.edition, "2024"}, {call.target, "x86_64-unknown-linux-gnu"}, {call.debuginfo, "2"},
        {call.split_debuginfo, "packed"}, {call.opt_level, "1"}, {call.target_cpu, "znver2"}, {call.linker, "cc"},
        {call.error_format, "json"}, {call.color, "never"}, {call.lto, "fat"}, {call.codegen_units, "7"},
        {call.externs[0].options, "priv"}, {call.externs[0].name, "p"}, {call.externs[0].path, "/d/libp.rmeta"},
        {call.externs[1].name, "proc_macro"}, {call.lib_dirs[0].path, "/d"}, {call.lib_dirs[1].path, "/all"},
        {call.native_libs[0].kind, "static"}, {call.native_libs[0].modifiers, "+whole-archive"},
        {call.native_libs[0].name, "z"}, {call.native_libs[0].rename, "y"}, {call.native_libs[1].name, "m"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        assert_string_equal(values[i][0], values[i][1]);
    assert_null(call.sysroot);
    assert_null(call.externs[1].path);
    assert_null(call.externs[1].options);
    assert_null(call.native_libs[1].kind);
    assert_int_equal(call.externs_count, 2);
    assert_int_equal(call.lib_dirs_count, 2);
    assert_int_equal(call.lib_dirs[0].kind, KILN_DIR_DEPENDENCY);
    assert_int_equal(call.lib_dirs[1].kind, KILN_DIR_ALL);
    assert_int_equal(call.native_libs_count, 2);
    assert_true(kiln_rustc_needs_linker(&call) && kiln_rustc_needs_libraries(&call));
}

static void needs(void **state) {
    (void)state;
    static const struct {
        const char *flags;
        bool linker, libraries;
    } rows[] = {
        {"--crate-type lib", false, false},
        {"--crate-type rlib --emit=link,metadata", false, false},
        {"--crate-type bin", true, true},
        {"--crate-type bin --emit=metadata", false, false},
        {"--crate-type bin --emit=obj", false, false},
        {"--crate-type staticlib", false, true},
        {"--crate-type lib,staticlib", false, true},
        {"--crate-type dylib", true, true},
        {"--crate-type cdylib", true, true},
        {"--crate-type proc-macro", true, true},
        {"--crate-type proc-macro --emit=metadata", false, false},
        {"--test", true, true},
        {"--crate-type lib --test", true, true},
        {"--test --emit=dep-info,metadata", false, false},
        {"", true, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autocall struct kiln_rustc_call call;
        kiln_autofree char *line = NULL;
        assert_true(asprintf(&line, "rustc --crate-name x --out-dir o x.rs %s", rows[i].flags) > 0);
        parse(line, &call);
        assert_int_equal(kiln_rustc_needs_linker(&call), rows[i].linker);
        assert_int_equal(kiln_rustc_needs_libraries(&call), rows[i].libraries);
    }
}

static void output_names(void **state) {
    (void)state;
    // '*': executable, '?': not required.
    static const struct {
        const char *flags, *names;
    } rows[] = {
        {"--crate-type lib --emit=dep-info,metadata,link -Cextra-filename=-h", "libx-h.rmeta libx-h.rlib x-h.d"},
        {"--crate-type bin", "x*"},
        {"", "x*"},
        {"--crate-type bin --emit=dep-info,metadata -Cextra-filename=-h", "libx-h.rmeta x-h.d"},
        {"--test --crate-type lib -Cextra-filename=-h", "x-h*"},
        {"--crate-type proc-macro --emit=dep-info,link", "libx.so* x.d"},
        {"--crate-type cdylib --crate-type staticlib --crate-type rlib --emit=dep-info,link", "libx.rlib libx.a libx.so* x.d"},
        {"--crate-type dylib -g -Csplit-debuginfo=packed", "libx.so* libx.so.dwp"},
        {"--crate-type bin -g -Csplit-debuginfo=packed -Cextra-filename=-h", "x-h* x-h.dwp"},
        {"--crate-type bin -Cdebuginfo=0 -Csplit-debuginfo=packed", "x*"},
        {"--crate-type lib,staticlib -g -Csplit-debuginfo=packed", "libx.rlib libx.a"},
        {"--crate-type bin -g -Csplit-debuginfo=packed --emit=metadata", "libx.rmeta"},
        {"--crate-type lib --emit=asm,llvm-ir,llvm-bc,obj,mir", "x.s x.ll x.bc x.o x.mir"},
        {"--crate-type bin --target wasm32-unknown-unknown", "x.wasm*"},
        {"--crate-type cdylib,staticlib,lib --target wasm32-wasip1", "libx.rlib libx.a x.wasm*"},
        {"--crate-type cdylib --target x86_64-unknown-linux-musl", "libx.so*?"},
        {"--crate-type proc-macro --target x86_64-unknown-linux-musl", "libx.so*"},
        {"--crate-type lib --target x86_64-pc-windows-gnu", "libx.rlib"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autocall struct kiln_rustc_call call;
        kiln_autofree char *line = NULL;
        kiln_autobuf struct kiln_buf names = KILN_BUF_INIT(4096);
        struct kiln_expected_output *outputs;
        size_t count;
        assert_true(asprintf(&line, "rustc --crate-name x --out-dir o x.rs %s", rows[i].flags) > 0);
        parse(line, &call);
        assert_int_equal(kiln_rustc_outputs(&call, &outputs, &count, NULL), 0);
        size_t prefixes = 0;
        for (size_t k = 0; k < count; k++) {
            if (outputs[k].prefix) {
                prefixes++;
                assert_non_null(strstr(outputs[k].name, ".long-type-"));
                assert_false(outputs[k].required);
                continue;
            }
            kiln_buf_addf(&names, "%s%s%s%s", names.len ? " " : "", outputs[k].name, outputs[k].executable ? "*" : "",
                          outputs[k].required ? "" : "?");
        }
        kiln_rustc_outputs_free(outputs, count);
        assert_int_equal(prefixes, 1);
        assert_string_equal(kiln_buf_text(&names), rows[i].names);
    }
    kiln_autocall struct kiln_rustc_call passed;
    struct kiln_expected_output *outputs;
    size_t count;
    parse("rustc -vV", &passed);
    assert_int_equal(kiln_rustc_outputs(&passed, &outputs, &count, NULL), KILN_E_UNSUPPORTED);
}

// Only the end of a line loses its carriage return.
static void last_line_of_a_file(void **state) {
    (void)state;
    kiln_autocall struct kiln_rustc_call call;
    parse("rustc --crate-name x --out-dir o @cr", &call);
    assert_string_equal(call.source, "x.rs\r");
}

static void dropped_incremental(void **state) {
    (void)state;
    const struct kiln_argv_options options = {.drop_incremental = true};
    kiln_autocall struct kiln_rustc_call call;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    parse_with(BASE "-C incremental=/t/inc -O", &options, &call);
    assert_int_equal(call.kind, KILN_CALL_COMPILE);
    assert_int_equal(kiln_rustc_rewrite(&call, place_same, &out, collect, NULL), 0);
    assert_string_equal(kiln_buf_text(&out), "--crate-name=x --crate-type=lib --out-dir=o x.rs -O");
}

static void own_remap(void **state) {
    (void)state;
    const struct kiln_argv_options options = {.canonical = true};
    static const struct {
        const char *value;
        bool own;
    } rows[] = {{"/sb/ws=/kiln/x-1.0", true}, {"/a=b=/kiln/x", true}, {"/a=/kilnx", false}, {"/a=", false}, {"/kiln/", false},
                {"/kiln/=x", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autocall struct kiln_rustc_call call;
        kiln_autofree char *line = NULL;
        assert_true(asprintf(&line, BASE "--remap-path-prefix=%s", rows[i].value) > 0);
        parse_with(line, &options, &call);
        assert_int_equal(call.kind, rows[i].own ? KILN_CALL_COMPILE : KILN_CALL_LOCAL);
        assert_int_equal(call.user_remap, !rows[i].own);
    }
}

struct places {
    struct kiln_buf out; // first, for collect()
    enum kiln_arg_role refused;
};

static char *place_by_role(void *context, const struct kiln_arg *arg) {
    const struct places *places = context;
    if (arg->role == places->refused)
        return NULL;
    switch (arg->role) {
    case KILN_ARG_SOURCE:
        return strdup("/b/s.rs");
    case KILN_ARG_OUT_DIR:
        return strdup("/b/target");
    case KILN_ARG_EXTERN:
        return strdup("/b/deps/e");
    case KILN_ARG_LIB_DIR:
        return strdup(strcmp(arg->flag, "-Ldependency=") ? "/b/native/0" : "/b/deps");
    default:
        return strdup("?");
    }
}

static void placed_paths(void **state) {
    (void)state;
    static const char line[] = BASE "-L dependency=d1 -L dependency=d2 --extern priv:a=d1/liba.rlib -L native=n --extern core";
    kiln_autocall struct kiln_rustc_call call;
    parse(line, &call);
    struct places places = {.out = KILN_BUF_INIT(4096), .refused = KILN_ARG_DROP};
    assert_int_equal(kiln_rustc_rewrite(&call, place_by_role, &places, collect, NULL), 0);
    assert_string_equal(kiln_buf_text(&places.out), "--crate-name=x --crate-type=lib --out-dir=/b/target /b/s.rs -Ldependency=/b/deps "
                                             "--extern=priv:a=/b/deps/e -Lnative=/b/native/0 --extern=core");
    static const struct {
        enum kiln_arg_role role;
        const char *named;
    } refusals[] = {{KILN_ARG_SOURCE, "x.rs"}, {KILN_ARG_OUT_DIR, "--out-dir=o"}, {KILN_ARG_EXTERN, "d1/liba.rlib"},
                    {KILN_ARG_LIB_DIR, "-Ldependency=d1"}};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct kiln_err err = {0};
        places.refused = refusals[i].role;
        assert_int_equal(kiln_rustc_rewrite(&call, place_by_role, &places, collect, &err), KILN_E_UNSUPPORTED);
        assert_non_null(strstr(err.text, refusals[i].named));
    }
    kiln_buf_release(&places.out);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    // A source that rustc would read as something else cannot be written.
    static const char *const odd[] = {"rustc --crate-name x --out-dir o -- -x.rs", "rustc --crate-name x --out-dir o @nested"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        kiln_autocall struct kiln_rustc_call strange;
        parse(odd[i], &strange);
        assert_int_equal(strange.kind, KILN_CALL_COMPILE);
        assert_int_equal(kiln_rustc_rewrite(&strange, place_same, &out, collect, NULL), KILN_E_UNSUPPORTED);
    }
    kiln_autocall struct kiln_rustc_call refused_call;
    parse(BASE "-o x", &refused_call);
    assert_int_equal(kiln_rustc_rewrite(&refused_call, place_same, &out, collect, NULL), KILN_E_UNSUPPORTED);
}

static void probes(void **state) {
    (void)state;
    static const struct {
        const char *line;
        bool probe;
    } rows[] = {
        {"rustc", true}, {"rustc -vV", true}, {"rustc --version", true}, {"rustc --print cfg", true}, {"rustc -h", true},
        {"rustc - --crate-name ___ --print=file-names", true}, {"rustc --crate-name x -", true}, {"rustc -Whelp", true},
        {"rustc --explain E0308", true}, {"clippy-driver /x/rustc -vV", true}, {"clippy-driver /x/rustc", true},
        {"rustc --crate-name x --out-dir o", true}, {"rustc -Ctarget-cpu=help", true}, {"rustc -gV", true},
        {BASE "--print=link-args", true},
        {BASE, false}, {"rustc @args", false}, {"rustc -vV @args", false}, {"rustc x.rs --cfg -V", false},
        {"rustc x.rs --crate-name -vV", false}, {"rustc x.rs -C metadata=-V", false}, {"rustc x.rs -- -V", false},
        {"rustc --unknown -V", false}, {"rustc x.rs -", false}, {"rustc -- -V", false}, {"rustc x.rs -Wprint", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        autoline struct line line;
        split(rows[i].line, &line);
        if (kiln_rustc_is_probe(line.argc, line.argv) != rows[i].probe)
            fail_msg("%s", rows[i].line);
    }
}

static void limits(void **state) {
    (void)state;
    static char *many[KILN_ACTION_ARGS_MAX + 2];
    many[0] = (char *)"rustc";
    for (size_t i = 1; i < KILN_ACTION_ARGS_MAX + 2; i++)
        many[i] = (char *)"-g";
    struct kiln_rustc_call call;
    memset(&call, 0xa5, sizeof call);
    struct kiln_rustc_call before = call;
    struct kiln_err err = {0};
    assert_int_equal(kiln_rustc_parse(KILN_ACTION_ARGS_MAX + 2, many, &plain_options, &call, &err), KILN_E_LIMIT);
    assert_memory_equal(&call, &before, sizeof call);
    assert_int_equal(kiln_rustc_parse(KILN_ACTION_ARGS_MAX + 1, many, &plain_options, &call, &err), 0);
    kiln_rustc_call_release(&call);

    kiln_autofree char *large = malloc((1 << 20) + 1);
    memset(large, 'a', 1 << 20);
    large[1 << 20] = 0;
    char *argv[] = {(char *)"rustc", (char *)"--cfg", large};
    assert_int_equal(kiln_rustc_parse(3, argv, &plain_options, &call, &err), KILN_E_LIMIT);
    large[(1 << 20) - 100] = 0;
    assert_int_equal(kiln_rustc_parse(3, argv, &plain_options, &call, &err), 0);
    kiln_rustc_call_release(&call);
    // A reason stays short.
    char *unknown[] = {(char *)"rustc", (char *)"x.rs", large};
    large[0] = large[1] = '-';
    assert_int_equal(kiln_rustc_parse(3, unknown, &plain_options, &call, &err), 0);
    assert_true(strlen(call.reason) < 256);
    kiln_rustc_call_release(&call);
    // Nor does it end within a character.
    memset(large + 3, 0, 400);
    for (size_t i = 0; i < 200; i += 2)
        memcpy(large + 3 + i, "\xc3\xa9", 2);
    assert_int_equal(kiln_rustc_parse(3, unknown, &plain_options, &call, &err), 0);
    assert_int_equal(strlen(call.reason), strlen("unknown_flag: ") + 199);
    kiln_rustc_call_release(&call);
    char *none[] = {NULL};
    assert_int_equal(kiln_rustc_parse(0, none, &plain_options, &call, &err), 0);
    assert_int_equal(call.kind, KILN_CALL_PASS);
    kiln_rustc_call_release(&call);
    char *file[] = {(char *)"rustc", (char *)"@args"};
    assert_int_equal(kiln_rustc_parse(2, file, &(struct kiln_argv_options){0}, &call, &err), 0);
    assert_string_equal(call.reason, "argument_file: args");
    kiln_rustc_call_release(&call);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings),      cmocka_unit_test(reasons),   cmocka_unit_test(whole_line_reasons),
        cmocka_unit_test(link_arguments), cmocka_unit_test(fields),    cmocka_unit_test(needs),
        cmocka_unit_test(output_names),   cmocka_unit_test(own_remap), cmocka_unit_test(dropped_incremental),
        cmocka_unit_test(placed_paths),         cmocka_unit_test(probes), cmocka_unit_test(last_line_of_a_file),    cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
