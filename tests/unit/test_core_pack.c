// Packs: round trip, hostile bytes (flipped bits, truncation, escapes), files that change while they are packed.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"

#define BIG_BYTES 700001u

struct world {
    char root[40];
    int in, out; // directories
    struct kiln_tree tree;
    struct kiln_digest name;
    int pack; // memfd
    size_t pack_len;
};

static void write_file(int dirfd, const char *path, const void *data, size_t len) {
    kiln_autofd int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(kiln_fs_write_all(fd, data, len, NULL), 0);
}

static void add_file(struct world *world, const char *path, bool executable, const void *data, size_t len) {
    struct kiln_digest digest;
    write_file(world->in, path, data, len);
    kiln_digest_of(data, len, &digest);
    assert_int_equal(kiln_tree_add_file(&world->tree, path, executable, len, &digest, NULL), 0);
}

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    strcpy(world->root, "/tmp/kiln-pack-XXXXXX");
    assert_non_null(mkdtemp(world->root));
    kiln_autofd int root = open(world->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mkdirat(root, "in", 0755);
    mkdirat(root, "out", 0755);
    world->in = openat(root, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    world->out = openat(root, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(world->in, "src", 0755), 0);
    kiln_autofree unsigned char *big = malloc(BIG_BYTES);
    for (size_t i = 0; i < BIG_BYTES; i++)
        big[i] = (unsigned char)(i >> 3 ^ i);
    add_file(world, "src/big.bin", false, big, BIG_BYTES);
    add_file(world, "src/empty", false, "", 0);
    add_file(world, "tool", true, "#!x", 3);
    add_file(world, "zz", false, "last", 4);
    assert_int_equal(kiln_tree_add_dir(&world->tree, "hollow", NULL), 0);
    assert_int_equal(kiln_tree_add_link(&world->tree, "src/t", "../tool", NULL), 0);
    assert_int_equal(kiln_tree_add_withheld(&world->tree, "target", NULL), 0);
    assert_int_equal(kiln_tree_finish(&world->tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&world->tree, &world->name, NULL), 0);
    world->pack = memfd_create("pack", MFD_CLOEXEC);
    assert_int_equal(kiln_pack_write(&world->tree, world->in, world->pack, NULL), 0);
    world->pack_len = (size_t)lseek(world->pack, 0, SEEK_CUR);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    close(world->in);
    close(world->out);
    close(world->pack);
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, world->root, NULL), 0);
    kiln_tree_release(&world->tree);
    free(world);
    return 0;
}

