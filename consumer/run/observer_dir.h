// What the observer (consumer/preload/observe.h) finds in its directory when the job starts: the seed, and an empty log that the
// job may write.
#pragma once

#include <sys/types.h>

#include "consumer/run/spec.h"

int kiln_observer_dir_fill(int dir, const struct kiln_run_spec *spec, uid_t uid, gid_t gid, struct kiln_err *err);
