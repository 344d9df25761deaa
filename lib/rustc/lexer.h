// Rust source as tokens: identifiers, literals, punctuation; white space and comments are skipped.
//
// Source: the Rust Reference, "Lexical structure" (editions 2015 to 2024 lex the same here: an unknown prefix before a
// quote is an identifier and a literal). Any bytes are accepted and every call ends: a literal or comment that is not
// closed goes on to the end, as no such file compiles. Pure; a lexer belongs to one thread; tokens borrow the source.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"

enum kiln_token_kind {
    KILN_TOKEN_END,
    KILN_TOKEN_IDENT,    // raw identifiers without their "r#"
    KILN_TOKEN_LIFETIME, // with the quote
    KILN_TOKEN_STRING,   // a string literal of any form; `text` is what stands between the quotes
    KILN_TOKEN_CHAR,     // 'x' or b'x'
    KILN_TOKEN_NUMBER,
    KILN_TOKEN_PUNCT,    // one byte
};

struct kiln_token {
    enum kiln_token_kind kind;
    const char *text;
    size_t len;
    bool plain;   // STRING: neither a byte nor a C string
    bool escapes; // STRING: backslashes in `text` are escapes (no raw form, and there is one)
};

struct kiln_lexer {
    const char *data;
    size_t len, at;
};

// Skips a byte order mark and a shebang line.
void kiln_lexer_init(struct kiln_lexer *lexer, const void *data, size_t len);
// The next token; END again and again at the end.
void kiln_lexer_next(struct kiln_lexer *lexer, struct kiln_token *token);
// Appends a STRING token's value with its escapes resolved; an escape that is none stays as it is written.
void kiln_token_value(const struct kiln_token *token, struct kiln_buf *out);
