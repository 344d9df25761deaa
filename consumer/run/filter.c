#include "consumer/run/filter.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

int kiln_filter_open(bool watched, int *fd, struct kiln_err *err) {
    const struct sock_filter *code = watched ? kiln_filter_watched_code : kiln_filter_code;
    size_t count = watched ? kiln_filter_watched_code_count : kiln_filter_code_count;
    kiln_autofd int memfd = memfd_create("kiln-filter", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int rc = memfd < 0 ? kiln_fail_errno(err, KILN_E_IO, "a memfd for the filter of system calls") : 0;
    if (rc == 0)
        rc = kiln_fs_write_all(memfd, code, count * sizeof *code, err);
    if (rc == 0 && (fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0 ||
                    lseek(memfd, 0, SEEK_SET) < 0))
        rc = kiln_fail_errno(err, KILN_E_IO, "sealing the filter of system calls");
    if (rc == 0)
        *fd = kiln_steal_fd(&memfd);
    return rc;
}
