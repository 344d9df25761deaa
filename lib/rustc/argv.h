// The rustc command line: every flag of rustc 1.95, what it reads, what it writes, and what Kiln must not guess about.
//
// Source: `rustc --help -v`, `rustc -C help`, `rustc -Z help` of 1.95.0. A flag that is unknown and could name a file,
// and everything listed as local in the tables of argv_table.c, makes the call KILN_CALL_LOCAL with a reason. What only
// the linker reads (-C linker, -C link-arg, -C rpath) matters to calls that run it: a library with a foreign linker
// compiles to the same bytes. Parsing is pure except for @file arguments, which are read through `read_file` (one
// argument per line, no quoting, as rustc does).
// The same parser reads the client's own command line and the canonical one inside an action (`canonical`): an executor
// and a verifier derive the expected outputs from the latter. The canonical form has one spelling for each flag
// ("--crate-type=lib", "-Copt-level=3", "-Ldependency=DIR", "--extern=OPTIONS:NAME=PATH") and keeps their order.
// Not read here, though they act like arguments: CLIPPY_ARGS and SYSROOT of clippy-driver, RUST_TARGET_PATH.
// Limits: KILN_ACTION_ARGS_MAX arguments, 1 MiB in all. Ownership: the call owns all its strings. Re-entrant.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

enum kiln_call_kind {
    KILN_CALL_COMPILE, // Kiln can take it
    KILN_CALL_PASS,    // no compile at all: -vV, --version, --print, --explain, -Z help, stdin source, no source
    KILN_CALL_LOCAL,   // a compile that is not cacheable; `reason` says why
};

enum kiln_crate_type { // bits
    KILN_CRATE_LIB = 1, KILN_CRATE_RLIB = 2, KILN_CRATE_BIN = 4, KILN_CRATE_DYLIB = 8, KILN_CRATE_CDYLIB = 16,
    KILN_CRATE_STATICLIB = 32, KILN_CRATE_PROC_MACRO = 64,
};

enum kiln_emit { // bits
    KILN_EMIT_LINK = 1, KILN_EMIT_METADATA = 2, KILN_EMIT_DEP_INFO = 4, KILN_EMIT_ASM = 8, KILN_EMIT_LLVM_IR = 16,
    KILN_EMIT_LLVM_BC = 32, KILN_EMIT_OBJ = 64, KILN_EMIT_MIR = 128,
};

enum kiln_lib_dir_kind { KILN_DIR_ALL, KILN_DIR_DEPENDENCY, KILN_DIR_CRATE, KILN_DIR_NATIVE, KILN_DIR_FRAMEWORK };

struct kiln_extern {
    char *options; // "noprelude,priv" or NULL
    char *name;
    char *path;    // NULL for `--extern proc_macro`
};

struct kiln_lib_dir {
    enum kiln_lib_dir_kind kind;
    char *path;
};

struct kiln_native_lib {
    char *kind;      // "static", "dylib", NULL when not given
    char *modifiers; // "+bundle,-verbatim" or NULL
    char *name;
    char *rename;    // NAME:RENAME or NULL
};

// One argument group of the expanded command line, in order, for rewriting: "--out-dir" + "x", "-Ldependency=x" ...
enum kiln_arg_role {
    KILN_ARG_PLAIN,    // copied as it is
    KILN_ARG_SOURCE,   // the root file
    KILN_ARG_OUT_DIR,
    KILN_ARG_EXTERN,
    KILN_ARG_LIB_DIR,
    KILN_ARG_SYSROOT,  // its calls are local for now, as those of a target file and of FILE
    KILN_ARG_TARGET_JSON,
    KILN_ARG_FILE,     // another option whose value is a file that is an input: -C profile-use=...
    KILN_ARG_DROP,     // not part of the action: -C incremental when it is dropped
};

struct kiln_arg {
    enum kiln_arg_role role;
    char *flag;  // canonical spelling with its joiner: "--out-dir=", "-Ldependency=", "-Cprofile-use=", "" for the
                 // source; the whole argument for PLAIN and DROP
    char *value; // path part, or for EXTERN "options:name" (no path); NULL for PLAIN and DROP
    char *path;  // the path of the roles that have one, as the caller spelled it; NULL for `--extern proc_macro`
};

