#include "consumer/preload/observe.h"
#include "consumer/run/witness.h"
#include "tests/unit/scratch.h"

static const struct kiln_witness_mount mounts[] = {
    {"/b/ws/pkg", 1, 0}, {"/b/ws/pkg/.hidden/member", 0, 0}, {"/b/out", 0, 1}, {"/b/deps", 0, 1}, {"/b/reg/x-1.0.0", 1, 0},
};
static const char *const tools[] = {"/b/sysroot", "/usr", "/lib64"};
static const char *const withheld[] = {"/b/ws/pkg/vendor/.git", "/b/ws/pkg/vendor/cache"};
static const char *const names[] = {"DECLARED", "OUT_DIR"};
static const char *const path_values[] = {"OUT_DIR"};

static bool is_carried(const char *name) { return !strcmp(name, "CARRIED"); }

static const struct kiln_witness_world world = {
    .mounts = mounts,
    .mounts_count = 5,
    .tool_prefixes = tools,
    .tool_prefixes_count = 3,
    .withheld = withheld,
    .withheld_count = 2,
    .out_dir = "/b/target",
    .tmp_dir = "/tmp",
    .observer_dir = "/b/obs",
    .cwd = "/b/ws",
    .env_names = names,
    .env_count = 2,
    .env_path_values = path_values,
    .env_path_count = 1,
    .env_is_carried = is_carried,
};

struct log {
    unsigned char bytes[64 << 10];
    size_t len;
};

static void begin_log(struct log *log) {
    const struct kiln_observe_header header = {.magic = KILN_OBSERVE_MAGIC,
                                               .version = KILN_OBSERVE_VERSION,
                                               .capacity = sizeof log->bytes - sizeof header};
    memset(log->bytes, 0, sizeof log->bytes);
    memcpy(log->bytes, &header, sizeof header);
    log->len = sizeof header;
}

static void set_used(struct log *log, uint32_t used) {
    memcpy(log->bytes + offsetof(struct kiln_observe_header, used), &used, sizeof used);
}

static void add_event(struct log *log, unsigned kind, unsigned caller, int result, const char *text) {
    struct kiln_observe_entry entry = {.kind = (uint8_t)kind,
                                       .caller = (uint8_t)caller,
                                       .result = result,
                                       .text_length = (uint32_t)strlen(text)};
    entry.length = (uint16_t)((sizeof entry + entry.text_length + 3) & ~(size_t)3);
    memcpy(log->bytes + log->len, &entry, sizeof entry);
    memcpy(log->bytes + log->len + sizeof entry, text, entry.text_length);
    log->len += entry.length;
    set_used(log, (uint32_t)(log->len - sizeof(struct kiln_observe_header)));
}

static struct kiln_witness_report read_all(const struct log *log) {
    struct kiln_witness_report report;
    struct kiln_err err = {0};
    assert_ok(kiln_witness_read(log->bytes, sizeof log->bytes, &world, &report, &err));
    return report;
}

static void expect_only(const struct log *log, const char *what) {
    struct kiln_witness_report report = read_all(log);
    if (report.count != (what ? 1 : 0) || (what && strcmp(report.observations[0], what) != 0))
        fail_msg("%s: %zu, %s", what ? what : "nothing", report.count, report.count ? report.observations[0] : "");
    kiln_witness_report_release(&report);
}

enum { TOOL = KILN_CALLER_TOOL, MACRO = KILN_CALLER_MACRO };
enum {
    OPEN = KILN_OBSERVE_OPEN,
    STAT = KILN_OBSERVE_STAT,
    LIST = KILN_OBSERVE_LIST,
    EXEC = KILN_OBSERVE_EXEC,
    WRITE = KILN_OBSERVE_WRITE,
    DLOPEN = KILN_OBSERVE_DLOPEN,
};

