#include "lib/rustc/lexer.h"

#include <stdint.h>
#include <string.h>

// A raw string may have this many '#'; more is an error in rustc.
#define HASHES_MAX 255

enum { SPACE = 1, IDENT_START = 2, DIGIT = 4, WIDE = 8 };

// Bytes of 0x80 and more begin or continue an identifier: which of them Unicode forbids makes no difference here, but
// for the two that may begin a wide space.
static const unsigned char classes[256] = {
    ['\t' ... '\r'] = SPACE,     [' '] = SPACE,
    ['0' ... '9'] = DIGIT,       ['a' ... 'z'] = IDENT_START,
    ['A' ... 'Z'] = IDENT_START, ['_'] = IDENT_START,
    [0x80 ... 0xc1] = IDENT_START, [0xc2] = IDENT_START | WIDE,
    [0xc3 ... 0xe1] = IDENT_START, [0xe2] = IDENT_START | WIDE,
    [0xe3 ... 0xff] = IDENT_START,
};

static unsigned char_class(unsigned char c) { return classes[c]; }

static unsigned char byte_at(const struct kiln_lexer *lexer, size_t at) {
    return at < lexer->len ? (unsigned char)lexer->data[at] : 0;
}

// Length of one of the white-space characters of Rust that are not ASCII, 0 when there is none: U+0085, U+200E, U+200F,
// U+2028, U+2029.
static size_t wide_space(const struct kiln_lexer *lexer, size_t at) {
    unsigned char first = byte_at(lexer, at), second = byte_at(lexer, at + 1), third = byte_at(lexer, at + 2);
    if (first == 0xc2)
        return second == 0x85 ? 2 : 0;
    bool wide = first == 0xe2 && second == 0x80 && (third == 0x8e || third == 0x8f || third == 0xa8 || third == 0xa9);
    return wide ? 3 : 0;
}

static size_t skip_ident(const struct kiln_lexer *lexer, size_t at) {
    for (; at < lexer->len; at++) {
        unsigned class = char_class((unsigned char)lexer->data[at]);
        if (!(class & (IDENT_START | DIGIT)) || ((class & WIDE) && wide_space(lexer, at)))
            break;
    }
    return at;
}

static size_t skip_line(const struct kiln_lexer *lexer, size_t at) {
    const char *stop = at < lexer->len ? memchr(lexer->data + at, '\n', lexer->len - at) : NULL;
    return stop ? (size_t)(stop - lexer->data) + 1 : lexer->len;
}

static size_t skip_block_comment(const struct kiln_lexer *lexer, size_t at) {
    size_t depth = 1;
    for (at += 2; depth > 0 && at < lexer->len; at++) {
        unsigned char c = (unsigned char)lexer->data[at], next = byte_at(lexer, at + 1);
        if (c == '/' && next == '*')
            depth++, at++;
        else if (c == '*' && next == '/')
            depth--, at++;
    }
    return at < lexer->len ? at : lexer->len;
}

static size_t skip_trivia(const struct kiln_lexer *lexer, size_t at) {
    while (at < lexer->len) {
        unsigned char c = (unsigned char)lexer->data[at];
        if (char_class(c) == SPACE)
            at++;
        else if (c == '/' && byte_at(lexer, at + 1) == '/')
            at = skip_line(lexer, at);
        else if (c == '/' && byte_at(lexer, at + 1) == '*')
            at = skip_block_comment(lexer, at);
        else if (c >= 0x80 && wide_space(lexer, at))
            at += wide_space(lexer, at);
        else
            break;
    }
    return at;
}

void kiln_lexer_init(struct kiln_lexer *lexer, const void *data, size_t len) {
    *lexer = (struct kiln_lexer){.data = data, .len = len};
    static const char mark[] = "\xef\xbb\xbf";
    if (len >= 3 && memcmp(data, mark, 3) == 0)
        lexer->at = 3;
    // "#![" begins an attribute, however much space and comment stands before the bracket.
    if (byte_at(lexer, lexer->at) == '#' && byte_at(lexer, lexer->at + 1) == '!' &&
        byte_at(lexer, skip_trivia(lexer, lexer->at + 2)) != '[')
        lexer->at = skip_line(lexer, lexer->at);
}

static void set(struct kiln_token *token, enum kiln_token_kind kind, const char *text, size_t len) {
    *token = (struct kiln_token){.kind = kind, .text = text, .len = len};
}

