// Real compiles in a bubblewrap root with the observer preloaded: ordinary crates of every type report nothing, a macro
// that asks for something undeclared is reported, and hash maps of macros repeat.
#include <spawn.h>
#include <sys/wait.h>

#include "consumer/run/witness.h"
#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "lib/rustc/paths.h"
#include "lib/macro/macro_object.h"
#include "tests/integration/observer_rig.h"

#define DEADLINE_MS 100000
#define ARGS_MAX 128

static char sysroot[256];
static char *const plain_env[] = {TEXT("PATH=/usr/bin:/bin"), NULL};

// '@' is the sandbox root. Each macro crate is `actor::act!("DEED")`.
static const struct {
    const char *deed, *observations; // each followed by a line feed; "..." at the end: more, by what the host has
} deeds[] = {
    {"nothing at-all", ""},
    {"read data.txt", ""},
    {"read absent.txt", ""},
    {"stat @/ws/pkg/src/../data.txt", ""},
    {"list src", ""},
    {"list @/ws/pkg/src/", ""},
    {"read @/deps/libactor.so", ""},
    {"env CARGO_PKG_NAME", ""},
    {"env ABSENT_BUT_DECLARED", ""},
    {"panic caught", ""},
    {"thread joined", ""},
    {"tmp /tmp/scratch-file", ""},
    {"read /dev/urandom", ""},
    {"stat /usr/bin", ""},
    {"read /etc/hostname", "undeclared_path: /etc/hostname\n"},
    {"read ../sibling/x.txt", "undeclared_path: @/ws/sibling/x.txt\n"},
    {"read .env", "undeclared_path: @/ws/pkg/.env\n"},
    {"stat .git/HEAD", "undeclared_path: @/ws/pkg/.git/HEAD\n"},
    {"stat target/debug", "undeclared_path: @/ws/pkg/target/debug\n"},
    {"stat sub/.git/HEAD", "undeclared_path: @/ws/pkg/sub/.git/HEAD\n"},
    {"list sub", "undeclared_list: @/ws/pkg/sub\n"},
    {"list .", "undeclared_list: @/ws/pkg\n"},
    {"list @/ws", "undeclared_list: @/ws\n"},
    {"list /", "undeclared_list: /\n"},
    {"stat /usr/bin/no-such-program", "undeclared_path: /usr/bin/no-such-program\n"},
    {"list /usr/bin", "undeclared_list: /usr/bin\n"},
    {"read /proc/self/status", "undeclared_path: /proc/self/status\n"},
    {"read /tmp/left-by-another", "undeclared_path: /tmp/left-by-another\n"},
    {"read @/obs/seed", "undeclared_path: @/obs/seed\n"},
    {"env SECRET", "undeclared_env: SECRET\n"},
    {"env CARGO_MANIFEST_DIR", "path_value: CARGO_MANIFEST_DIR\n"},
    {"clock now", "clock: clock_gettime\n"},
    {"program no-such-program", "program: no-such-program\n"},
    {"program true", "program: true\n"},
    {"program ./tool", "program: @/ws/pkg/./tool\n"},
    {"number 135", "raw_syscall: 135\n"},
    {"connect 127.0.0.1:1", "network: connect\nnetwork: socket\n"},
    {"write data.txt", "write: @/ws/pkg/data.txt\n"},
    {"write @/target/extra", "write: @/target/extra\n"},
    {"cpus count", "identity: sched_getaffinity\nundeclared_path: /proc/self/cgroup\n..."},
    {"set NAME", "environ\n"},
    {"cwd ask", "identity: getcwd\n"},
    {"canonical src", "identity: getcwd\n"},
};

static char *expand(const char *text) {
    struct kiln_buf out = KILN_BUF_INIT(1 << 16);
    for (; *text; text++) {
        if (*text == '@')
            kiln_buf_add_str(&out, kiln_sandbox_root());
        else
            kiln_buf_add_u8(&out, (uint8_t)*text);
    }
    kiln_buf_add_u8(&out, 0);
    return (char *)kiln_buf_steal(&out, NULL);
}

struct args {
    char *all[ARGS_MAX];
    size_t count;
};

static void add(struct args *args, const char *text) {
    assert_true(args->count + 1 < ARGS_MAX);
    args->all[args->count++] = expand(text);
}

static void add_all(struct args *args, const char *words) {
    char *copy = strdup(words), *rest = copy;
    for (char *word; (word = strsep(&rest, " "));)
        if (*word)
            add(args, word);
    free(copy);
}

