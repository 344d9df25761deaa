// The toolchain of a call: found, identified by content, staged for the sandbox.
//
// Three parts, each a tree (lib/core/tree.h) laid out as it appears inside the sandbox: *runtime* (dynamic loader, libc,
// libgcc_s and what rustc and its tools load), *rustc* (rustc, its libraries, rustlib of host and target; clippy-driver
// only for clippy; no docs, rustfmt, sources, sanitizer runtimes) and *link* (C driver, collect2, linker, CRT objects,
// libc stubs; only jobs that link have it in their key). A part is copied once to DIR/toolchains/HEX/root, its tree
// encoding beside it in DIR/toolchains/HEX/tree. It is revalidated on every call by the stat of each of its files and
// directories; a difference means: identify it again.
// rustup proxies are resolved by asking them (`--print sysroot` in the caller's directory), remembered by the
// caller's RUSTUP_TOOLCHAIN or by the toolchain files above its directory. A distribution's own sysroot (/usr) is not
// taken (KILN_E_UNSUPPORTED: the unit is local).
// In system mode no program of a client is run, and only toolchains owned by root or the agent are taken.
// Thread-safe.
#pragma once

#include <stdbool.h>

#include "lib/core/digest.h"
#include "producer/agent/l0.h"

struct kiln_toolchains;

struct kiln_toolchain {
    struct kiln_digest runtime, rustc, link; // link is zero unless asked for
    char *sysroot; // on the host
    char *host;    // target triple of the host
    char *rustc_path; // real compiler on the host
};
void kiln_toolchain_release(struct kiln_toolchain *toolchain);

struct kiln_toolchain_query {
    const char *compiler;     // as the caller spelled it
    const char *rustc;        // for clippy-driver: the rustc named behind it, or NULL
    bool clippy, links;
    const char *target;       // NULL: host
    const char *cwd;
    char *const *env;         // the caller's, NAME=VALUE
    size_t env_count;
};

enum kiln_toolchain_use {
    KILN_TOOLCHAIN_STAGED, // for this host's own executor
    KILN_TOOLCHAIN_NAMED,  // only digests: operators publish toolchains for a fleet's executors (lib/blob/toolchain_store.h)
};
int kiln_toolchains_new(const char *dir, struct kiln_l0 *l0, bool system_mode, enum kiln_toolchain_use use,
                        struct kiln_toolchains **toolchains, struct kiln_err *err);
void kiln_toolchains_free(struct kiln_toolchains *toolchains);
int kiln_toolchain_resolve(struct kiln_toolchains *toolchains, const struct kiln_toolchain_query *query,
                           struct kiln_toolchain *toolchain, struct kiln_err *err);
// One line per staged part (JSON array with json): part, digest, files, bytes, where it came from.
int kiln_toolchains_list(struct kiln_toolchains *toolchains, bool json, struct kiln_buf *out, struct kiln_err *err);
