// The toolchain's parts as one directory for the sandbox: hard links of the staged files, made once per combination.
//
// The agent stages each part at DIR/toolchains/HEX/{tree,root} (producer/agent/toolchain.h). A combination lies at
// DIR/toolchains/merged-HEX, HEX being the digest of the parts' digests; every file is hashed against its tree when the
// combination is made. Thread-safe: two threads may make the same one, one of them wins.
#pragma once

#include "lib/core/action.h"

// A descriptor of the directory for the action's parts.
int kiln_toolchain_root_open(const char *dir, const struct kiln_action *action, int *fd, struct kiln_err *err);
