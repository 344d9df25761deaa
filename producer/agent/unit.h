// One rustc call of a client as a job: what it reads, the action that follows, and the way back to the caller's names.
//
// kiln_unit_prepare fails with KILN_E_UNSUPPORTED when the call must be compiled where it is; the error text is the
// reason, its first word (up to ':') is stable and counted. Any other code is a failure of ours, which also means: locally.
#pragma once

#include <sys/types.h>

#include "lib/core/action.h"
#include "lib/ipc/frames.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/package.h"
#include "lib/rustc/paths.h"
#include "lib/rustc/scan.h"
#include "producer/agent/ancestor.h"
#include "producer/agent/closure.h"
#include "producer/agent/dir_input.h"
#include "producer/agent/toolchain.h"

struct kiln_unit_context {
    struct kiln_l0 *l0;
    struct kiln_memo *memo;
    struct kiln_toolchains *toolchains;
    struct kiln_ancestors *ancestors;
    bool system_mode, drop_incremental;
};

// A directory that became an input tree.
struct kiln_unit_dir {
    char *dir, *mount;
    enum kiln_dir_rule rule;
    struct kiln_digest tree;
};

struct kiln_unit {
    struct kiln_rustc_call call;
    struct kiln_toolchain toolchain;
    struct kiln_package package;
    struct kiln_path_map map;
    struct kiln_scan_facts facts;
    struct kiln_closure closure;
    struct kiln_unit_dir *dirs; // packs
    size_t dirs_count;
    struct kiln_unit_dir *natives; // lists of library directories
    size_t natives_count;
    char *cwd, *out_dir; // the caller's; out_dir as it spelled it
    struct kiln_action action;
    struct kiln_buf action_bytes;
    struct kiln_digest action_digest;
};

int kiln_unit_prepare(const struct kiln_unit_context *context, const struct kiln_compile_request *request, pid_t wrapper,
                      struct kiln_unit *unit, struct kiln_err *err);
void kiln_unit_release(struct kiln_unit *unit);
// The tree of the extern libraries' directory (zeroed at first), or of a native directory, as the action names it.
int kiln_unit_libraries_tree(const struct kiln_closure *closure, struct kiln_tree *tree, struct kiln_err *err);
