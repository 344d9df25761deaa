// Reads the observer's log and says what the job asked for that was not declared. Pure over bytes; fuzzed.
//
// Declared is: everything below a `whole` mount (its listing is in the key) except names withheld there; the toolchain;
// the fixed patterns that every rustc run has (table in witness.c, with the evidence). See ARCHITECTURE.md "Observer".
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct kiln_witness_mount {
    const char *path;    // absolute, in the sandbox
    // Names directly below `path` that exist on some clients and are never given to a job (dot entries, "target"):
    // asking for one, or listing `path` itself, is undeclared. Set for package roots.
    int root_names_withheld;
    // Holds a part of what the client's directory holds (extern libraries, native libraries, OUT_DIR without its *.d): what
    // is found there is keyed, what is not found or a listing may differ, and is undeclared for a macro.
    int partial;
};

struct kiln_witness_world {
    const struct kiln_witness_mount *mounts; // package trees, OUT_DIR, deps, native directories
    size_t mounts_count;
    const char *const *tool_prefixes;        // toolchain places: sysroot, /usr, /lib, /lib64 ...
    size_t tool_prefixes_count;
    const char *const *withheld;             // absolute sandbox paths of WITHHELD tree entries
    size_t withheld_count;
    const char *out_dir, *tmp_dir, *observer_dir, *cwd;
    const char *const *env_names;            // declared names (present or absent)
    size_t env_count;
    // Names that every action holds when its client has them, so that they are declared where they are absent. May be
    // NULL: none.
    bool (*env_is_carried)(const char *name);
    const char *const *env_path_values;      // declared names whose value holds a sandbox path: reading one is undeclared
    size_t env_path_count;
};

struct kiln_witness_report {
    char **observations; // "undeclared_path: /x", "undeclared_list: ...", "undeclared_env: X", "program: git", "library: x.so",
                         // "clock: ..."
    size_t count;        // at most 64; sorted, unique
    uint32_t events;     // entries read
};

int kiln_witness_read(const void *log, size_t len, const struct kiln_witness_world *world,
                      struct kiln_witness_report *report, struct kiln_err *err);
void kiln_witness_report_release(struct kiln_witness_report *report);
