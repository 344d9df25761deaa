// What the preloaded observer records of each entry point, and that it changes nothing else. The program it is tried on
// lies outside the toolchain's places, so it counts as a macro.
#include <openssl/evp.h>
#include <sys/wait.h>

#include "consumer/run/witness.h"
#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "tests/integration/observer_rig.h"

#define CALLS KILN_BINARY_DIR "/tests/observed_calls"

// '@' is the directory the program runs in. What the programs that it runs did is left out.
static const struct {
    const char *group, *events;
} table[] = {
    {"opens", "open 0 @/file\nopen 2 @/absent\nlist 0 @/.\nopen 0 @/sub/inner\nopen 0 /dev/null\nwrite 0 /dev/null\n"},
    {"streams", "open 0 @/file\nopen 2 @/absent\nwrite 0 @/written\nwrite 0 @/file\n"},
    {"stats", "stat 0 @/file\nstat 0 @/link\nstat 2 @/absent\nstat 0 @/sub\nstat 2 @/absent2\nstat 0 @/sub/inner\n"
              "stat 2 @/absent3\nstat 22 @/file\nstat 61 @/file\n"},
    {"canonical", "stat 0 /proc/self/../self/cwd/sub/..\nstat 0 @/link\nidentity 0 getcwd\nstat 2 @/absent\n"},
    {"where", "identity 0 getcwd\nstat 0 @/sub/.\nopen 0 @/sub/inner\nstat 2 @/sub/nowhere\n"},
    {"lists", "list 0 @/sub\nlist 2 @/absent\nopen 0 @/sub\nlist 0 @/.\n"},
    {"writes", "write 0 @/new\nstat 0 @/new\nwrite 0 @/sub/made\nwrite 0 @/dir\nwrite 0 @/dir/moved\n"
               "write 0 @/dir/link\nstat 0 @/file\nwrite 0 @/dir/hard\n"},
    {"variables", "getenv 0 KNOWN\ngetenv 0 UNKNOWN\nenviron 0 setenv\nenviron 0 unsetenv\n"},
    {"clocks", "clock 0 clock_gettime\nclock 0 gettimeofday\nclock 0 time\nclock 0 timespec_get\n"},
    {"network", "net 0 socket\nnet 0 connect\nnet 0 getaddrinfo\nnet 0 getifaddrs\nnet 0 if_nametoindex\n"},
    {"identity", "identity 0 getuid\nidentity 0 uname\nidentity 0 gethostname\nidentity 0 sched_getaffinity\n"
                 "identity 0 sysconf\nidentity 0 localtime\nidentity 0 getpwuid\n"},
    {"numbers", "open 0 @/file\nstat 2 @/absent\nclock 0 clock_gettime\nsyscall 0 135\n"},
    {"programs", "exec 0 /bin/true\nexec 0 true\nexec 0 @/./absent\nexec 0 /bin/sh\nexec 0 sh\n"},
    {"libraries", "dlopen 0 libobserved-none.so\ndlopen 0 @/./sub/inner\ndlopen 0 libkiln-observe-probe.so\n"},
};

static char **many; // names of the files in work/many; NULL: it is not there
static size_t many_count;

static void make_work(const struct scratch *scratch) {
    assert_int_equal(kiln_fs_remove_tree(scratch->fd, "work", NULL), 0);
    assert_int_equal(mkdirat(scratch->fd, "work", 0755), 0);
    assert_int_equal(mkdirat(scratch->fd, "work/sub", 0755), 0);
    scratch_write(scratch, "work/file", "hello\n", 6);
    scratch_write(scratch, "work/sub/inner", "in\n", 3);
    assert_int_equal(symlinkat("file", scratch->fd, "work/link"), 0);
    if (many)
        mkdirat(scratch->fd, "work/many", 0755);
    for (size_t i = 0; many && i < many_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "work/many/%s", many[i]);
        if (many[i][0] != '.')
            scratch_write(scratch, name, "", 0);
    }
}