// A string whose opening quote is at `at`; returns the end.
static size_t quoted(const struct kiln_lexer *lexer, size_t at, struct kiln_token *token) {
    size_t start = ++at;
    bool escapes = false;
    while (at < lexer->len && lexer->data[at] != '"') {
        if (lexer->data[at] == '\\') {
            escapes = true;
            at++;
        }
        at++;
    }
    if (at > lexer->len)
        at = lexer->len;
    set(token, KILN_TOKEN_STRING, lexer->data + start, at - start);
    token->escapes = escapes;
    return at < lexer->len ? at + 1 : at;
}

// A raw string whose first '#' or quote is at `at`; `at` itself when there is none.
static size_t raw_quoted(const struct kiln_lexer *lexer, size_t at, struct kiln_token *token) {
    size_t hashes = 0, start = at;
    while (hashes <= HASHES_MAX && byte_at(lexer, start) == '#')
        hashes++, start++;
    if (hashes > HASHES_MAX || byte_at(lexer, start) != '"')
        return at;
    start++;
    for (size_t stop = start; stop < lexer->len; stop++) {
        const char *quote = memchr(lexer->data + stop, '"', lexer->len - stop);
        if (!quote)
            break;
        stop = (size_t)(quote - lexer->data);
        size_t found = 0;
        while (found < hashes && byte_at(lexer, stop + 1 + found) == '#')
            found++;
        if (found == hashes) {
            set(token, KILN_TOKEN_STRING, lexer->data + start, stop - start);
            return stop + 1 + hashes;
        }
    }
    set(token, KILN_TOKEN_STRING, lexer->data + start, lexer->len - start);
    return lexer->len;
}

static size_t utf8_len(unsigned char c) { return c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1; }

// What begins with the quote at `at`: a character, or a lifetime.
static size_t quote_or_lifetime(const struct kiln_lexer *lexer, size_t at, struct kiln_token *token) {
    size_t start = at++;
    unsigned char c = byte_at(lexer, at);
    size_t after = at + utf8_len(c);
    bool lifetime = c != '\\' && byte_at(lexer, after) != '\'' && (char_class(c) & IDENT_START);
    if (lifetime) {
        if (c == 'r' && byte_at(lexer, at + 1) == '#')
            at += 2;
        at = skip_ident(lexer, at);
        set(token, KILN_TOKEN_LIFETIME, lexer->data + start, at - start);
        return at;
    }
    if (c != '\\' && byte_at(lexer, after) == '\'') {
        set(token, KILN_TOKEN_CHAR, lexer->data + start, after + 1 - start);
        return after + 1;
    }
    // An escape, or nothing that compiles: up to the closing quote on this line.
    while (at < lexer->len && lexer->data[at] != '\'' && lexer->data[at] != '\n')
        at += lexer->data[at] == '\\' ? 2 : 1;
    at = at < lexer->len ? at + 1 : lexer->len;
    set(token, KILN_TOKEN_CHAR, lexer->data + start, at - start);
    return at;
}

// A literal whose prefix is the identifier at `at`, which ends before `end`; `at` itself when it is only an identifier.
static size_t prefixed(const struct kiln_lexer *lexer, size_t at, size_t end, struct kiln_token *token) {
    unsigned char next = byte_at(lexer, end), first = (unsigned char)lexer->data[at];
    size_t len = end - at;
    if ((next != '"' && next != '#' && next != '\'') || len > 2)
        return at;
    bool raw = lexer->data[end - 1] == 'r';
    bool other = first == 'b' || first == 'c';
    if ((len == 1 && !raw && !other) || (len == 2 && (!raw || !other)))
        return at;
    size_t stop = end;
    if (raw)
        stop = raw_quoted(lexer, end, token);
    else if (next == '"')
        stop = quoted(lexer, end, token);
    else if (next == '\'' && first == 'b')
        stop = quote_or_lifetime(lexer, end, token);
    if (stop == end)
        return at;
    token->plain = !other;
    return stop;
}