static const struct {
    unsigned kind, caller;
    int result;
    const char *text, *want; // NULL: nothing to report
} events[] = {
    // declared
    {OPEN, MACRO, 0, "/b/ws/pkg/src/lib.rs", NULL},
    {OPEN, MACRO, 2, "/b/ws/pkg/absent", NULL},
    {STAT, MACRO, 0, "/b/ws/pkg", NULL},
    {LIST, MACRO, 0, "/b/ws/pkg/src", NULL},
    {LIST, MACRO, 0, "/b/ws/pkg/src/.", NULL},
    {OPEN, MACRO, 0, "/b/out/generated.rs", NULL},
    {OPEN, MACRO, 0, "/b/deps/libx.rlib", NULL},
    {OPEN, MACRO, 0, "/b/ws/./pkg//src/../Cargo.toml", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/.hidden/member/x", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/src/.hidden", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/src/target", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/targets", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/tar", NULL},
    {OPEN, MACRO, 0, "/b/ws/pkg/vendor/.gitignore", NULL},
    {OPEN, TOOL, 0, "/b/deps/libx.rlib", NULL},
    {LIST, TOOL, 0, "/b/deps", NULL},
    {DLOPEN, TOOL, 0, "/b/deps/libm.so", NULL},
    // a part of what the client has
    {LIST, MACRO, 0, "/b/out", "undeclared_list: /b/out"},
    {LIST, MACRO, 0, "/b/deps", "undeclared_list: /b/deps"},
    {STAT, MACRO, 2, "/b/deps/liby.rlib", "undeclared_path: /b/deps/liby.rlib"},
    {STAT, TOOL, 2, "/b/deps/liby.rlib", NULL},
    // withheld
    {LIST, MACRO, 0, "/b/ws/pkg", "undeclared_list: /b/ws/pkg"},
    {LIST, MACRO, 0, "/b/ws/pkg/src/..", "undeclared_list: /b/ws/pkg"},
    {LIST, TOOL, 0, "/b/ws/pkg", "undeclared_list: /b/ws/pkg"},
    {OPEN, MACRO, 2, "/b/ws/pkg/.env", "undeclared_path: /b/ws/pkg/.env"},
    {STAT, MACRO, 2, "/b/ws/pkg/target", "undeclared_path: /b/ws/pkg/target"},
    {STAT, MACRO, 2, "/b/ws/pkg/target/debug/x", "undeclared_path: /b/ws/pkg/target/debug/x"},
    {STAT, MACRO, 2, "/b/ws/pkg/.hidden/other", "undeclared_path: /b/ws/pkg/.hidden/other"},
    {STAT, TOOL, 2, "/b/reg/x-1.0.0/.cargo/config", "undeclared_path: /b/reg/x-1.0.0/.cargo/config"},
    {STAT, MACRO, 2, "/b/ws/pkg/vendor/.git", "undeclared_path: /b/ws/pkg/vendor/.git"},
    {STAT, MACRO, 2, "/b/ws/pkg/vendor/cache/a/b", "undeclared_path: /b/ws/pkg/vendor/cache/a/b"},
    {LIST, MACRO, 0, "/b/ws/pkg/vendor", "undeclared_list: /b/ws/pkg/vendor"},
    // beside and above
    {OPEN, MACRO, 2, "/b/ws/Cargo.toml", "undeclared_path: /b/ws/Cargo.toml"},
    {OPEN, TOOL, 2, "/b/ws/Cargo.lock", "undeclared_path: /b/ws/Cargo.lock"},
    {OPEN, TOOL, 2, "/b/ws/Cargo.toml", NULL},
    {OPEN, TOOL, 0, "/b/ws/Cargo.toml", "undeclared_path: /b/ws/Cargo.toml"},
    {OPEN, MACRO, 2, "/b/ws/pkg2/x", "undeclared_path: /b/ws/pkg2/x"},
    {OPEN, MACRO, 2, "/b/ws/pkg/../../../etc/passwd", "undeclared_path: /etc/passwd"},
    {OPEN, MACRO, 2, "/../etc/passwd", "undeclared_path: /../etc/passwd"},
    {STAT, MACRO, 0, "/b/ws", NULL},
    {STAT, MACRO, 0, "/b", NULL},
    {STAT, MACRO, 0, "/", NULL},
    {LIST, MACRO, 0, "/b/ws", "undeclared_list: /b/ws"},
    {LIST, MACRO, 0, "/", "undeclared_list: /"},
    {LIST, TOOL, 0, "/", "undeclared_list: /"},
    {STAT, TOOL, 0, "/b/ws", NULL},
    {STAT, MACRO, 2, "/c", "undeclared_path: /c"},
    // the toolchain: what is found there is keyed, what is not may be on the client
    {OPEN, MACRO, 0, "/usr/lib/libc.so.6", NULL},
    {STAT, MACRO, 2, "/usr/bin/git", "undeclared_path: /usr/bin/git"},
    {LIST, MACRO, 0, "/usr/share", "undeclared_list: /usr/share"},
    {OPEN, MACRO, 2, "/b/sysroot/lib/rustlib/src/rust/library/core/src/lib.rs",
     "undeclared_path: /b/sysroot/lib/rustlib/src/rust/library/core/src/lib.rs"},
    {OPEN, TOOL, 2, "/b/sysroot/lib/absent", NULL},
    {LIST, TOOL, 0, "/usr/lib", NULL},
    {DLOPEN, MACRO, 0, "libssl.so.3", "library: libssl.so.3"},
    {DLOPEN, MACRO, 0, "/b/ws/pkg/plugin.so", "library: /b/ws/pkg/plugin.so"},
    {DLOPEN, MACRO, 0, "/usr/lib/libz.so.1", "library: /usr/lib/libz.so.1"},
    {DLOPEN, TOOL, 0, "libssl.so.3", NULL},
    {DLOPEN, MACRO, 0, "/opt/libssl.so.3", "library: /opt/libssl.so.3"},
    // the job's own places
    {OPEN, TOOL, 2, "/b/target/x.d", NULL},
    {LIST, TOOL, 0, "/b/target", NULL},
    {OPEN, MACRO, 2, "/b/target/x.d", "undeclared_path: /b/target/x.d"},
    {LIST, MACRO, 0, "/b/target", "undeclared_list: /b/target"},
    {WRITE, MACRO, 0, "/b/target/x", "write: /b/target/x"},
    {WRITE, MACRO, 0, "/tmp/x", NULL},
    {OPEN, MACRO, 0, "/tmp/x", NULL},
    {OPEN, MACRO, 2, "/tmp/x", "undeclared_path: /tmp/x"},
    {WRITE, MACRO, 30, "/b/out/x", "write: /b/out/x"},
    {WRITE, MACRO, 0, "/tmp/../b/obs/log", "write: /b/obs/log"},
    {WRITE, MACRO, 0, "relative", "write: relative"},
    {WRITE, TOOL, 0, "/anywhere", NULL},
    {OPEN, MACRO, 0, "/b/obs/seed", "undeclared_path: /b/obs/seed"},
    {OPEN, TOOL, 0, "/b/obs/seed", "undeclared_path: /b/obs/seed"},
    {OPEN, MACRO, 0, "/dev/urandom", NULL},
    {WRITE, MACRO, 0, "/dev/null", NULL},
    {OPEN, MACRO, 0, "/dev/sda", "undeclared_path: /dev/sda"},
    // fixed patterns, for tools only
    {STAT, TOOL, 2, "/etc/malloc.conf", NULL},
    {STAT, MACRO, 2, "/etc/malloc.conf", "undeclared_path: /etc/malloc.conf"},
    {OPEN, TOOL, 0, "/proc/sys/vm/overcommit_memory", NULL},
    {OPEN, TOOL, 0, "/proc/cpuinfo", "undeclared_path: /proc/cpuinfo"},
    {STAT, TOOL, 0, "/proc/self/exe", NULL},
    {STAT, MACRO, 0, "/proc/self/exe", "undeclared_path: /proc/self/exe"},
    {STAT, TOOL, 2, "/b/ws/-lutil", NULL},
    {STAT, TOOL, 0, "/b/ws/-lutil", "undeclared_path: /b/ws/-lutil"},
    {OPEN, MACRO, 0, "/proc/self/maps", "undeclared_path: /proc/self/maps"},
    {OPEN, TOOL, 2, "/rustc/abc/library/core/src/panic.rs", NULL},
    {OPEN, TOOL, 0, "/rustc/abc/library/core/src/panic.rs",
     "undeclared_path: /rustc/abc/library/core/src/panic.rs"},
    {OPEN, TOOL, 2, "/kiln/quote-1.0.0/src/lib.rs", NULL},
    {OPEN, MACRO, 2, "/kiln/quote-1.0.0/src/lib.rs", "undeclared_path: /kiln/quote-1.0.0/src/lib.rs"},
    {OPEN, TOOL, 2, "/b/ws/other/src/lib.rs", NULL},
    {OPEN, TOOL, 0, "/b/ws/other/src/lib.rs", "undeclared_path: /b/ws/other/src/lib.rs"},
    {STAT, TOOL, 2, "/b/ws/clippy.toml", NULL},
    {STAT, TOOL, 2, "/b/ws/pkg/.clippy.toml", NULL},
    {STAT, TOOL, 0, "/b/ws/pkg/.clippy.toml", "undeclared_path: /b/ws/pkg/.clippy.toml"},
    {STAT, TOOL, 2, "/b/ws/libgcc_s.so.1", NULL},
    {STAT, TOOL, 2, "/b/ws/libgcc_s.so.2", "undeclared_path: /b/ws/libgcc_s.so.2"},
    {OPEN, TOOL, 2, "/etc/passwd", "undeclared_path: /etc/passwd"},
    // programs
    {EXEC, TOOL, 0, "cc", NULL},
    {EXEC, TOOL, 0, "/usr/lib/gcc/collect2", NULL},
    {EXEC, TOOL, 0, "/opt/bin/ld", "undeclared_path: /opt/bin/ld"},
    {EXEC, MACRO, 0, "git", "program: git"},
    {EXEC, MACRO, 0, "/usr/bin/git", "program: /usr/bin/git"},
    // the rest
    {KILN_OBSERVE_GETENV, MACRO, 0, "DECLARED", NULL},
    {KILN_OBSERVE_GETENV, MACRO, 0, "RUST_BACKTRACE", NULL},
    {KILN_OBSERVE_GETENV, MACRO, 0, "DECLARE", "undeclared_env: DECLARE"},
    {KILN_OBSERVE_GETENV, MACRO, 0, "", "undeclared_env: "},
    {KILN_OBSERVE_GETENV, MACRO, 0, "OUT_DIR", "path_value: OUT_DIR"},
    {KILN_OBSERVE_GETENV, MACRO, 0, "CARRIED", NULL},
    {KILN_OBSERVE_GETENV, MACRO, 0, "HOME", "undeclared_env: HOME"},
    {KILN_OBSERVE_GETENV, TOOL, 0, "OTHER", NULL},
    {KILN_OBSERVE_CLOCK, MACRO, 0, "time", "clock: time"},
    {KILN_OBSERVE_CLOCK, TOOL, 0, "time", NULL},
    {KILN_OBSERVE_NET, MACRO, 0, "socket", "network: socket"},
    {KILN_OBSERVE_SYSCALL, MACRO, 0, "135", "raw_syscall: 135"},
    {KILN_OBSERVE_ENVIRON, MACRO, 0, "setenv", "environ"},
    {KILN_OBSERVE_IDENTITY, MACRO, 0, "getuid", "identity: getuid"},
    // what ends on a screen
    {KILN_OBSERVE_GETENV, MACRO, 0, "a\x1b[31m\\\n\xc3", "undeclared_env: a\\x1b[31m\\x5c\\x0a\\xc3"},
};

static void test_events(void **state) {
    (void)state;
    static struct log log;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        begin_log(&log);
        add_event(&log, OPEN, TOOL, 0, "");
        add_event(&log, events[i].kind, events[i].caller, events[i].result, events[i].text);
        struct kiln_witness_report report = read_all(&log);
        const char *got = report.count ? report.observations[0] : NULL;
        if (report.count > 1 || !got != !events[i].want || (got && strcmp(got, events[i].want) != 0))
            fail_msg("row %zu, %s: got %s", i, events[i].text, got ? got : "nothing");
        assert_int_equal(report.events, 2);
        kiln_witness_report_release(&report);
    }
}

