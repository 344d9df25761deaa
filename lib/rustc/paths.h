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
// What rustc names a file of its --out-dir: the directory as it was spelled, a slash unless it ends with one or is
// empty, the name. Heap.
char *kiln_out_dir_join(const char *out_dir, const char *name);

struct kiln_path_rule {
    char *real;    // absolute, normalized, not "/"
    char *sandbox; // absolute, below the sandbox root
    char *shown;   // "/kiln/NAME-VERSION" when rustc remaps it, else NULL
};

struct kiln_path_name {
    const char *text; // borrowed from a rule
    size_t len, rule;
};

struct kiln_path_map {
    struct kiln_path_rule *rules;
    size_t count, cap;
    // Sorted by bytes: the real prefixes, and the sandbox and shown ones. Kept by kiln_path_map_add().
    struct kiln_path_name *reals, *names;
    size_t reals_count, names_count;
};

void kiln_path_map_release(struct kiln_path_map *map);
#define kiln_autopathmap __attribute__((cleanup(kiln_path_map_release)))
// A real prefix may be added several times with other names (two packages of one checkout): all names lead back, and
// the first sandbox name is the one that to_sandbox gives. A sandbox or shown name that is there for another real
// prefix cannot be undone: KILN_E_EXISTS. The same rule again is fine.
int kiln_path_map_add(struct kiln_path_map *map, const char *real, const char *sandbox, const char *shown_or_null,
                      struct kiln_err *err);
// The path in the other name space, on the heap; NULL when no rule covers it (or on exhausted memory). What follows the
// prefix stays as it is spelled; a rest that climbs above the prefix by ".." is not covered.
char *kiln_path_map_to_sandbox(const struct kiln_path_map *map, const char *real_path);
char *kiln_path_map_to_real(const struct kiln_path_map *map, const char *sandbox_or_shown_path);

// Text functions append to *out, whose maximum bounds them, in time linear in the text.
//
// Replaces every real prefix in a text that may hold several paths (an environment value): matches start at a byte that
// cannot be part of a path name before and end at a component boundary. *changed tells whether anything was.
int kiln_path_map_text_to_sandbox(const struct kiln_path_map *map, const char *text, struct kiln_buf *out,
                                  bool *changed, struct kiln_err *err);
// The way back for such a text. *residue is set when a sandbox name is left that no rule covers.
int kiln_path_map_text_from_sandbox(const struct kiln_path_map *map, const void *text, size_t len,
                                    struct kiln_buf *out, bool *residue, struct kiln_err *err);
// Compiler output back to the caller's names: sandbox and shown prefixes become real ones. `json` escapes what is put
// in as inside a JSON string. *residue is set when a sandbox or "/kiln/" name is left that no rule covers; "/kiln/" in
// the middle of another path (/home/u/kiln/x) is no such name. *residue is never cleared.
int kiln_path_map_text_to_real(const struct kiln_path_map *map, const void *text, size_t len, bool json,
                               struct kiln_buf *out, bool *residue, struct kiln_err *err);
// Appends a path as the inside of a JSON string, the way rustc writes it (bytes that are not UTF-8 become U+FFFD).
void kiln_path_add_json(struct kiln_buf *out, const char *path, size_t len);
