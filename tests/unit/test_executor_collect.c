// Collecting outputs from a directory that hostile code has filled.
#include "tests/unit/scratch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "consumer/executor/collect.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/paths.h"

#define RLIB "libfoo-abc.rlib"
#define RMETA "libfoo-abc.rmeta"
#define DEPINFO "foo-abc.d"
#define PAGE 4096

static struct kiln_action action_for(const char *crate_type) {
    struct kiln_action action = {0};
    const char *const args[] = {"/x/sysroot/bin/rustc", "--crate-name", "foo",        "--edition=2021",
                                "/x/ws/src/lib.rs",     "--crate-type", crate_type,   "--emit=dep-info,metadata,link",
                                "-Cmetadata=abc",       "-Cextra-filename=-abc", "--out-dir=/x/target"};
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        assert_int_equal(kiln_action_add_arg(&action, args[i], NULL), 0);
    return action;
}

static void write_text(const struct scratch *scratch, const char *name, const char *text) {
    scratch_write(scratch, name, text, strlen(text));
}

static void write_outputs(const struct scratch *scratch) {
    write_text(scratch, RLIB, "!<arch>\n");
    write_text(scratch, RMETA, "metadata");
    write_text(scratch, DEPINFO, "foo: lib.rs\n");
}

static int collect(const struct scratch *scratch, struct kiln_collection *collection, struct kiln_err *err) {
    kiln_autoaction struct kiln_action action = action_for("lib");
    return kiln_collect(scratch->fd, &action, collection, err);
}

static const struct kiln_collected *find(const struct kiln_collection *collection, const char *name) {
    for (size_t i = 0; i < collection->count; i++)
        if (!strcmp(collection->files[i].name, name))
            return &collection->files[i];
    return NULL;
}

static void takes_what_is_expected(void **state) {
    struct scratch *scratch = *state;
    write_outputs(scratch);
    write_text(scratch, "unexpected", "x");
    write_text(scratch, "libfoo-abc.rlib.extra", "x");
    assert_int_equal(mkfifoat(scratch->fd, "pipe", 0600), 0);
    assert_int_equal(symlinkat("/etc/passwd", scratch->fd, "link"), 0);
    struct kiln_collection collection;
    assert_int_equal(collect(scratch, &collection, NULL), 0);
    assert_int_equal(collection.count, 3);
    const struct kiln_collected *rlib = find(&collection, RLIB);
    assert_non_null(rlib);
    assert_non_null(find(&collection, RMETA));
    assert_non_null(find(&collection, DEPINFO));
    struct kiln_digest digest;
    kiln_digest_of("!<arch>\n", 8, &digest);
    assert_true(kiln_digest_equal(&digest, &rlib->digest));
    assert_int_equal(rlib->size, 8);
    assert_false(rlib->executable);
    assert_false(rlib->holds_sandbox_path);
    char bytes[9] = {0};
    assert_int_equal(read(rlib->fd, bytes, sizeof bytes), 8);
    assert_string_equal(bytes, "!<arch>\n");
    kiln_collection_release(&collection);
}

static void marks_programs(void **state) {
    struct scratch *scratch = *state;
    kiln_autoaction struct kiln_action action = action_for("bin");
    write_text(scratch, "foo-abc", "\177ELF");
    write_text(scratch, RMETA, "metadata");
    write_text(scratch, DEPINFO, "foo: lib.rs\n");
    struct kiln_collection collection;
    assert_int_equal(kiln_collect(scratch->fd, &action, &collection, NULL), 0);
    assert_non_null(find(&collection, "foo-abc"));
    assert_true(find(&collection, "foo-abc")->executable);
    kiln_collection_release(&collection);
}

static void make_missing(const struct scratch *scratch) { (void)scratch; }

static void make_link_to_host(const struct scratch *scratch) {
    assert_int_equal(symlinkat("/etc/hostname", scratch->fd, RLIB), 0);
}