static void test_nothing_declared(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    add_event(&log, KILN_OBSERVE_GETENV, MACRO, 0, "OUT_DIR");
    struct kiln_witness_world without = world;
    without.env_count = without.env_path_count = 0;
    without.env_is_carried = NULL;
    struct kiln_witness_report report;
    assert_int_equal(kiln_witness_read(log.bytes, sizeof log.bytes, &without, &report, NULL), 0);
    assert_int_equal(report.count, 1);
    assert_string_equal(report.observations[0], "undeclared_env: OUT_DIR");
    kiln_witness_report_release(&report);
}

static void test_sorted_and_unique(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    add_event(&log, OPEN, MACRO, 2, "/z");
    add_event(&log, OPEN, TOOL, 0, "");
    add_event(&log, STAT, MACRO, 13, "/z");
    add_event(&log, KILN_OBSERVE_CLOCK, MACRO, 0, "time");
    add_event(&log, OPEN, MACRO, 2, "/a");
    struct kiln_witness_report report = read_all(&log);
    assert_int_equal(report.events, 5);
    assert_int_equal(report.count, 3);
    assert_string_equal(report.observations[0], "clock: time");
    assert_string_equal(report.observations[1], "undeclared_path: /a");
    assert_string_equal(report.observations[2], "undeclared_path: /z");
    kiln_witness_report_release(&report);
}

