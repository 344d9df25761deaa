// The two name spaces of a job: where sources are *mounted* (below the sandbox root) and what rustc is told to *call*
// them (/kiln/NAME-VERSION, mounted nowhere); and the way back to the caller's own names.
//
// The measured rule this implements (registry, git and path packages: their own prefix; a workspace member: its cwd;
// OUT_DIR: NAME.out) is explained in ARCHITECTURE.md, "Paths". Matching is by whole components; the longest prefix wins.
// Pure; the map owns copies of its strings; re-entrant for readers.
#pragma once

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

const char *kiln_sandbox_root(void); // built from parts, so that the string itself is found in no source file

// Fixed places below the sandbox root.
#define KILN_PLACE_WORKSPACE "ws"
#define KILN_PLACE_OUT_DIR "out"      // OUT_DIR
#define KILN_PLACE_TARGET "target"    // --out-dir
#define KILN_PLACE_DEPS "deps"        // extern libraries
#define KILN_PLACE_NATIVE "native"    // native library directories: native/0, native/1, ...
#define KILN_PLACE_REGISTRY "reg"
#define KILN_PLACE_GIT "git"
#define KILN_PLACE_PATH "path"
#define KILN_PLACE_CARGO "cargo"      // CARGO_HOME and the cargo program
#define KILN_PLACE_SYSROOT "sysroot"
#define KILN_PLACE_HOME "home"
#define KILN_PLACE_OBSERVER "obs"     // the observer's object, log and seed
// Sandbox root + "/" + place [+ "/" + rest]; heap.
char *kiln_place(const char *place, const char *rest_or_null);

struct kiln_path_rule {
    char *real;    // absolute, normalized
    char *sandbox; // absolute, below the sandbox root
    char *shown;   // "/kiln/NAME-VERSION" when rustc remaps it, else NULL
};

struct kiln_path_map {
    struct kiln_path_rule *rules;
    size_t count, cap;
};

void kiln_path_map_release(struct kiln_path_map *map);
int kiln_path_map_add(struct kiln_path_map *map, const char *real, const char *sandbox, const char *shown_or_null,
                      struct kiln_err *err);
// The path in the other name space, on the heap; NULL when no rule covers it (or on exhausted memory).
char *kiln_path_map_to_sandbox(const struct kiln_path_map *map, const char *real_path);
char *kiln_path_map_to_real(const struct kiln_path_map *map, const char *sandbox_or_shown_path);
// Replaces every real prefix in a text that may hold several paths (an environment value): matches start at a byte that
// cannot be part of a path name before and end at a component boundary. *changed tells whether anything was.
int kiln_path_map_text_to_sandbox(const struct kiln_path_map *map, const char *text, struct kiln_buf *out,
                                  bool *changed, struct kiln_err *err);
// Compiler output back to the caller's names: sandbox and shown prefixes become real ones. `json` escapes what is put
// in as inside a JSON string. *residue is set when a sandbox or "/kiln/" name is left that no rule covers.
int kiln_path_map_text_to_real(const struct kiln_path_map *map, const void *text, size_t len, bool json,
                               struct kiln_buf *out, bool *residue, struct kiln_err *err);
