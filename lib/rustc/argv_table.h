// What Kiln knows of each flag of rustc 1.95, as const tables, and the reader of a command line that uses them.
//
// Source: `rustc --help -v`, `rustc -C help`, `RUSTC_BOOTSTRAP=1 rustc -Z help` of 1.95.0; the spellings are those of
// the getopts crate, checked by experiment (tests/unit/test_rustc_argv_real.c does it again with the rustc it finds).
// Private to lib/rustc/argv*.c and their tests. Pure; re-entrant.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum kiln_flag_space { KILN_FLAGS_TOP, KILN_FLAGS_CODEGEN, KILN_FLAGS_UNSTABLE };

enum kiln_flag_takes { KILN_TAKES_NOTHING, KILN_TAKES_VALUE, KILN_TAKES_MAYBE };

enum kiln_flag_meaning {
    KILN_MEANS_PLAIN, // part of the key as it is; `field` or `truth` says where it is kept
    KILN_MEANS_PASS,  // no compile at all
    KILN_MEANS_LOCAL, // with `reason`
    KILN_MEANS_LOCAL_IF_TRUE,
    KILN_MEANS_LOCAL_IF_LINKED, // rustc reads the value only when it runs the linker
    KILN_MEANS_OUT_DIR,
    KILN_MEANS_EXTERN,
    KILN_MEANS_LIB_DIR,
    KILN_MEANS_NATIVE_LIB,
    KILN_MEANS_SYSROOT,
    KILN_MEANS_TARGET,
    KILN_MEANS_CRATE_TYPE,
    KILN_MEANS_EMIT,
    KILN_MEANS_JSON,
    KILN_MEANS_LINT,
    KILN_MEANS_REMAP,
    KILN_MEANS_DEBUG,
    KILN_MEANS_OPTIMIZE,
    KILN_MEANS_CODEGEN,
    KILN_MEANS_UNSTABLE,
    // of -C and -Z
    KILN_MEANS_CPU,
    KILN_MEANS_FEATURES,
    KILN_MEANS_METADATA,
    KILN_MEANS_LTO,
    KILN_MEANS_PLUGIN_LTO,
    KILN_MEANS_INCREMENTAL,
    KILN_MEANS_LINKER,
    KILN_MEANS_LINK_ARG,
    KILN_MEANS_LINK_ARGS,
    KILN_MEANS_LLVM_ARGS,
    KILN_MEANS_PROFILE_USE,
};

struct kiln_flag {
    const char *name; // "out-dir", "opt-level"; "" when it has only a letter
    char letter;      // 0: none
    enum kiln_flag_takes takes;
    enum kiln_flag_meaning meaning;
    bool once;          // a second occurrence is an error in rustc
    const char *reason; // of the LOCAL meanings
    unsigned short field; // offset in struct kiln_rustc_call of a char * that keeps the last value; 0: none
    unsigned short truth; // the same for a bool
};

#define KILN_FLAGS_TOP_MAX 64

const struct kiln_flag *kiln_flag_table(enum kiln_flag_space space, size_t *count);
// NULL when unknown. In the -C and -Z spaces '-' and '_' are the same.
const struct kiln_flag *kiln_flag_find(enum kiln_flag_space space, const char *name, size_t len);
const struct kiln_flag *kiln_flag_by_letter(char letter);

// Reads arguments as getopts does: long and short spellings, clusters of short flags, "--", free arguments anywhere.
struct kiln_arg_reader {
    size_t argc, at;
    char *const *argv;
    const char *cluster; // rest of a cluster of short flags
    bool only_free;      // behind "--"
};

#define KILN_ARG_READER_INIT(count, arguments) ((struct kiln_arg_reader){.argc = (count), .argv = (arguments)})

enum kiln_token_kind {
    KILN_TOKEN_END,
    KILN_TOKEN_FREE,      // `text` is a file
    KILN_TOKEN_FLAG,      // `flag`, and for -C and -Z `option`, are known
    KILN_TOKEN_UNKNOWN,   // what follows is guesswork, unless `flag` is set (an unknown -C or -Z option)
    KILN_TOKEN_MALFORMED, // a missing or unexpected value: rustc refuses the line
};

struct kiln_token {
    enum kiln_token_kind kind;
    const char *text; // the argument it begins in
    const struct kiln_flag *flag;
    const struct kiln_flag *option; // -C or -Z only
    const char *value; // of the flag, or of the option; NULL: none
    const char *whole; // -C and -Z: "opt-level=3"
};

// False at the end. Borrows from the arguments.
bool kiln_arg_next(struct kiln_arg_reader *reader, struct kiln_token *token);

// True for `-Whelp`, `--print ...`, `-Chelp`, `-Ctarget-cpu=help`: this flag makes rustc print something and stop.
bool kiln_token_passes(const struct kiln_token *token);
// How many of argv's first strings name the compiler: 1, or 2 for `clippy-driver /path/rustc ...`.
size_t kiln_compiler_words(size_t argc, char *const *argv, bool *clippy);

// True when the list (NULL at its end) has this word.
bool kiln_word_in(const char *word, size_t len, const char *const *list);
// How many bytes of a foreign argument a reason shows: bounded, and no part of a UTF-8 sequence.
int kiln_shown_bytes(const char *text);

// True when this argument of a linker driver, or of a linker, names no file (-fuse-ld= only linkers of the toolchain).
bool kiln_link_arg_is_plain(const char *arg);
// True for a -C llvm-args value of a few options that take a number or a truth value.
bool kiln_llvm_args_are_plain(const char *args);
