// A hostile pack named by its own tree: it is refused, or unpacks and packs again to the same bytes. Nothing ever appears
// outside the directory.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char scratch[] = "/tmp/kiln-fuzz-pack-XXXXXX";

static void remove_scratch(void) { rmdir(scratch); }

static int scratch_dir(void) {
    static int fd = -1;
    if (fd < 0) {
        if (!mkdtemp(scratch) || atexit(remove_scratch))
            abort();
        fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd;
}

static void name_by_own_tree(const uint8_t *data, size_t size, struct kiln_digest *name) {
    struct kiln_reader reader = KILN_READER_INIT(data, size);
    kiln_read_bytes(&reader, 12);
    uint64_t len = kiln_read_be64(&reader);
    const unsigned char *tree = len <= size ? kiln_read_bytes(&reader, (size_t)len) : NULL;
    kiln_digest_of(tree ? tree : data, tree ? (size_t)len : 0, name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kiln_autofd int fd = memfd_create("pack", MFD_CLOEXEC);
    if (fd < 0 || kiln_fs_write_all(fd, data, size, NULL))
        abort();
    struct kiln_digest name;
    name_by_own_tree(data, size, &name);
    kiln_autotree struct kiln_tree tree = {0};
    if (kiln_pack_verify(fd, &name, &tree, NULL))
        return 0;
    int top = scratch_dir();
    if (mkdirat(top, "x", 0755))
        abort();
    kiln_autofd int dir = openat(top, "x", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (kiln_pack_unpack(fd, &name, dir, NULL) == 0) { // may fail on names that the file system does not take
        kiln_autofd int again = memfd_create("again", MFD_CLOEXEC);
        struct kiln_digest one, other;
        if (kiln_pack_write(&tree, dir, again, NULL) || kiln_digest_of_fd(fd, 1 << 30, &one, NULL, NULL) ||
            kiln_digest_of_fd(again, 1 << 30, &other, NULL, NULL) || !kiln_digest_equal(&one, &other))
            abort();
    }
    if (kiln_fs_remove_tree(top, "x", NULL))
        abort();
    return 0;
}