static void release(struct args *args) {
    for (size_t i = 0; i < args->count; i++)
        free(args->all[i]);
}

// Runs `program` with the words; its exit code, what it said in *said.
static int run(const struct scratch *scratch, const char *program, struct args *args, struct kiln_buf *said) {
    struct kiln_proc_options options = {
        .program = program, .argv = args->all, .envp = plain_env, .cwd = scratch->path};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    struct kiln_err err = {0};
    int status;
    assert_ok(kiln_proc_run(&options, kiln_clock_ms() + DEADLINE_MS, &out, said, &status, &err));
    kiln_buf_add(said, out.data, out.len);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void build_outside(const struct scratch *scratch, const char *words) {
    char program[300];
    snprintf(program, sizeof program, "%s/bin/rustc", sysroot);
    struct args args = {0};
    add(&args, program);
    add_all(&args, words);
    kiln_autobuf struct kiln_buf said = KILN_BUF_INIT(1 << 20);
    if (run(scratch, program, &args, &said) != 0)
        fail_msg("%s: %s", words, kiln_buf_text(&said));
    release(&args);
}

static void add_bind(struct args *args, const char *how, const struct scratch *scratch, const char *from,
                     const char *to) {
    add(args, how);
    add(args, scratch_path(scratch, from));
    add(args, to);
}

// The root that kiln-run makes, as far as the observer can tell.
static void add_root(struct args *args, const struct scratch *scratch, bool observed) {
    add_all(args, "bwrap --unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --die-with-parent "
                  "--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin "
                  "--symlink /usr/bin/gcc /etc/alternatives/cc --symlink /usr/bin/ld.bfd /etc/alternatives/ld "
                  "--proc /proc --dir /dev --dev-bind /dev/null /dev/null --tmpfs /tmp --dir @/home");
    add(args, "--ro-bind");
    add(args, sysroot);
    add(args, "@/sysroot");
    add_bind(args, "--ro-bind", scratch, "obs/seed", "/dev/urandom");
    add_bind(args, "--bind", scratch, "obs", "@/obs");
    add_bind(args, "--bind", scratch, "target", "@/target");
    add_bind(args, "--ro-bind", scratch, "pkg", "@/ws/pkg");
    add_bind(args, "--ro-bind", scratch, "deps", "@/deps");
    add_bind(args, "--ro-bind", scratch, observed ? "preload" : "no-preload", "/etc/ld.so.preload");
    add_all(args, "--chdir @/ws/pkg --clearenv --setenv PATH /usr/bin --setenv HOME @/home --setenv TMPDIR /tmp "
                  "--setenv CARGO_PKG_NAME pkg --setenv CARGO_MANIFEST_DIR @/ws/pkg --");
}

// The world that this root is; the strings live as long as the test.
static const struct kiln_witness_world *get_world(void) {
    static struct kiln_witness_mount mounts[2];
    static const char *tools[5], *withheld[1];
    static const char *const names[] = {"CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "ABSENT_BUT_DECLARED", "RUST_MIN_STACK"};
    static const char *const path_values[] = {"CARGO_MANIFEST_DIR"};
    static struct kiln_witness_world world;
    if (world.mounts)
        return &world;
    mounts[0] = (struct kiln_witness_mount){expand("@/ws/pkg"), 1, 0};
    mounts[1] = (struct kiln_witness_mount){expand("@/deps"), 0, 1};
    const char *const places[] = {"@/sysroot", "/usr", "/lib", "/lib64", "/bin"};
    for (size_t i = 0; i < 5; i++)
        tools[i] = expand(places[i]);
    withheld[0] = expand("@/ws/pkg/sub/.git");
    world = (struct kiln_witness_world){
        .mounts = mounts, .mounts_count = 2, .tool_prefixes = tools, .tool_prefixes_count = 5, .withheld = withheld,
        .withheld_count = 1, .out_dir = expand("@/target"), .tmp_dir = "/tmp", .observer_dir = expand("@/obs"),
        .cwd = mounts[0].path, .env_names = names, .env_count = 4, .env_path_values = path_values,
        .env_path_count = 1};
    return &world;
}

// Compiles in the sandbox; what was observed in *observed, one a line. The job must end well.
static void compile(const struct scratch *scratch, unsigned char seed, const char *words, struct kiln_buf *observed) {
    rig_make_observer(scratch, "obs", seed);
    struct args args = {0};
    add_root(&args, scratch, true);
    add_all(&args, words);
    kiln_autobuf struct kiln_buf said = KILN_BUF_INIT(1 << 20), log = KILN_BUF_INIT(8 << 20);
    if (run(scratch, "/usr/bin/bwrap", &args, &said) != 0)
        fail_msg("%s: %s", words, kiln_buf_text(&said));
    release(&args);
    rig_read_log(scratch, "obs/log", &log);
    struct kiln_witness_report report;
    struct kiln_err err = {0};
    assert_ok(kiln_witness_read(log.data, log.len, get_world(), &report, &err));
    assert_true(report.events > 10);
    for (size_t i = 0; i < report.count; i++)
        kiln_buf_addf(observed, "%s\n", report.observations[i]);
    kiln_witness_report_release(&report);
}

static void write_text(const struct scratch *scratch, const char *name, const char *text) {
    scratch_write(scratch, name, text, strlen(text));
}

static int make_package(void **state) {
    scratch_setup(state);
    const struct scratch *scratch = *state;
    static const char *const dirs[] = {"pkg", "pkg/src", "pkg/sub", "deps", "target"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        mkdirat(scratch->fd, dirs[i], 0755);
    write_text(scratch, "pkg/data.txt", "data\n");
    write_text(scratch, "pkg/.env", "SECRET=1\n");
    write_text(scratch, "pkg/sub/x.txt", "x\n");
    kiln_autofree char *preload = expand("@/obs/libkiln-observe.so\n");
    write_text(scratch, "preload", preload);
    write_text(scratch, "no-preload", "");
    build_outside(scratch, "--edition 2021 --crate-type proc-macro --crate-name actor --out-dir deps -A warnings "
                           KILN_SOURCE_DIR "/tests/integration/observed_macro.rs");
    return 0;
}

static void test_macros(void **state) {
    const struct scratch *scratch = *state;
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        kiln_autofree char *deed = expand(deeds[i].deed);
        kiln_autofree char *want = expand(deeds[i].observations);
        char source[512];
        snprintf(source, sizeof source, "actor::act!(\"%s\");\n", deed);
        write_text(scratch, "pkg/src/lib.rs", source);
        kiln_autobuf struct kiln_buf observed = KILN_BUF_INIT(1 << 16);
        compile(scratch, 's',
                "@/sysroot/bin/rustc --edition 2021 --crate-type lib --crate-name pkg --emit metadata src/lib.rs "
                "--out-dir @/target -L dependency=@/deps --extern actor=@/deps/libactor.so",
                &observed);
        char *more = strstr(want, "...");
        size_t len = more ? (size_t)(more - want) : SIZE_MAX;
        if (strncmp(kiln_buf_text(&observed), want, len) != 0)
            fail_msg("%s: %s", deed, kiln_buf_text(&observed));
    }
}

static void test_ordinary_crates_report_nothing(void **state) {
    static const char *const kinds[] = {
        "rustc --crate-type lib --emit dep-info,metadata,link",
        "rustc --crate-type lib --emit dep-info,metadata",
        "rustc --crate-type bin --emit dep-info,link -C debuginfo=2",
        "rustc --crate-type bin -C opt-level=3 -C lto=fat -C codegen-units=1",
        "rustc --crate-type bin -C link-arg=-fuse-ld=bfd",
        "rustc --crate-type bin -C linker-features=-lld -C split-debuginfo=unpacked -C debuginfo=2",
        "rustc --crate-type rlib --crate-type cdylib --crate-type staticlib",
        "rustc --crate-type dylib -C prefer-dynamic",
        "rustc --crate-type proc-macro",
        "rustc --test",
        "clippy-driver @/sysroot/bin/rustc --crate-type lib --emit metadata --sysroot @/sysroot",
    };
    const struct scratch *scratch = *state;
    write_text(scratch, "pkg/src/sub.rs", "pub const TEXT: &str = include_str!(\"../data.txt\");\n");
    write_text(scratch, "pkg/src/lib.rs", "mod sub;\n#[allow(dead_code)] fn text() -> &'static str { sub::TEXT }\n"
                                          "#[allow(dead_code)] fn main() { println!(\"{}\", text()); }\n"
                                          "actor::act!(\"read data.txt\");\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char words[512];
        snprintf(words, sizeof words,
                 "@/sysroot/bin/%s --edition 2021 --crate-name pkg src/lib.rs --out-dir @/target -A warnings "
                 "-L dependency=@/deps --extern actor=@/deps/libactor.so",
                 kinds[i]);
        kiln_autobuf struct kiln_buf observed = KILN_BUF_INIT(1 << 16);
        compile(scratch, 's', words, &observed);
        if (observed.len)
            fail_msg("%s: %s", kinds[i], kiln_buf_text(&observed));
    }
}

static void compile_order(const struct scratch *scratch, unsigned char seed, struct kiln_buf *metadata) {
    kiln_autobuf struct kiln_buf observed = KILN_BUF_INIT(1 << 16);
    compile(scratch, seed,
            "@/sysroot/bin/rustc --edition 2021 --crate-type lib --crate-name pkg --emit metadata src/lib.rs "
            "--out-dir @/target -L dependency=@/deps --extern actor=@/deps/libactor.so",
            &observed);
    assert_string_equal(kiln_buf_text(&observed), "");
    struct kiln_err err = {0};
    assert_ok(kiln_fs_read_file(scratch->fd, "target/libpkg.rmeta", metadata, &err));
}

// What macros make of the order of a hash map, a directory, their process and their threads.
static void test_macros_repeat(void **state) {
    enum { RUNS = 20 };
    const struct scratch *scratch = *state;
    write_text(scratch, "pkg/src/lib.rs", "actor::order!();\nactor::process!();\n");
    mkdirat(scratch->fd, "pkg/src/many", 0755);
    for (int i = 0; i < 40; i++) {
        char name[64];
        snprintf(name, sizeof name, "pkg/src/many/%x", (unsigned)i * 2654435761u);
        write_text(scratch, name, "");
    }
    kiln_autobuf struct kiln_buf first = KILN_BUF_INIT(1 << 20);
    compile_order(scratch, 's', &first);
    for (int i = 1; i < RUNS; i++) {
        kiln_autobuf struct kiln_buf next = KILN_BUF_INIT(1 << 20);
        compile_order(scratch, 's', &next);
        if (next.len != first.len || memcmp(next.data, first.data, first.len))
            fail_msg("run %d gave other bytes", i);
    }
}

// Preloading the observer changes nothing where no macro is.
static void test_ordinary_crates_come_out_the_same(void **state) {
    static const struct {
        const char *words, *made;
    } kinds[] = {{"--crate-type lib --emit metadata,link", "libpkg.rlib"},
                 {"--crate-type lib --emit metadata", "libpkg.rmeta"},
                 {"--crate-type bin -C debuginfo=2", "pkg"},
                 {"--crate-type cdylib -C opt-level=3", "libpkg.so"}};
    const struct scratch *scratch = *state;
    write_text(scratch, "pkg/src/lib.rs", "pub fn f() -> std::collections::HashMap<u32, String> { (0..9).map(|i| (i, format!(\"{i}\"))).collect() }\n"
                                          "#[allow(dead_code)] fn main() { println!(\"{:?}\", f()); }\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct kiln_buf made[2] = {KILN_BUF_INIT(64u << 20), KILN_BUF_INIT(64u << 20)};
        for (int observed = 0; observed < 2; observed++) {
            struct args args = {0};
            char name[64];
            snprintf(name, sizeof name, "target/%s", kinds[i].made);
            rig_make_observer(scratch, "obs", 's');
            add_root(&args, scratch, observed);
            add_all(&args, "@/sysroot/bin/rustc --edition 2021 --crate-name pkg src/lib.rs --out-dir @/target");
            add_all(&args, kinds[i].words);
            kiln_autobuf struct kiln_buf said = KILN_BUF_INIT(1 << 20);
            if (run(scratch, "/usr/bin/bwrap", &args, &said))
                fail_msg("%s: %s", kinds[i].words, kiln_buf_text(&said));
            release(&args);
            struct kiln_err err = {0};
            assert_ok(kiln_fs_read_file(scratch->fd, name, &made[observed], &err));
            assert_int_equal(unlinkat(scratch->fd, name, 0), 0);
        }
        if (made[0].len != made[1].len || memcmp(made[0].data, made[1].data, made[0].len))
            fail_msg("%s differs with the observer", kinds[i].made);
        kiln_buf_release(&made[0]);
        kiln_buf_release(&made[1]);
    }
}

static void test_hash_maps_of_macros_repeat(void **state) {
    const struct scratch *scratch = *state;
    write_text(scratch, "pkg/src/lib.rs", "actor::order!();\n");
    kiln_autobuf struct kiln_buf first = KILN_BUF_INIT(1 << 20), second = KILN_BUF_INIT(1 << 20),
                                 other = KILN_BUF_INIT(1 << 20);
    compile_order(scratch, 's', &first);
    compile_order(scratch, 's', &second);
    compile_order(scratch, 't', &other);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    assert_true(other.len != first.len || memcmp(other.data, first.data, first.len) != 0);
}

static void test_macro_objects(void **state) {
    static const struct {
        const char *source, *flags, *file;
        enum kiln_macro_verdict want;
    } table[] = {
        {"let n = std::env::var(\"X\").is_ok() || std::fs::read(\"y\").is_ok(); if n { panic!() } t", "", "libm.so",
         KILN_MACRO_SEEN},
        {"let m: std::collections::HashMap<u8, u8> = (0..9).map(|x| (x, x)).collect(); if m.len() == 3 { panic!() } t",
         "-C opt-level=3", "libm.so", KILN_MACRO_SEEN},
        {"let f = std::fs::File::create(\"/tmp/x\"); if f.is_ok() { panic!() } t",
         "-g -C link-arg=-fuse-ld=bfd -C link-arg=-Wl,-z,noseparate-code", "libm.so", KILN_MACRO_SEEN},
        {"let r: i64; unsafe { std::arch::asm!(\"syscall\", inlateout(\"rax\") 39i64 => r, out(\"rcx\") _, "
         "out(\"r11\") _) }; if r < 0 { panic!() } t",
         "", "libm.so", KILN_MACRO_SYSCALL},
        {"unsafe { std::arch::asm!(\"int 0x80\", inlateout(\"rax\") 20i64 => _) }; t", "-C opt-level=3", "libm.so",
         KILN_MACRO_SYSCALL},
        {"if std::env::vars().count() > 99999 { panic!() } t", "", "libm.so", KILN_MACRO_ENVIRON},
        {"if helper::help() { panic!() } t", "-C prefer-dynamic --extern helper=libhelper.so", "libm.so",
         KILN_MACRO_UNKNOWN},
    };
    const struct scratch *scratch = *state;
    write_text(scratch, "helper.rs", "pub fn help() -> bool { std::env::var(\"X\").is_ok() }\n");
    build_outside(scratch, "--crate-type dylib -C prefer-dynamic --crate-name helper helper.rs");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char source[1024], words[512];
        snprintf(source, sizeof source,
                 "extern crate proc_macro; use proc_macro::TokenStream;\n"
                 "#[proc_macro] pub fn act(t: TokenStream) -> TokenStream { %s }\n",
                 table[i].source);
        write_text(scratch, "m.rs", source);
        snprintf(words, sizeof words, "--edition 2021 --crate-type proc-macro --crate-name m %s m.rs -L .",
                 table[i].flags);
        build_outside(scratch, words);
        kiln_autofd int fd = openat(scratch->fd, table[i].file, O_RDONLY | O_CLOEXEC);
        enum kiln_macro_verdict verdict;
        struct kiln_err err = {0};
        assert_ok(kiln_macro_object_check(fd, &verdict, &err));
        if (verdict != table[i].want)
            fail_msg("%s: %s", table[i].source, kiln_macro_verdict_name(verdict));
    }
}

// The toolchain of the directory the tests run in; false when there is none.
static bool find_sysroot(void) {
    char *argv[] = {TEXT("/usr/bin/env"), TEXT("rustc"), TEXT("--print"), TEXT("sysroot"), NULL};
    extern char **environ;
    struct kiln_proc_options options = {.program = "/usr/bin/env", .argv = argv, .envp = environ};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(sizeof sysroot - 1), errout = KILN_BUF_INIT(1 << 16);
    int status;
    if (kiln_proc_run(&options, kiln_clock_ms() + DEADLINE_MS, &out, &errout, &status, NULL) || status || out.len < 2)
        return false;
    snprintf(sysroot, sizeof sysroot, "%.*s", (int)out.len - 1, (const char *)out.data);
    return true;
}

int main(void) {
    if (access("/usr/bin/bwrap", X_OK) < 0 || !find_sysroot()) {
        puts("skipped: needs bubblewrap and rustc");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_macros, make_package, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_ordinary_crates_report_nothing, make_package, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_macros_repeat, make_package, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_ordinary_crates_come_out_the_same, make_package, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_hash_maps_of_macros_repeat, make_package, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_macro_objects, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
