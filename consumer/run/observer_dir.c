#include "consumer/run/observer_dir.h"

#include <fcntl.h>
#include <unistd.h>

#include "consumer/preload/observe.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

int kiln_observer_dir_fill(int dir, const struct kiln_run_spec *spec, uid_t uid, gid_t gid, struct kiln_err *err) {
    const struct kiln_observe_header header = {.magic = KILN_OBSERVE_MAGIC,
                                               .version = KILN_OBSERVE_VERSION,
                                               .capacity = KILN_OBSERVE_LOG_BYTES - sizeof header};
    int rc = kiln_fs_make_file(dir, "seed", spec->seed, sizeof spec->seed, 0444, err);
    if (rc)
        return rc;
    kiln_autofd int log = openat(dir, "log", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (log < 0 || ftruncate(log, KILN_OBSERVE_LOG_BYTES) < 0 || fchown(log, uid, gid) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "the observer's log");
    return kiln_fs_write_all(log, &header, sizeof header, err);
}