static void make_link_beside(const struct scratch *scratch) {
    write_text(scratch, "other", "x");
    assert_int_equal(symlinkat("other", scratch->fd, RLIB), 0);
}

static void make_dangling_link(const struct scratch *scratch) {
    assert_int_equal(symlinkat("nowhere", scratch->fd, RLIB), 0);
}

static void make_second_name(const struct scratch *scratch) {
    write_text(scratch, "other", "x");
    assert_int_equal(linkat(scratch->fd, "other", scratch->fd, RLIB, 0), 0);
}

static void make_fifo(const struct scratch *scratch) { assert_int_equal(mkfifoat(scratch->fd, RLIB, 0600), 0); }

static void make_directory(const struct scratch *scratch) { assert_int_equal(mkdirat(scratch->fd, RLIB, 0755), 0); }

static void make_socket(const struct scratch *scratch) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/" RLIB, scratch->path);
    kiln_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
}

static void make_huge(const struct scratch *scratch) {
    kiln_autofd int fd = openat(scratch->fd, RLIB, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(ftruncate(fd, (off_t)KILN_COLLECT_BYTES_MAX + 1), 0);
}

static void make_device(const struct scratch *scratch) {
    if (mknodat(scratch->fd, RLIB, S_IFCHR | 0666, 0x103)) // only root can
        make_fifo(scratch);
}

static void make_foreign(const struct scratch *scratch) {
    write_text(scratch, RLIB, "x");
    if (fchownat(scratch->fd, RLIB, 12345, 12345, 0)) { // only root can
        assert_int_equal(unlinkat(scratch->fd, RLIB, 0), 0);
        make_fifo(scratch);
    }
}

static void refuses_what_is_not_a_plain_file(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        void (*make)(const struct scratch *scratch);
        int code;
    } cases[] = {
        {make_missing, KILN_E_NOTFOUND},     {make_link_to_host, KILN_E_DENIED}, {make_link_beside, KILN_E_DENIED},
        {make_dangling_link, KILN_E_DENIED}, {make_second_name, KILN_E_DENIED},  {make_fifo, KILN_E_DENIED},
        {make_directory, KILN_E_DENIED},     {make_socket, KILN_E_DENIED},       {make_huge, KILN_E_DENIED},
        {make_device, KILN_E_DENIED},        {make_foreign, KILN_E_DENIED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_collection collection;
        struct kiln_err err = {0};
        write_outputs(scratch);
        assert_int_equal(unlinkat(scratch->fd, RLIB, 0), 0);
        cases[i].make(scratch);
        int code = collect(scratch, &collection, &err);
        if (code != cases[i].code)
            fail_msg("case %zu gave %d: %s", i, code, err.text);
        assert_non_null(strstr(err.text, i == 8 ? "larger" : RLIB));
        if (unlinkat(scratch->fd, RLIB, 0) && errno == EISDIR)
            assert_int_equal(unlinkat(scratch->fd, RLIB, AT_REMOVEDIR), 0);
        unlinkat(scratch->fd, "other", 0);
    }
}

static void bounds_the_sum(void **state) {
    struct scratch *scratch = *state;
    write_outputs(scratch);
    for (int i = 0; i < 2; i++) {
        kiln_autofd int fd = openat(scratch->fd, i ? RMETA : DEPINFO, O_WRONLY | O_CLOEXEC);
        assert_int_equal(ftruncate(fd, i ? (off_t)KILN_COLLECT_BYTES_MAX - 20 : 100), 0);
    }
    struct kiln_collection collection;
    // Refused by its size before a byte of it is read.
    assert_int_equal(collect(scratch, &collection, NULL), KILN_E_DENIED);
}

static void finds_the_sandbox_path_anywhere(void **state) {
    struct scratch *scratch = *state;
    const char *root = kiln_sandbox_root();
    size_t len = strlen(root);
    const size_t places[] = {0, 1, PAGE - len / 2, PAGE, 3 * PAGE - len, 100000};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        kiln_autofree char *bytes = calloc(1, places[i] + len + 1);
        memcpy(bytes + places[i], root, len);
        write_outputs(scratch);
        scratch_write(scratch, RLIB, bytes, places[i] + len);
        scratch_write(scratch, DEPINFO, bytes, places[i] + len);
        struct kiln_collection collection;
        assert_int_equal(collect(scratch, &collection, NULL), 0);
        assert_true(find(&collection, RLIB)->holds_sandbox_path);
        assert_false(find(&collection, RMETA)->holds_sandbox_path);
        assert_false(find(&collection, DEPINFO)->holds_sandbox_path); // it names the sources
        kiln_collection_release(&collection);
        scratch_write(scratch, RLIB, bytes, places[i] + len - 1);
        assert_int_equal(collect(scratch, &collection, NULL), 0);
        assert_false(find(&collection, RLIB)->holds_sandbox_path);
        kiln_collection_release(&collection);
    }
}

