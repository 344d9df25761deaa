// Lexical facts about Rust sources: which environment variables env!/option_env! may ask for, and whether OUT_DIR is used
// only to name an included file. A lexer (comments, nested comments, all literal forms, raw strings, lifetimes), no
// parser; over-approximates and never fails on odd input. Bounded by the input. Pure; re-entrant. Fuzzed.
#pragma once

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct kiln_scan_facts {
    char **env_names; // sorted, unique; from env!("X"...), option_env!("X") in any token position, macro bodies included
    size_t env_count;
    bool out_dir_used;     // the token "OUT_DIR" occurs as a string literal
    bool out_dir_as_value; // an occurrence is not inside include!/include_str!/include_bytes!(concat!(env!("OUT_DIR"), ...))
    bool env_computed;     // env!/option_env! with something that is not a plain literal
};

// Adds what one file's bytes show to *facts (zeroed at first).
int kiln_scan_source(const void *data, size_t len, struct kiln_scan_facts *facts, struct kiln_err *err);
// Sorts and makes unique; after the last file.
void kiln_scan_finish(struct kiln_scan_facts *facts);
void kiln_scan_release(struct kiln_scan_facts *facts);