static void test_many(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    for (int i = 0; i < 1000; i++) {
        char path[32];
        snprintf(path, sizeof path, "/absent/%d", i);
        add_event(&log, OPEN, MACRO, 2, path);
    }
    struct kiln_witness_report report = read_all(&log);
    assert_int_equal(report.count, 64);
    assert_int_equal(report.events, 1001);
    kiln_witness_report_release(&report);
}

static void test_no_observer(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    expect_only(&log, "observer_missing");
    add_event(&log, OPEN, MACRO, 0, "");
    struct kiln_witness_report report = read_all(&log); // a macro's word is none
    assert_int_equal(report.count, 2);
    assert_string_equal(report.observations[0], "observer_missing");
    kiln_witness_report_release(&report);
}

static void test_overflow(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    add_event(&log, KILN_OBSERVE_CLOCK, MACRO, 0, "time");
    set_used(&log, UINT32_MAX);
    struct kiln_witness_report report = read_all(&log);
    assert_int_equal(report.count, 2);
    assert_string_equal(report.observations[0], "clock: time");
    assert_string_equal(report.observations[1], "observer_overflow");
    kiln_witness_report_release(&report);
}

static void test_bad_headers(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    for (size_t at = 0; at < 12; at += 4) {
        begin_log(&log);
        log.bytes[at + 3] ^= 0x40; // magic, version, capacity
        expect_only(&log, "observer_corrupt");
    }
    for (size_t len = 0; len < sizeof(struct kiln_observe_header); len++) {
        struct kiln_witness_report report;
        assert_int_equal(kiln_witness_read(log.bytes, len, &world, &report, NULL), 0);
        assert_int_equal(report.count, 1);
        assert_string_equal(report.observations[0], "observer_corrupt");
        kiln_witness_report_release(&report);
    }
}

