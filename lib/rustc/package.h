// Which package a cargo unit belongs to, where its sources are mounted in the sandbox and what rustc is told to call them.
//
// The rule (measured; ARCHITECTURE.md "Paths" has the reasons):
//   registry  CARGO_HOME/registry/src/INDEX/NAME-VERSION      mounted at SB/reg/NV      called /kiln/NV
//   git       CARGO_HOME/git/checkouts/CO/REV[/sub]           mounted at SB/git/CO/REV[/sub]; the checkout root is
//                                                             called /kiln/NV-git-REV
//   member    source spelled relative to the cwd, which holds the package: mounted at SB/ws[/sub]; the *cwd* (the
//             workspace root) is called /kiln/NV-ws
//   path      source spelled absolute, cwd = package, not below CARGO_HOME: mounted at SB/path/NV, called /kiln/NV-path
// A registry or git package may have its source spelled relative, as `cargo install` does.
// Anything else is OTHER: not called by cargo for a package, a source outside the package's directory, or names that
// cannot be trusted in a path; `reason` says which. A build script has all the variables of its package, but not
// CARGO_CRATE_NAME, which cargo 1.95 sets for the compiler alone: so the probes that build scripts run are told apart.
// All values come from a hostile environment. Pure; the package owns its strings.
#pragma once

#include "lib/base/err.h"

// A package's name and version together, and a git checkout's name, have at most this many bytes.
#define KILN_PACKAGE_NAME_MAX 200

enum kiln_package_kind {
    KILN_PACKAGE_OTHER,
    KILN_PACKAGE_REGISTRY,
    KILN_PACKAGE_GIT,
    KILN_PACKAGE_MEMBER,
    KILN_PACKAGE_PATH,
};

struct kiln_package_query {
    const char *manifest_dir, *name, *version; // CARGO_MANIFEST_DIR, CARGO_PKG_NAME, CARGO_PKG_VERSION; NULL: not set
    const char *crate_name;                    // CARGO_CRATE_NAME; NULL: not set
    const char *cargo_home, *home;             // CARGO_HOME, HOME
    const char *cwd;                           // absolute
    const char *source;                        // the root file as rustc was given it
};

struct kiln_package {
    enum kiln_package_kind kind;
    const char *reason;  // for OTHER: static text, else NULL
    char *name_version;  // NAME-VERSION, with the suffix of its kind: unique in the graph of one build
    char *dir, *mount;   // the package's directory, on the client and in the sandbox
    char *cwd;           // the compiler's working directory in the sandbox
    char *remap_real, *remap_sandbox, *shown; // the prefix that is remapped, and to what
};

// 0 with package->kind set; fails only for exhausted memory.
int kiln_package_classify(const struct kiln_package_query *query, struct kiln_package *package, struct kiln_err *err);
void kiln_package_release(struct kiln_package *package);
#define kiln_autopackage __attribute__((cleanup(kiln_package_release)))
