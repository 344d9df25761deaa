// Lexical facts about Rust sources: which environment variables env!/option_env! may ask for, and whether OUT_DIR is used
// only to name an included file. A lexer (comments, nested comments, all literal forms, raw strings, lifetimes), no
// parser; over-approximates and never fails on odd input. Bounded by the input. Pure; re-entrant. Fuzzed.
//
// Macros are known by their last path segment (std::env!, r#env!), with any delimiter, and no cfg is evaluated. What a
// macro of another crate makes of its arguments is not seen here; the observer and the dep-info see it.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct kiln_scan_facts {
    char **env_names; // sorted, unique; from env!("X"...), option_env!("X") in any token position, macro bodies included
    size_t env_count, env_cap;
    bool out_dir_used;     // the token "OUT_DIR" occurs as a string literal
    // An occurrence may become a value: it stands inside a macro or attribute, and is neither the path of
    // include!/include_str!/include_bytes! (env!("OUT_DIR"), alone or in concat!) nor the argument of a function var or
    // var_os. Outside all macros it is a string that the program uses when it runs.
    bool out_dir_as_value;
    bool env_computed;     // env!/option_env! with something that is not a plain literal, or is no variable's name
};

// Adds what one file's bytes show to *facts (zeroed at first). Fails only on exhausted memory.
int kiln_scan_source(const void *data, size_t len, struct kiln_scan_facts *facts, struct kiln_err *err);
// Sorts and makes unique; after the last file.
void kiln_scan_finish(struct kiln_scan_facts *facts);
void kiln_scan_release(struct kiln_scan_facts *facts);
#define kiln_autoscan __attribute__((cleanup(kiln_scan_release)))
