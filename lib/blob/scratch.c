#include "lib/blob/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int kiln_scratch_file(int scratch_dir, uint64_t bytes, int *fd, struct kiln_err *err) {
    int made = bytes <= KILN_SCRATCH_MEMORY_MAX ? memfd_create("kiln-content", MFD_CLOEXEC | MFD_ALLOW_SEALING)
                                                : openat(scratch_dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (made < 0)
        return kiln_fail_errno(err, KILN_E_IO, "no scratch file");
    *fd = made;
    return 0;
}

int kiln_scratch_seal(int *fd, struct kiln_err *err) {
    char path[40];
    if (lseek(*fd, 0, SEEK_SET) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot rewind a scratch file");
    if (fcntl(*fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    int readable = open(path, O_RDONLY | O_CLOEXEC);
    if (readable < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot open a scratch file again");
    close(*fd);
    *fd = readable;
    return 0;
}
