// The extern closure: every library file that rustc may open for a unit, found without running it.
//
// Cargo names the direct externs; the others are found by *stem* ("libfoo-0123abcd") in the -L dependency directories. The
// stems that a library needs are remembered by its content digest: from the signed result that made it, else from rustc
// itself, asked once per digest (`-Zls=root`; not in system mode). Jobs that do not link get .rmeta where there is one,
// jobs that do get .rlib; proc macros come as .so either way and must be observable (macro_object.h).
// Failure is KILN_E_UNSUPPORTED with a reason whose first word is stable ("extern_missing: ...").
#pragma once

#include "lib/rustc/argv.h"
#include "producer/agent/memo.h"
#include "producer/agent/toolchain.h"

struct kiln_library {
    char *path, *name; // on the client; file name in the sandbox's deps directory
    struct kiln_digest digest;
    uint64_t size;
};

struct kiln_closure {
    struct kiln_library *libraries; // sorted by name
    size_t count, cap;
    char **stems; // sorted, unique
    size_t stems_count, stems_cap;
};

void kiln_closure_release(struct kiln_closure *closure);

struct kiln_closure_context {
    struct kiln_l0 *l0;
    struct kiln_memo *memo;
    const struct kiln_toolchain *toolchain;
    const char *cwd;
    bool system_mode;
};

int kiln_closure_collect(const struct kiln_closure_context *context, const struct kiln_rustc_call *call,
                         struct kiln_closure *closure, struct kiln_err *err);
// Remembers what a library needs, by its content.
void kiln_closure_remember(struct kiln_l0 *l0, const struct kiln_digest *library, char *const *stems, size_t count);
