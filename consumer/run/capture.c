#include "consumer/run/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

int kiln_capture_open(struct kiln_capture *capture, uint64_t max_bytes, uid_t uid, gid_t gid, struct kiln_err *err) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "a pipe for the job's output");
    *capture = (struct kiln_capture){.read_end = ends[0], .write_end = ends[1], .max_bytes = max_bytes};
    capture->memfd = memfd_create("kiln-text", MFD_CLOEXEC);
    if (capture->memfd < 0 || fcntl(capture->read_end, F_SETFL, O_NONBLOCK) < 0 ||
        fchown(capture->write_end, uid, gid) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "a memfd for the job's output");
    return 0;
}

int kiln_capture_drain(struct kiln_capture *capture, struct kiln_err *err) {
    char chunk[65536];
    while (capture->read_end >= 0 && !capture->exceeded) {
        ssize_t got = read(capture->read_end, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "reading the job's output");
        if (got == 0) {
            close(kiln_steal_fd(&capture->read_end));
            return 0;
        }
        uint64_t room = capture->max_bytes - capture->kept_bytes;
        size_t keep = (uint64_t)got > room ? (size_t)room : (size_t)got;
        capture->exceeded = keep < (size_t)got;
        int rc = kiln_fs_write_all(capture->memfd, chunk, keep, err);
        if (rc)
            return rc;
        capture->kept_bytes += keep;
    }
    return 0;
}

void kiln_capture_release(struct kiln_capture *capture) {
    int *const fds[] = {&capture->write_end, &capture->read_end, &capture->memfd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}
