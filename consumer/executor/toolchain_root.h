// The toolchain's parts as one directory for the sandbox: hard links of the staged files, made once per combination.
//
// The agent stages each part at DIR/toolchains/HEX/{tree,root} (producer/agent/toolchain.h). A combination lies at
// DIR/toolchains/merged-HEX, HEX being the digest of the parts' digests (runtime, rustc, link) in that order. Every file is
// hashed against its tree when the combination is made and once more by each process that finds it made (some 0.4 s for a
// whole toolchain): a disk that changed it in between is noticed. A combination that is wrong is made again; a staged part
// that is wrong is removed, so that the agent stages it again.
// In a fleet nobody stages parts: one that is not there is fetched from the published ones (lib/blob/toolchain_store.h).
// Thread-safe: other threads wait while one makes or checks.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"

struct kiln_toolchain_roots;

// Removes what a killed predecessor left half made.
int kiln_toolchain_roots_new(const char *dir, struct kiln_toolchain_roots **roots, struct kiln_err *err);
void kiln_toolchain_roots_fetch_from(struct kiln_toolchain_roots *roots, struct kiln_store *store); // borrowed; before use
void kiln_toolchain_roots_free(struct kiln_toolchain_roots *roots);
// A descriptor of the directory for the action's parts. KILN_E_NOTFOUND: a part is neither staged nor published.
int kiln_toolchain_root_open(struct kiln_toolchain_roots *roots, const struct kiln_action *action, int *fd,
                             struct kiln_err *err);