static void spoil(struct log *log, size_t offset, const void *with, size_t len) {
    begin_log(log);
    add_event(log, OPEN, TOOL, 0, "");
    size_t at = log->len;
    add_event(log, OPEN, TOOL, 0, "/usr/lib/x");
    memcpy(log->bytes + at + offset, with, len);
    expect_only(log, "observer_corrupt");
}

static void test_bad_entries(void **state) {
    (void)state;
    static struct log log;
    static const uint16_t lengths[] = {0, 4, 8, 12, 20, 22, 25, 28, 65532, 65535};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        spoil(&log, offsetof(struct kiln_observe_entry, length), &lengths[i], 2);
    static const uint32_t text_lengths[] = {0, 8, 13, 8193, UINT32_MAX, UINT32_MAX - 11};
    for (size_t i = 0; i < sizeof text_lengths / sizeof *text_lengths; i++)
        spoil(&log, offsetof(struct kiln_observe_entry, text_length), &text_lengths[i], 4);
    spoil(&log, offsetof(struct kiln_observe_entry, kind), "\0", 1);
    spoil(&log, offsetof(struct kiln_observe_entry, kind), "\x0d", 1);
    spoil(&log, offsetof(struct kiln_observe_entry, caller), "\x02", 1);
    spoil(&log, sizeof(struct kiln_observe_entry) + 2, "\0", 1);
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    set_used(&log, (uint32_t)(log.len - sizeof(struct kiln_observe_header)) + 4);
    expect_only(&log, "observer_corrupt");
}

// Entries that are whole but for the bound they break: past what is used, past what a text may be.
static void test_long_entries(void **state) {
    (void)state;
    static struct log log;
    static char text[9001] = "/usr/";
    memset(text + 5, 'x', sizeof text - 6);
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    add_event(&log, OPEN, TOOL, 0, text + sizeof text - 41);
    set_used(&log, (uint32_t)(log.len - sizeof(struct kiln_observe_header)) - 4);
    expect_only(&log, "observer_corrupt");
    for (size_t len = 8190; len < 9000; len += 405) {
        begin_log(&log);
        add_event(&log, OPEN, TOOL, 0, "");
        text[len] = 0;
        add_event(&log, OPEN, TOOL, 0, text);
        text[len] = 'x';
        expect_only(&log, len > 8192 ? "observer_corrupt" : NULL);
    }
}

// An entry that reaches exactly to the end of the file, and one byte less.
static void test_end_of_file(void **state) {
    (void)state;
    static struct log log;
    begin_log(&log);
    add_event(&log, OPEN, TOOL, 0, "");
    add_event(&log, OPEN, TOOL, 0, "/usr/lib/xyz");
    uint32_t capacity = (uint32_t)(log.len - sizeof(struct kiln_observe_header));
    memcpy(log.bytes + offsetof(struct kiln_observe_header, capacity), &capacity, 4);
    for (size_t less = 0; less < 2; less++) {
        unsigned char *exact = malloc(log.len - less);
        memcpy(exact, log.bytes, log.len - less);
        struct kiln_witness_report report;
        assert_int_equal(kiln_witness_read(exact, log.len - less, &world, &report, NULL), 0);
        assert_int_equal(report.count, less);
        kiln_witness_report_release(&report);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),      cmocka_unit_test(test_nothing_declared),
        cmocka_unit_test(test_sorted_and_unique), cmocka_unit_test(test_many),
        cmocka_unit_test(test_no_observer), cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_entries), cmocka_unit_test(test_long_entries), cmocka_unit_test(test_end_of_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