static void run_calls(const struct scratch *scratch, const char *group, const char *preload, struct kiln_buf *out) {
    char variable[160];
    snprintf(variable, sizeof variable, "LD_PRELOAD=%s", preload ? preload : "");
    char *argv[] = {TEXT(CALLS), TEXT(group), NULL};
    char *envp[] = {TEXT("KNOWN=yes"), TEXT("PATH=/usr/bin:/bin"), preload ? variable : NULL, NULL};
    char cwd[128];
    snprintf(cwd, sizeof cwd, "%s/work", scratch->path);
    make_work(scratch);
    struct kiln_proc_options options = {.program = CALLS, .argv = argv, .envp = envp, .cwd = cwd};
    kiln_autobuf struct kiln_buf errout = KILN_BUF_INIT(1 << 16);
    struct kiln_err err = {0};
    int status;
    assert_ok(kiln_proc_run(&options, kiln_clock_ms() + 30000, out, &errout, &status, &err));
    if (status)
        fail_msg("%s: status %d, %s", group, status, kiln_buf_text(&errout));
    assert_int_equal(errout.len, 0);
}

static void run_observed(const struct scratch *scratch, const char *group, struct kiln_buf *out,
                         struct kiln_buf *log) {
    char object[128];
    snprintf(object, sizeof object, "%s/obs/libkiln-observe.so", scratch->path);
    run_calls(scratch, group, object, out);
    rig_read_log(scratch, "obs/log", log);
}

// The macro's lines of a printed log, with the directory's name as '@'.
static void keep_macro_lines(const struct scratch *scratch, struct kiln_buf *text, struct kiln_buf *kept) {
    char work[128];
    snprintf(work, sizeof work, "%s/work", scratch->path);
    char *copy = strdup(kiln_buf_text(text)), *rest = copy;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (strncmp(line, "macro ", 6) != 0)
            continue;
        char *at = strstr(line, work);
        if (at)
            kiln_buf_addf(kept, "%.*s@%s\n", (int)(at - line - 6), line + 6, at + strlen(work));
        else
            kiln_buf_addf(kept, "%s\n", line + 6);
    }
    free(copy);
}

static void test_calls(void **state) {
    const struct scratch *scratch = *state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf plain = KILN_BUF_INIT(1 << 20), out = KILN_BUF_INIT(1 << 20),
                                     log = KILN_BUF_INIT(8 << 20), text = KILN_BUF_INIT(8 << 20),
                                     events = KILN_BUF_INIT(8 << 20);
        rig_make_observer(scratch, "obs", 's');
        run_calls(scratch, table[i].group, NULL, &plain);
        run_observed(scratch, table[i].group, &out, &log);
        assert_string_equal(kiln_buf_text(&out), kiln_buf_text(&plain));
        rig_print_log(&log, &text);
        assert_int_equal(strncmp(kiln_buf_text(&text), "tool open 0 \n", 13), 0);
        keep_macro_lines(scratch, &text, &events);
        if (strcmp(kiln_buf_text(&events), table[i].events) != 0)
            fail_msg("%s:\n%s", table[i].group, kiln_buf_text(&events));
    }
}

static uint64_t fnv1a(const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

// OpenSSL's ChaCha20 takes block counter and nonce as one vector.
static void expect_stream(unsigned char seed, unsigned char *out, size_t len) {
    unsigned char key[32], vector[16] = {0}, zeros[1024] = {0};
    memset(key, seed, sizeof key);
    uint32_t caller = KILN_CALLER_MACRO;
    uint64_t program = fnv1a("observed_calls");
    memcpy(vector + 4, &caller, 4);
    memcpy(vector + 8, &program, 8);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int done;
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_chacha20(), NULL, key, vector), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, out, &done, zeros, (int)len), 1);
    EVP_CIPHER_CTX_free(ctx);
}

static void add_hex(struct kiln_buf *out, const unsigned char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++)
        kiln_buf_addf(out, "%02x", bytes[i]);
    kiln_buf_add_str(out, "\n");
}

static void test_random_bytes_are_the_seeds(void **state) {
    const struct scratch *scratch = *state;
    for (unsigned char seed = 'a'; seed < 'c'; seed++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), log = KILN_BUF_INIT(8 << 20),
                                     want = KILN_BUF_INIT(1 << 20);
        unsigned char stream[5 * 64];
        rig_make_observer(scratch, "obs", seed);
        run_observed(scratch, "random", &out, &log);
        expect_stream(seed, stream, sizeof stream);
        add_hex(&want, stream, 100); // two blocks
        for (size_t block = 2; block < 5; block++)
            add_hex(&want, stream + block * 64, 8);
        kiln_buf_add_str(&want, "1\n");
        assert_string_equal(kiln_buf_text(&out), kiln_buf_text(&want));
    }
}

