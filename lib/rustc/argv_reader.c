#include <string.h>

#include "lib/base/path.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/argv_table.h"

#define SHOWN_BYTES_MAX 200

static void take_value(struct kiln_arg_reader *reader, const char *joined, struct kiln_token *token) {
    if (token->flag->takes == KILN_TAKES_NOTHING) {
        if (joined)
            token->kind = KILN_TOKEN_MALFORMED;
        return;
    }
    if (joined)
        token->value = joined;
    else if (reader->at < reader->argc)
        token->value = reader->argv[reader->at++];
    else
        token->kind = KILN_TOKEN_MALFORMED;
}

static void read_long(struct kiln_arg_reader *reader, const char *name, struct kiln_token *token) {
    size_t len = strcspn(name, "=");
    // getopts takes "--C x" for "-C x".
    token->flag = len == 1 ? kiln_flag_by_letter(name[0]) : kiln_flag_find(KILN_FLAGS_TOP, name, len);
    if (!token->flag) {
        token->kind = KILN_TOKEN_UNKNOWN;
        return;
    }
    take_value(reader, name[len] ? name + len + 1 : NULL, token);
}

static void read_short(struct kiln_arg_reader *reader, struct kiln_token *token) {
    token->flag = kiln_flag_by_letter(*reader->cluster);
    if (!token->flag) {
        token->kind = KILN_TOKEN_UNKNOWN;
        reader->cluster = NULL;
        return;
    }
    const char *rest = reader->cluster[1] ? reader->cluster + 1 : NULL;
    if (token->flag->takes == KILN_TAKES_NOTHING) {
        reader->cluster = rest;
        return;
    }
    reader->cluster = NULL;
    take_value(reader, rest, token);
}

static void read_option(struct kiln_token *token) {
    enum kiln_flag_space space = token->flag->meaning == KILN_MEANS_CODEGEN ? KILN_FLAGS_CODEGEN : KILN_FLAGS_UNSTABLE;
    token->whole = token->value;
    size_t len = strcspn(token->whole, "=");
    token->value = token->whole[len] ? token->whole + len + 1 : NULL;
    token->option = kiln_flag_find(space, token->whole, len);
    if (!token->option)
        token->kind = KILN_TOKEN_UNKNOWN;
    else if (!token->value && token->option->takes == KILN_TAKES_VALUE)
        token->kind = KILN_TOKEN_MALFORMED;
}

bool kiln_arg_next(struct kiln_arg_reader *reader, struct kiln_token *token) {
    *token = (struct kiln_token){.kind = KILN_TOKEN_FLAG};
    if (reader->cluster) {
        token->text = reader->argv[reader->at - 1];
        read_short(reader, token);
    } else {
        if (reader->at < reader->argc && !reader->only_free && strcmp(reader->argv[reader->at], "--") == 0) {
            reader->only_free = true;
            reader->at++;
        }
        if (reader->at >= reader->argc) {
            token->kind = KILN_TOKEN_END;
            return false;
        }
        const char *text = reader->argv[reader->at++];
        token->text = text;
        if (reader->only_free || text[0] != '-' || !text[1]) {
            token->kind = KILN_TOKEN_FREE;
        } else if (text[1] == '-') {
            read_long(reader, text + 2, token);
        } else {
            reader->cluster = text + 1;
            read_short(reader, token);
        }
    }
    if (token->kind == KILN_TOKEN_FLAG &&
        (token->flag->meaning == KILN_MEANS_CODEGEN || token->flag->meaning == KILN_MEANS_UNSTABLE))
        read_option(token);
    return true;
}

bool kiln_token_passes(const struct kiln_token *token) {
    if (token->kind != KILN_TOKEN_FLAG)
        return false;
    const struct kiln_flag *flag = token->option ? token->option : token->flag;
    switch (flag->meaning) {
    case KILN_MEANS_PASS:
        return true;
    case KILN_MEANS_LINT:
    case KILN_MEANS_CPU:
    case KILN_MEANS_FEATURES:
        return strcmp(token->value, "help") == 0;
    default:
        return false;
    }
}

bool kiln_word_in(const char *word, size_t len, const char *const *list) {
    for (; *list; list++)
        if (strlen(*list) == len && strncmp(*list, word, len) == 0)
            return true;
    return false;
}

int kiln_shown_bytes(const char *text) {
    size_t len = strnlen(text, SHOWN_BYTES_MAX);
    if (text[len])
        while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    return (int)len;
}

static size_t stem_length(const char *base) {
    const char *dot = strrchr(base, '.');
    return dot && dot != base ? (size_t)(dot - base) : strlen(base);
}

size_t kiln_compiler_words(size_t argc, char *const *argv, bool *clippy) {
    *clippy = argc > 0 && strcmp(kiln_path_base(argv[0]), "clippy-driver") == 0;
    if (argc == 0)
        return 0;
    if (!*clippy || argc < 2)
        return 1;
    // clippy-driver itself drops its first argument when its file stem is "rustc".
    const char *base = kiln_path_base(argv[1]);
    return stem_length(base) == 5 && strncmp(base, "rustc", 5) == 0 ? 2 : 1;
}

bool kiln_rustc_is_probe(size_t argc, char *const *argv) {
    bool clippy;
    size_t words = kiln_compiler_words(argc, argv, &clippy);
    for (size_t i = words; i < argc; i++)
        if (argv[i][0] == '@')
            return false;
    struct kiln_arg_reader reader = KILN_ARG_READER_INIT(argc - words, argv + words);
    struct kiln_token token;
    size_t sources = 0;
    bool from_stdin = false;
    while (kiln_arg_next(&reader, &token)) {
        if (token.kind == KILN_TOKEN_FREE) {
            sources++;
            from_stdin |= strcmp(token.text, "-") == 0;
        } else if (token.kind != KILN_TOKEN_FLAG && !token.flag) {
            return false;
        } else if (kiln_token_passes(&token)) {
            return true;
        }
    }
    return sources == 0 || (sources == 1 && from_stdin);
}