struct kiln_rustc_call {
    enum kiln_call_kind kind;
    char *reason;     // for LOCAL: "incremental", "unknown_flag: -Zfoo=x", "output_path: -o", ... stable first word
    bool clippy;      // program is clippy-driver
    bool test;        // --test
    char *crate_name, *source, *out_dir, *extra_filename, *metadata, *edition;
    char *target;     // NULL: host
    char *sysroot;    // NULL: the compiler's own
    unsigned crate_types, emits; // without a flag for it: BIN (an attribute may say otherwise), LINK
    char *debuginfo, *split_debuginfo, *opt_level, *target_cpu, *linker, *error_format, *color;
    char *lto, *codegen_units; // like the others: the last value, "" or rustc's own ("fat") when given without one
    bool json_artifacts, json_rendered;
    bool prefer_dynamic, rpath, coverage, user_remap;
    struct kiln_extern *externs;
    size_t externs_count;
    struct kiln_lib_dir *lib_dirs;
    size_t lib_dirs_count;
    struct kiln_native_lib *native_libs;
    size_t native_libs_count;
    struct kiln_arg *args; // expanded, without the compiler itself
    size_t args_count;
};

struct kiln_argv_options {
    bool drop_incremental; // -C incremental is dropped instead of making the call local
    bool canonical;        // Kiln wrote the line: --remap-path-prefix to a "/kiln/" name is its own, and plain
    // Reads an @file; NULL: such an argument makes the call local.
    int (*read_file)(void *context, const char *path, struct kiln_buf *out, struct kiln_err *err);
    void *context;
};

// argv[0] is the compiler ("rustc", "/x/rustc", "clippy-driver" optionally followed by a rustc path).
// Returns 0 with call->kind set; fails only for limits and memory.
int kiln_rustc_parse(size_t argc, char *const *argv, const struct kiln_argv_options *options,
                     struct kiln_rustc_call *call, struct kiln_err *err);
void kiln_rustc_call_release(struct kiln_rustc_call *call);
#define kiln_autocall __attribute__((cleanup(kiln_rustc_call_release)))

// True when the arguments plainly are no compile (-vV, --print, "-" ...): what the wrapper asks before it wakes
// anybody. Does not read files; a false answer decides nothing.
bool kiln_rustc_is_probe(size_t argc, char *const *argv);

bool kiln_rustc_needs_libraries(const struct kiln_rustc_call *call); // of externs: libraries, not only metadata
bool kiln_rustc_needs_linker(const struct kiln_rustc_call *call);
bool kiln_rustc_has_debuginfo(const struct kiln_rustc_call *call);

// An output that the call may leave in its out dir.
struct kiln_expected_output {
    char *name;       // "libfoo-0123.rlib"; or a prefix when `prefix` is set ("foo-0123." for split debug info)
    bool prefix, required, executable;
};
// Names that a successful run leaves: derived from crate name, types, emits, extra-filename, split-debuginfo, target.
// Every file it can leave is covered: also "STEM.long-type-...", which a warning about a long type writes. Only for
// KILN_CALL_COMPILE.
int kiln_rustc_outputs(const struct kiln_rustc_call *call, struct kiln_expected_output **outputs, size_t *count,
                       struct kiln_err *err);
void kiln_rustc_outputs_free(struct kiln_expected_output *outputs, size_t count);

// Writes the canonical arguments. `place` gives the sandbox spelling of a path in its role (heap; freed here), NULL to
// refuse (then the rewrite fails with KILN_E_UNSUPPORTED and names it). -L dependency directories are written once, as
// the place of the first; externs keep options and name. Order is kept. Only for KILN_CALL_COMPILE. `place` and `emit`
// share the context; `place` is not asked about PLAIN, DROP and an extern without a path.
typedef char *(*kiln_place_fn)(void *context, const struct kiln_arg *arg);
int kiln_rustc_rewrite(const struct kiln_rustc_call *call, kiln_place_fn place, void *context,
                       int (*emit)(void *context, const char *arg, struct kiln_err *err), struct kiln_err *err);
