// The order for a container's init, and whose a job's directory is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/docker/gate.h"
#include "consumer/docker/job_dir.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

static char *argv_of_job[] = {(char *)"/job"};

static struct kiln_run_spec a_spec(void) {
    return (struct kiln_run_spec){.argv = argv_of_job, .argc = 1, .cwd = (char *)"/c", .out_dir = (char *)"/o",
                                  .observer_dir = (char *)"/b", .tmp_dir = (char *)"/t", .out_bytes = 1, .tmp_bytes = 1,
                                  .observer_bytes = 1, .inodes = 1, .wall_ms = 1, .memory_bytes = 1, .file_bytes = 1,
                                  .text_bytes = 1, .processes = 1};
}

static void encode_order(struct kiln_buf *out) {
    struct kiln_gate_namespace namespaces[] = {{(char *)"net", 7}, {(char *)"pid", 8}};
    struct kiln_gate_mount mounts[] = {{(char *)"/etc", 1, 2}, {(char *)"/usr", 3, 1ull << 40}};
    const struct kiln_gate_order order = {.uid = 65534, .gid = 12, .namespaces = namespaces, .namespaces_count = 2,
                                          .mounts = mounts, .mounts_count = 2, .spec = a_spec()};
    assert_int_equal(kiln_gate_order_encode(&order, out, NULL), 0);
}

static void an_order_comes_as_it_went(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(65536);
    struct kiln_gate_order order;
    encode_order(&bytes);
    assert_int_equal(kiln_gate_order_decode(bytes.data, bytes.len, &order, NULL), 0);
    assert_int_equal(order.uid, 65534);
    assert_int_equal(order.gid, 12);
    assert_int_equal(order.namespaces_count, 2);
    assert_string_equal(order.namespaces[1].name, "pid");
    assert_int_equal(order.namespaces[1].inode, 8);
    assert_int_equal(order.mounts_count, 2);
    assert_string_equal(order.mounts[1].dest, "/usr");
    assert_int_equal(order.mounts[1].inode, 1ull << 40);
    assert_string_equal(order.spec.out_dir, "/o");
    kiln_gate_order_release(&order);
}

static void no_part_of_an_order_is_one(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(65536);
    struct kiln_gate_order order;
    encode_order(&bytes);
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_not_equal(kiln_gate_order_decode(bytes.data, len, &order, NULL), 0);
    bytes.data[0] ^= 1;
    assert_int_not_equal(kiln_gate_order_decode(bytes.data, bytes.len, &order, NULL), 0);
    bytes.data[0] ^= 1;
    memset(bytes.data + 20, 0xff, 4); // more namespaces than there can be
    assert_int_not_equal(kiln_gate_order_decode(bytes.data, bytes.len, &order, NULL), 0);
}

static void a_directory_is_its_owners_as_long_as_that_lives(void **state) {
    (void)state;
    char parent[] = "/tmp/kiln-test-XXXXXX";
    assert_non_null(mkdtemp(parent));
    struct kiln_run_spec spec = a_spec();
    struct kiln_job_dir mine = KILN_JOB_DIR_INIT;
    assert_int_equal(kiln_job_dir_make(parent, &spec, &mine, NULL), 0);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct kiln_job_dir theirs = KILN_JOB_DIR_INIT;
        close(mine.dir); // the lock is this process's too
        if (kiln_job_dir_make(parent, &spec, &theirs, NULL) || write(ends[1], theirs.name, sizeof theirs.name) < 0)
            _exit(1);
        _exit(0); // as if killed: nothing is removed
    }
    char theirs[sizeof mine.name] = "";
    assert_int_equal(read(ends[0], theirs, sizeof theirs), sizeof theirs);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(kiln_job_dir_is_held(parent, mine.name));
    assert_false(kiln_job_dir_is_held(parent, theirs));
    assert_false(kiln_job_dir_is_held(parent, "job-absent"));
    assert_int_equal(kiln_job_dir_sweep(parent, NULL), 0);
    kiln_autofree char *left = kiln_path_join(parent, theirs);
    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(access(mine.path, F_OK), 0);
    kiln_job_dir_remove(&mine);
    assert_int_equal(rmdir(parent), 0);
    close(ends[0]);
    close(ends[1]);
}

static void small_files_lie_in_etc(void **state) {
    (void)state;
    char parent[] = "/tmp/kiln-test-XXXXXX";
    assert_non_null(mkdtemp(parent));
    struct kiln_run_spec spec = a_spec();
    struct kiln_run_file file = {(char *)"/etc/deep/er", (unsigned char *)"text", 4};
    struct kiln_job_dir job = KILN_JOB_DIR_INIT;
    spec.files = &file;
    spec.files_count = 1;
    assert_int_equal(kiln_job_dir_make(parent, &spec, &job, NULL), 0);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(100);
    assert_int_equal(kiln_fs_read_file(job.dir, "etc/deep/er", &text, NULL), 0);
    assert_string_equal(kiln_buf_text(&text), "text");
    kiln_job_dir_remove(&job);
    file.path = (char *)"/lib/er";
    assert_int_equal(kiln_job_dir_make(parent, &spec, &job, NULL), KILN_E_UNSUPPORTED);
    assert_int_equal(rmdir(parent), 0); // a refusal leaves nothing
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_comes_as_it_went),
        cmocka_unit_test(no_part_of_an_order_is_one),
        cmocka_unit_test(a_directory_is_its_owners_as_long_as_that_lives),
        cmocka_unit_test(small_files_lie_in_etc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