static void takes_empty_and_sparse_files(void **state) {
    struct scratch *scratch = *state;
    write_outputs(scratch);
    write_text(scratch, RMETA, "");
    kiln_autofd int fd = openat(scratch->fd, RLIB, O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    struct kiln_collection collection;
    assert_int_equal(collect(scratch, &collection, NULL), 0);
    assert_int_equal(find(&collection, RMETA)->size, 0);
    assert_int_equal(find(&collection, RLIB)->size, 1 << 20); // holes count in full
    kiln_collection_release(&collection);
}

struct swapper {
    int dir;
    atomic_bool stop;
};

// Exchanges a plain file and a link to another one, over and over.
static void *swap(void *argument) {
    struct swapper *swapper = argument;
    while (!atomic_load(&swapper->stop))
        renameat2(swapper->dir, RLIB, swapper->dir, "twin", RENAME_EXCHANGE);
    return NULL;
}

// Collection is only started when the job is gone; should something move all the same, what is taken is what was checked.
static void a_race_cannot_swap_what_is_taken(void **state) {
    struct scratch *scratch = *state;
    write_outputs(scratch);
    write_text(scratch, "outside", "of the host");
    assert_int_equal(symlinkat("outside", scratch->fd, "twin"), 0);
    struct kiln_digest expected;
    kiln_digest_of("!<arch>\n", 8, &expected);
    struct swapper swapper = {.dir = scratch->fd};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);
    int taken = 0, refused = 0;
    for (int i = 0; i < 3000; i++) {
        struct kiln_collection collection;
        int rc = collect(scratch, &collection, NULL);
        if (rc) {
            assert_int_equal(rc, KILN_E_DENIED);
            refused++;
            continue;
        }
        assert_true(kiln_digest_equal(&find(&collection, RLIB)->digest, &expected));
        kiln_collection_release(&collection);
        taken++;
    }
    atomic_store(&swapper.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(taken + refused, 3000);
}

static void refuses_a_command_that_is_no_compile(void **state) {
    struct scratch *scratch = *state;
    kiln_autoaction struct kiln_action action = {0};
    assert_int_equal(kiln_action_add_arg(&action, "/x/rustc", NULL), 0);
    assert_int_equal(kiln_action_add_arg(&action, "-vV", NULL), 0);
    struct kiln_collection collection = {0};
    assert_int_equal(kiln_collect(scratch->fd, &action, &collection, NULL), KILN_E_DENIED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void) {
    const struct CMUnitTest all[] = {
        TEST(takes_what_is_expected),
        TEST(marks_programs),
        TEST(refuses_what_is_not_a_plain_file),
        TEST(bounds_the_sum),
        TEST(finds_the_sandbox_path_anywhere),
        TEST(takes_empty_and_sparse_files),
        TEST(a_race_cannot_swap_what_is_taken),
        TEST(refuses_a_command_that_is_no_compile),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
