// Which package a cargo unit belongs to, where its sources are mounted in the sandbox and what rustc is told to call them.
//
// The rule (measured; ARCHITECTURE.md "Paths" has the reasons):
//   registry  CARGO_HOME/registry/src/INDEX/NAME-VERSION      mounted at SB/reg/NV      called /kiln/NV
//   git       CARGO_HOME/git/checkouts/CO/REV[/sub]           mounted at SB/git/CO/REV[/sub]; the checkout root is
//                                                             called /kiln/NV-git-REV
//   member    source spelled relative to the cwd, which holds the package: mounted at SB/ws[/sub]; the *cwd* (the
//             workspace root) is called /kiln/NV-ws
//   path      any other: source spelled absolute, cwd = package:  mounted at SB/path/NV, called /kiln/NV-path
// Anything else is OTHER: not called by cargo for a package, or with names that cannot be trusted in a path.
// All values come from a hostile environment. Pure; the package owns its strings.
#pragma once

#include "lib/base/err.h"

enum kiln_package_kind {
    KILN_PACKAGE_OTHER,
    KILN_PACKAGE_REGISTRY,
    KILN_PACKAGE_GIT,
    KILN_PACKAGE_MEMBER,
    KILN_PACKAGE_PATH,
};

struct kiln_package_query {
    const char *manifest_dir, *name, *version; // CARGO_MANIFEST_DIR, CARGO_PKG_NAME, CARGO_PKG_VERSION; NULL: not set
    const char *cargo_home, *home;             // CARGO_HOME, HOME
    const char *cwd;                           // absolute
    const char *source;                        // the root file as rustc was given it
};

struct kiln_package {
    enum kiln_package_kind kind;
    char *name_version;  // NAME-VERSION, with the suffix of its kind: unique in the graph of one build
    char *dir, *mount;   // the package's directory, on the client and in the sandbox
    char *cwd;           // the compiler's working directory in the sandbox
    char *remap_real, *remap_sandbox, *shown; // the prefix that is remapped, and to what
};

// 0 with package->kind set; fails only for exhausted memory.
int kiln_package_classify(const struct kiln_package_query *query, struct kiln_package *package, struct kiln_err *err);
void kiln_package_release(struct kiln_package *package);
