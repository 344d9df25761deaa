#include "lib/rustc/argv_expand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/action.h"
#include "lib/rustc/argv_table.h"

void kiln_expanded_release(struct kiln_expanded *expanded) {
    for (size_t i = 0; i < expanded->count; i++)
        free(expanded->args[i]);
    free(expanded->args);
    free(expanded->refused);
    *expanded = (struct kiln_expanded){0};
}

static int refuse(struct kiln_expanded *expanded, const char *what, const char *detail, struct kiln_err *err) {
    if (asprintf(&expanded->refused, "%s: %.*s", what, kiln_shown_bytes(detail), detail) < 0) {
        expanded->refused = NULL;
        return kiln_fail(err, KILN_E_NOMEM, "rustc command line");
    }
    return 0;
}

// Length of the UTF-8 sequence at `at`; 0 when there is none (Unicode 15, table 3-7).
static size_t sequence_length(const unsigned char *at, size_t left) {
    static const struct {
        unsigned char first_low, first_high, second_low, second_high, len;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*at < forms[i].first_low || *at > forms[i].first_high)
            continue;
        if (left < forms[i].len || (forms[i].len > 1 && (at[1] < forms[i].second_low || at[1] > forms[i].second_high)))
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if (at[k] < 0x80 || at[k] > 0xbf)
                return 0;
        return forms[i].len;
    }
    return 0;
}

static bool is_utf8(const char *text, size_t len) {
    for (size_t at = 0, step; at < len; at += step) {
        step = sequence_length((const unsigned char *)text + at, len - at);
        if (!step)
            return false;
    }
    return true;
}

static int add(struct kiln_expanded *expanded, const char *text, size_t len, struct kiln_err *err) {
    if (expanded->count >= KILN_ACTION_ARGS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "more than %u rustc arguments", KILN_ACTION_ARGS_MAX);
    if (len >= KILN_ARGV_BYTES_MAX - expanded->bytes)
        return kiln_fail(err, KILN_E_LIMIT, "rustc arguments are larger than %u bytes", KILN_ARGV_BYTES_MAX);
    if ((expanded->count & (expanded->count - 1)) == 0) {
        size_t cap = expanded->count ? 2 * expanded->count : 64;
        char **args = realloc(expanded->args, (cap < 64 ? 64 : cap) * sizeof *args);
        if (!args)
            return kiln_fail(err, KILN_E_NOMEM, "rustc command line");
        expanded->args = args;
    }
    char *arg = strndup(text, len);
    if (!arg)
        return kiln_fail(err, KILN_E_NOMEM, "rustc command line");
    expanded->args[expanded->count++] = arg;
    expanded->bytes += len + 1;
    return 0;
}

// Lines end at LF or CRLF; a last line needs no end.
static int add_lines(struct kiln_expanded *expanded, const char *text, size_t len, struct kiln_err *err) {
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < len;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t end = newline ? (size_t)(newline - text) : len;
        size_t line = end - at;
        if (newline && line && text[end - 1] == '\r')
            line--;
        rc = add(expanded, text + at, line, err);
        at = end + 1;
    }
    return rc;
}

static int add_file(struct kiln_expanded *expanded, const char *path, const struct kiln_argv_options *options,
                    struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(KILN_ARGV_BYTES_MAX);
    struct kiln_err why = {0};
    if (!options->read_file || options->read_file(options->context, path, &text, &why))
        return refuse(expanded, "argument_file", path, err);
    if (memchr(text.data ? text.data : (unsigned char *)"", 0, text.len) || !is_utf8((const char *)text.data, text.len))
        return refuse(expanded, "argument_file", path, err);
    return add_lines(expanded, (const char *)text.data, text.len, err);
}

int kiln_argv_expand(size_t argc, char *const *argv, const struct kiln_argv_options *options,
                     struct kiln_expanded *expanded, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && !expanded->refused && i < argc; i++) {
        size_t len = strlen(argv[i]);
        if (len < KILN_ARGV_BYTES_MAX && !is_utf8(argv[i], len))
            rc = refuse(expanded, "not_utf8", "an argument", err);
        else if (argv[i][0] == '@')
            rc = add_file(expanded, argv[i] + 1, options, err);
        else
            rc = add(expanded, argv[i], len, err);
    }
    return rc;
}