static size_t identifier(const struct kiln_lexer *lexer, size_t at, struct kiln_token *token) {
    size_t end = skip_ident(lexer, at);
    size_t stop = prefixed(lexer, at, end, token);
    if (stop != at)
        return stop;
    if (end - at == 1 && lexer->data[at] == 'r' && byte_at(lexer, end) == '#' &&
        (char_class(byte_at(lexer, end + 1)) & IDENT_START)) {
        at = end + 1;
        end = skip_ident(lexer, at);
    }
    set(token, KILN_TOKEN_IDENT, lexer->data + at, end - at);
    return end;
}

void kiln_lexer_next(struct kiln_lexer *lexer, struct kiln_token *token) {
    size_t at = skip_trivia(lexer, lexer->at);
    set(token, KILN_TOKEN_END, lexer->data + at, 0);
    if (at < lexer->len) {
        unsigned char c = (unsigned char)lexer->data[at];
        unsigned class = char_class(c);
        size_t start = at;
        if (class & IDENT_START) {
            at = identifier(lexer, at, token);
        } else if (class == DIGIT) {
            at = skip_ident(lexer, at);
            set(token, KILN_TOKEN_NUMBER, lexer->data + start, at - start);
        } else if (c == '"') {
            at = quoted(lexer, at, token);
            token->plain = true;
        } else if (c == '\'') {
            at = quote_or_lifetime(lexer, at, token);
        } else {
            set(token, KILN_TOKEN_PUNCT, lexer->data + at++, 1);
        }
    }
    lexer->at = at;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void add_utf8(struct kiln_buf *out, uint32_t c) {
    if (c < 0x80) {
        kiln_buf_add_u8(out, (uint8_t)c);
        return;
    }
    if (c < 0x800) {
        kiln_buf_add_u8(out, (uint8_t)(0xc0 | c >> 6));
    } else {
        kiln_buf_add_u8(out, (uint8_t)(c < 0x10000 ? 0xe0 | c >> 12 : 0xf0 | c >> 18));
        if (c >= 0x10000)
            kiln_buf_add_u8(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        kiln_buf_add_u8(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
    }
    kiln_buf_add_u8(out, (uint8_t)(0x80 | (c & 0x3f)));
}

// "u{...}" or "x.." behind a backslash: the length, or 0 when it is no such escape.
static size_t add_number_escape(const char *s, size_t len, struct kiln_buf *out) {
    uint32_t value = 0;
    size_t i = 1;
    bool braces = s[0] == 'u';
    if (braces && (len < 2 || s[i++] != '{'))
        return 0;
    for (size_t digits = 0; i < len && digits < (braces ? 6 : 2); i++) {
        int digit = hex_value(s[i]);
        if (digit < 0 && !(braces && s[i] == '_'))
            break;
        if (digit >= 0) {
            value = value << 4 | (uint32_t)digit;
            digits++;
        }
    }
    if (braces && (i >= len || s[i++] != '}'))
        return 0;
    if (i < 3 || value > 0x10ffff)
        return 0;
    if (braces)
        add_utf8(out, value);
    else
        kiln_buf_add_u8(out, (uint8_t)value);
    return i;
}

// What follows a backslash: writes its meaning and returns its length; 0 when it is no escape.
static size_t add_escape(const char *s, size_t len, struct kiln_buf *out) {
    static const char letters[] = "nrt0\\\"'", meanings[] = "\n\r\t\0\\\"'";
    const char *letter = s[0] ? strchr(letters, s[0]) : NULL;
    if (letter) {
        kiln_buf_add_u8(out, (uint8_t)meanings[letter - letters]);
        return 1;
    }
    if (s[0] == 'x' || s[0] == 'u')
        return add_number_escape(s, len, out);
    size_t skip = 0;
    if (s[0] == '\n' || (s[0] == '\r' && len > 1 && s[1] == '\n'))
        while (skip < len && char_class((unsigned char)s[skip]) == SPACE)
            skip++;
    return skip;
}

void kiln_token_value(const struct kiln_token *token, struct kiln_buf *out) {
    const char *text = token->text, *end = token->text + token->len;
    while (token->escapes && text < end) {
        const char *slash = memchr(text, '\\', (size_t)(end - text));
        if (!slash || slash + 1 == end)
            break;
        kiln_buf_add(out, text, (size_t)(slash - text));
        size_t used = add_escape(slash + 1, (size_t)(end - slash - 1), out);
        if (used == 0)
            kiln_buf_add(out, "\\", 1);
        text = slash + 1 + used;
    }
    kiln_buf_add(out, text, (size_t)(end - text));
}