static void test_threads_lose_nothing(void **state) {
    const struct scratch *scratch = *state;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), log = KILN_BUF_INIT(8 << 20),
                                 text = KILN_BUF_INIT(8 << 20);
    rig_make_observer(scratch, "obs", 's');
    run_observed(scratch, "threads", &out, &log);
    rig_print_log(&log, &text);
    size_t lines = 0;
    for (const char *at = kiln_buf_text(&text); (at = strchr(at, '\n')); at++)
        lines++;
    // A repetition may be forgotten in a full neighbourhood of the hash table, but most are not.
    assert_in_range(lines, 4001, 6000);
    for (int i = 0; i < 4000; i++) {
        char line[64];
        snprintf(line, sizeof line, "macro stat 2 /absent/%d/%d\n", i / 500, i % 500);
        if (!strstr(kiln_buf_text(&text), line))
            fail_msg("lost: %s", line);
    }
}

static void test_overflow_shows(void **state) {
    const struct scratch *scratch = *state;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), log = KILN_BUF_INIT(8 << 20);
    rig_make_observer(scratch, "obs", 's');
    run_observed(scratch, "flood", &out, &log);
    struct kiln_witness_world world = {.out_dir = "/o", .tmp_dir = "/t", .observer_dir = "/b", .cwd = "/c"};
    struct kiln_witness_report report;
    struct kiln_err err = {0};
    assert_ok(kiln_witness_read(log.data, log.len, &world, &report, &err));
    assert_int_equal(report.count, 64);
    bool overflow = false;
    for (size_t i = 0; i < report.count; i++)
        overflow |= !strcmp(report.observations[i], "observer_overflow");
    assert_true(overflow);
    kiln_witness_report_release(&report);
}

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Names in the order of their bytes, whatever the file system gives; and no clock that can be read without a system call.
static void test_directories_are_sorted(void **state) {
    enum { FILES = 300 };
    const struct scratch *scratch = *state;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), log = KILN_BUF_INIT(8 << 20), want = KILN_BUF_INIT(1 << 20);
    char *names[FILES + 2];
    rig_make_observer(scratch, "obs", 's');
    names[FILES] = strdup(".");
    names[FILES + 1] = strdup("..");
    for (int i = 0; i < FILES; i++)
        assert_true(asprintf(&names[i], "%x", (unsigned)i * 2654435761u) > 0);
    qsort(names, FILES + 2, sizeof *names, compare_texts);
    for (int twice = 0; twice < 2; twice++)
        for (int i = 0; i < FILES + 2; i++)
            kiln_buf_addf(&want, "%s\n", names[i]);
    kiln_buf_add_str(&want, "0\n1\n");
    many = names;
    many_count = FILES + 2;
    run_observed(scratch, "order", &out, &log);
    many = NULL;
    assert_string_equal(kiln_buf_text(&out), kiln_buf_text(&want));
    for (int i = 0; i < FILES + 2; i++)
        free(names[i]);
}

// Without a log that it can trust the observer keeps quiet and in nobody's way.
static void test_unusable_log(void **state) {
    const struct scratch *scratch = *state;
    char object[128];
    snprintf(object, sizeof object, "%s/obs/libkiln-observe.so", scratch->path);
    for (int kind = 0; kind < 3; kind++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20), plain = KILN_BUF_INIT(1 << 20),
                                     log = KILN_BUF_INIT(8 << 20);
        rig_make_observer(scratch, "obs", 's');
        assert_int_equal(unlinkat(scratch->fd, "obs/log", 0), 0);
        if (kind == 1)
            rig_write_log(scratch, "obs/log", 4096);
        if (kind == 2) {
            scratch_write(scratch, "obs/log", "not a log", 9);
            assert_int_equal(truncate(scratch_path(scratch, "obs/log"), KILN_OBSERVE_LOG_BYTES), 0);
        }
        run_calls(scratch, "stats", NULL, &plain);
        run_calls(scratch, "stats", object, &out);
        assert_string_equal(kiln_buf_text(&out), kiln_buf_text(&plain));
        if (kind == 0)
            continue;
        rig_read_log(scratch, "obs/log", &log);
        size_t written = 0;
        for (size_t i = sizeof(struct kiln_observe_header); i < log.len; i++)
            written += log.data[i] != 0;
        assert_int_equal(written, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(test_calls),          scratch_test(test_random_bytes_are_the_seeds),
        scratch_test(test_threads_lose_nothing), scratch_test(test_overflow_shows),
        scratch_test(test_directories_are_sorted), scratch_test(test_unusable_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
