// Entering a user namespace in which the caller keeps its own uid and gid, and saying why the host refuses one.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/err.h"

// Does this process's user namespace know the uid? (A rootless container may not.)
bool kiln_userns_knows(uid_t uid);
// unshare(CLONE_NEWUSER | more) and the maps "id id 1". The caller is single-threaded. On refusal the text names the
// setting of the host that forbids it and how to change it.
int kiln_userns_enter(int more_namespaces, struct kiln_err *err);
// What an administrator can change so that unprivileged user namespaces work; "" when nothing known stands in the way.
const char *kiln_userns_hint(void);