static void round_trip(void **state) {
    struct world *world = *state;
    kiln_autotree struct kiln_tree found = {0};
    struct kiln_err err;
    assert_int_equal(kiln_pack_verify(world->pack, &world->name, &found, &err), 0);
    assert_int_equal(found.count, world->tree.count);
    assert_int_equal(kiln_pack_verify(world->pack, &world->name, NULL, &err), 0);
    mode_t before = umask(077); // modes do not depend on who unpacks
    assert_int_equal(kiln_pack_unpack(world->pack, &world->name, world->out, &err), 0);
    umask(before);
    struct stat st;
    assert_int_equal(fstatat(world->out, "tool", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0755);
    assert_int_equal(st.st_mtim.tv_sec, KILN_PACK_MTIME_S);
    assert_int_equal(st.st_mtim.tv_nsec, 0);
    assert_int_equal(fstatat(world->out, "src", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mtim.tv_sec, KILN_PACK_MTIME_S);
    assert_int_equal(fstatat(world->out, "src/big.bin", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0644);
    assert_int_equal(st.st_size, BIG_BYTES);
    assert_int_equal(fstatat(world->out, "hollow", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0755);
    assert_int_equal(fstatat(world->out, "src/t", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_not_equal(fstatat(world->out, "target", &st, AT_SYMLINK_NOFOLLOW), 0);
    // What was unpacked packs to the same bytes.
    kiln_autofd int again = memfd_create("again", MFD_CLOEXEC);
    assert_int_equal(kiln_pack_write(&world->tree, world->out, again, &err), 0);
    struct kiln_digest one, other;
    assert_int_equal(kiln_digest_of_fd(world->pack, 1 << 20, &one, NULL, NULL), 0);
    assert_int_equal(kiln_digest_of_fd(again, 1 << 20, &other, NULL, NULL), 0);
    assert_true(kiln_digest_equal(&one, &other));
}

// One bit anywhere: in the head, the tree or a content; all bits of the head and tree, some of the big file's.
static void flipped_bits(void **state) {
    struct world *world = *state;
    size_t tree_end = world->pack_len - BIG_BYTES - 7;
    for (size_t at = 0; at < world->pack_len; at += at < tree_end ? 1 : 9973) {
        unsigned char byte, wrong;
        assert_int_equal(pread(world->pack, &byte, 1, (off_t)at), 1);
        wrong = byte ^ (unsigned char)(1u << at % 8);
        assert_int_equal(pwrite(world->pack, &wrong, 1, (off_t)at), 1);
        struct kiln_err err;
        int rc = kiln_pack_verify(world->pack, &world->name, NULL, &err);
        if (rc != KILN_E_CORRUPT && rc != KILN_E_LIMIT)
            fail_msg("byte %zu: %d", at, rc);
        assert_int_equal(pwrite(world->pack, &byte, 1, (off_t)at), 1);
    }
    assert_int_equal(kiln_pack_verify(world->pack, &world->name, NULL, NULL), 0);
}

static void truncated_or_longer(void **state) {
    struct world *world = *state;
    for (size_t len = world->pack_len; len-- > 0;) {
        if (len > 600 && len % 40009)
            continue;
        kiln_autofd int part = memfd_create("part", MFD_CLOEXEC);
        off_t from = 0;
        assert_int_equal(sendfile(part, world->pack, &from, len), len);
        assert_int_equal(kiln_pack_verify(part, &world->name, NULL, NULL), KILN_E_CORRUPT);
    }
    assert_int_equal(pwrite(world->pack, "x", 1, (off_t)world->pack_len), 1);
    assert_int_equal(kiln_pack_verify(world->pack, &world->name, NULL, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_pack_unpack(world->pack, &world->name, world->out, NULL), KILN_E_CORRUPT);
}

static void another_name(void **state) {
    struct world *world = *state;
    world->name.bytes[0] ^= 1;
    assert_int_equal(kiln_pack_verify(world->pack, &world->name, NULL, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_pack_unpack(world->pack, &world->name, world->out, NULL), KILN_E_CORRUPT);
    struct stat st;
    assert_int_not_equal(fstatat(world->out, "src", &st, 0), 0); // nothing was made before the tree was proven
}

// A pack that is named by its own, hostile tree: the tree decoder must refuse it before anything is made.
static void escapes(void **state) {
    struct world *world = *state;
    static const struct {
        int kind;
        const char *path, *target;
        size_t path_len;
    } hostile[] = {
        {KILN_TREE_FILE, "../escaped", NULL, 10}, {KILN_TREE_FILE, "/tmp/kiln-escaped", NULL, 17},
        {KILN_TREE_FILE, "a\0b", NULL, 3},        {KILN_TREE_LINK, "l", "../../etc", 1},
        {KILN_TREE_LINK, "l", "/etc", 1},         {KILN_TREE_DIR, "..", NULL, 2},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        kiln_autobuf struct kiln_buf tree = KILN_BUF_INIT(4096), pack = KILN_BUF_INIT(4096);
        kiln_buf_add(&tree, "kiln-tree-1", 12);
        kiln_buf_add_be32(&tree, 1);
        kiln_buf_add_u8(&tree, (uint8_t)hostile[i].kind);
        kiln_buf_add_field(&tree, hostile[i].path, hostile[i].path_len);
        struct kiln_digest empty, name;
        kiln_digest_of("", 0, &empty);
        if (hostile[i].kind == KILN_TREE_FILE) {
            kiln_buf_add_u8(&tree, 0);
            kiln_buf_add_be64(&tree, 0);
            kiln_buf_add(&tree, empty.bytes, sizeof empty.bytes);
        } else if (hostile[i].kind == KILN_TREE_LINK) {
            kiln_buf_add_field_str(&tree, hostile[i].target);
        }
        kiln_buf_add(&pack, "kiln-pack-1", 12);
        kiln_buf_add_be64(&pack, tree.len);
        kiln_buf_add(&pack, tree.data, tree.len);
        kiln_digest_of(tree.data, tree.len, &name);
        kiln_autofd int fd = memfd_create("hostile", MFD_CLOEXEC);
        assert_int_equal(write(fd, pack.data, pack.len), pack.len);
        assert_int_equal(kiln_pack_verify(fd, &name, NULL, NULL), KILN_E_CORRUPT);
        assert_int_equal(kiln_pack_unpack(fd, &name, world->out, NULL), KILN_E_CORRUPT);
        struct stat st;
        assert_int_not_equal(fstatat(world->out, "l", &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_not_equal(fstatat(world->out, "../escaped", &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_not_equal(stat("/tmp/kiln-escaped", &st), 0);
    }
}

// Sizes that would wrap a 64-bit sum are over the limit, and nothing is read for them.
static void huge_sizes(void **state) {
    (void)state;
    static const uint64_t sizes[][2] = {{UINT64_MAX, 2}, {1, UINT64_MAX}, {KILN_PACK_CONTENT_MAX, 1}, {1ull << 63, 1ull << 63}};
    for (size_t i = 0; i < 4; i++) {
        kiln_autotree struct kiln_tree tree = {0};
        struct kiln_digest digest = {{1}}, name;
        kiln_tree_add_file(&tree, "a", false, sizes[i][0], &digest, NULL);
        kiln_tree_add_file(&tree, "b", false, sizes[i][1], &digest, NULL);
        assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
        kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(4096), pack = KILN_BUF_INIT(4096);
        assert_int_equal(kiln_tree_encode(&tree, &encoding, NULL), 0);
        assert_int_equal(kiln_tree_digest(&tree, &name, NULL), 0);
        kiln_buf_add(&pack, "kiln-pack-1", 12);
        kiln_buf_add_be64(&pack, encoding.len);
        kiln_buf_add(&pack, encoding.data, encoding.len);
        kiln_autofd int fd = memfd_create("huge", MFD_CLOEXEC);
        assert_int_equal(write(fd, pack.data, pack.len), pack.len);
        assert_int_equal(kiln_pack_verify(fd, &name, NULL, NULL), KILN_E_LIMIT);
        assert_int_equal(kiln_pack_write(&tree, AT_FDCWD, fd, NULL), KILN_E_LIMIT);
    }
}

static void assert_changed(struct world *world) {
    kiln_autofd int fd = memfd_create("changed", MFD_CLOEXEC);
    struct kiln_err err = {0};
    assert_int_equal(kiln_pack_write(&world->tree, world->in, fd, &err), KILN_E_CORRUPT);
    assert_true(err.retriable);
}

static void changed_files(void **state) {
    struct world *world = *state;
    write_file(world->in, "tool", "#!y", 3); // same size
    assert_changed(world);
    write_file(world->in, "tool", "#!", 2); // shorter
    assert_changed(world);
    write_file(world->in, "tool", "#!xx", 4); // longer
    assert_changed(world);
    unlinkat(world->in, "tool", 0); // gone
    assert_changed(world);
    assert_int_equal(symlinkat("zz", world->in, "tool"), 0); // now a link
    assert_changed(world);
    unlinkat(world->in, "tool", 0);
    assert_int_equal(mkfifoat(world->in, "tool", 0600), 0); // now something that would block
    assert_changed(world);
    unlinkat(world->in, "tool", 0);
    write_file(world->in, "tool", "#!x", 3);
    unlinkat(world->in, "src/empty", 0);
    assert_int_equal(mkfifoat(world->in, "src/empty", 0600), 0); // its size is right
    assert_changed(world);
    unlinkat(world->in, "src/empty", 0);
    write_file(world->in, "src/empty", "", 0);
    assert_int_equal(kiln_pack_write(&world->tree, world->in, world->pack, NULL), 0);
}

// A directory of the tree replaced by a link to elsewhere is not followed.
static void linked_directory(void **state) {
    struct world *world = *state;
    assert_int_equal(renameat(world->in, "src", world->in, "moved"), 0);
    assert_int_equal(symlinkat("moved", world->in, "src"), 0);
    assert_changed(world);
}

static void our_own_disk(void **state) {
    struct world *world = *state;
    kiln_autofd int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct kiln_err err = {0};
    assert_int_equal(kiln_pack_write(&world->tree, world->in, full, &err), KILN_E_IO);
    assert_false(err.retriable);
    assert_int_equal(mkdirat(world->out, "src", 0700), 0); // not empty
    assert_int_equal(kiln_pack_unpack(world->pack, &world->name, world->out, &err), KILN_E_IO);
    assert_int_equal(err.sys_errno, EEXIST);
    assert_int_equal(kiln_pack_unpack(world->pack, &world->name, -1, &err), KILN_E_INVAL);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {CASE(round_trip),    CASE(flipped_bits),     CASE(truncated_or_longer),
                                       CASE(another_name),  CASE(escapes),          CASE(huge_sizes),
                                       CASE(changed_files), CASE(linked_directory), CASE(our_own_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
