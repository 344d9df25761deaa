#include "lib/rustc/depinfo.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define ENV_PREFIX "# env-dep:"
#define CHECKSUM_PREFIX "# checksum:"
#define SHOWN_PREFIX "/kiln/"

struct line {
    const char *text;
    size_t len;
};

struct lines {
    const char *at, *end;
};

static bool next_line(struct lines *lines, struct line *line) {
    if (lines->at == lines->end)
        return false;
    const char *stop = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
    *line = (struct line){lines->at, (size_t)(stop - lines->at)};
    lines->at = stop + 1;
    return true;
}

static bool peek_line(const struct lines *lines, struct line *line) {
    struct lines copy = *lines;
    return next_line(&copy, line);
}

static bool begins(const struct line *line, const char *prefix) {
    size_t len = strlen(prefix);
    return line->len >= len && memcmp(line->text, prefix, len) == 0;
}

static int corrupt(struct kiln_err *err, const char *why) {
    return kiln_fail(err, KILN_E_CORRUPT, "dep-info: %s", why);
}

static int no_memory(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "dep-info: out of memory"); }

// The list with room for one more, NULL when memory is exhausted (then the list is as it was). Lists grow when their
// count is a power of two, so they need no capacity field.
static void *with_room(void *list, size_t count, size_t size) {
    return count & (count - 1) ? list : realloc(list, (count ? count * 2 : 1) * size);
}

// Takes ownership of text, also on failure; NULL is exhausted memory.
static int add_text(char ***list, size_t *count, char *text, struct kiln_err *err) {
    char **grown = text ? with_room(*list, *count, sizeof **list) : NULL;
    if (!grown) {
        free(text);
        return no_memory(err);
    }
    *list = grown;
    grown[(*count)++] = text;
    return 0;
}

// Takes ownership of both, also on failure.
static int add_env(struct kiln_depinfo *info, char *name, char *value, struct kiln_err *err) {
    struct kiln_depinfo_env *grown = with_room(info->env, info->env_count, sizeof *info->env);
    if (!grown) {
        free(name);
        free(value);
        return no_memory(err);
    }
    info->env = grown;
    grown[info->env_count++] = (struct kiln_depinfo_env){name, value};
    return 0;
}

static void free_texts(char **list, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
}

void kiln_depinfo_release(struct kiln_depinfo *info) {
    free_texts(info->targets, info->targets_count);
    free_texts(info->sources, info->sources_count);
    free_texts(info->other, info->other_count);
    for (size_t i = 0; i < info->env_count; i++) {
        free(info->env[i].name);
        free(info->env[i].value);
    }
    free(info->env);
    *info = (struct kiln_depinfo){0};
}

static bool spaces_escaped(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] == ' ' && (i == 0 || text[i - 1] != '\\'))
            return false;
    return true;
}

static char *unescape_source(const char *text, size_t len) {
    char *name = malloc(len + 1), *out = name;
    if (!name)
        return NULL;
    for (size_t i = 0; i < len; i++)
        if (text[i] != '\\' || i + 1 == len || text[i + 1] != ' ')
            *out++ = text[i];
    *out = 0;
    return name;
}

static void escape_source(struct kiln_buf *out, const char *name) {
    for (const char *space; (space = strchr(name, ' ')); name = space + 1) {
        kiln_buf_add(out, name, (size_t)(space - name));
        kiln_buf_add_str(out, "\\ ");
    }
    kiln_buf_add_str(out, name);
}

// *text is set to NULL when memory is exhausted.
static int unescape_env(const char *raw, size_t len, char **text, struct kiln_err *err) {
    char *name = malloc(len + 1), *out = name;
    for (size_t i = 0; name && i < len; i++) {
        char c = raw[i];
        if (c == '\\') {
            c = ++i < len ? raw[i] : 0;
            c = c == 'n' ? '\n' : c == 'r' ? '\r' : c == '\\' ? '\\' : 0;
        } else if (c == '\r') {
            c = 0;
        }
        if (!c) {
            free(name);
            return corrupt(err, "an escape in an env-dep line that is unknown or missing");
        }
        *out++ = c;
    }
    if (!name)
        return no_memory(err);
    *out = 0;
    *text = name;
    return 0;
}

static void escape_env(struct kiln_buf *out, const char *text) {
    for (; *text; text++) {
        const char *escaped = *text == '\n' ? "\\n" : *text == '\r' ? "\\r" : *text == '\\' ? "\\\\" : NULL;
        if (escaped)
            kiln_buf_add_str(out, escaped);
        else
            kiln_buf_add(out, text, 1);
    }
}

// A rule has ": " in its line and an empty line behind it; a phony rule cannot have ": ", its spaces being escaped.
static bool is_rule(const struct line *line) { return memmem(line->text, line->len, ": ", 2) != NULL; }

static int skip_rules(struct lines *lines, struct kiln_err *err) {
    struct line line;
    while (peek_line(lines, &line) && is_rule(&line)) {
        next_line(lines, &line);
        if (!next_line(lines, &line) || line.len > 0)
            return corrupt(err, "no empty line after a rule");
    }
    return 0;
}

// Reads the phony rules; *joined gets the sources as the rules write them.
static int parse_phony(struct lines *lines, struct kiln_depinfo *info, struct kiln_buf *joined, struct kiln_err *err) {
    struct line line;
    while (peek_line(lines, &line) && line.len > 0 && !begins(&line, "# ")) {
        next_line(lines, &line);
        size_t len = line.len - 1;
        if (len == 0 || line.text[len] != ':' || !spaces_escaped(line.text, len))
            return corrupt(err, "a line that is no rule");
        if (info->sources_count)
            kiln_buf_add_str(joined, " ");
        kiln_buf_add(joined, line.text, len);
        int rc = add_text(&info->sources, &info->sources_count, unescape_source(line.text, len), err);
        if (rc)
            return rc;
    }
    return kiln_buf_check(joined, "dep-info", err);
}

static int parse_rules(struct lines lines, const struct kiln_buf *joined, struct kiln_depinfo *info,
                       struct kiln_err *err) {
    struct line line;
    while (next_line(&lines, &line)) {
        size_t tail = joined->len + 2;
        if (line.len <= tail || memcmp(line.text + line.len - tail, ": ", 2) != 0 ||
            (joined->len && memcmp(line.text + line.len - joined->len, joined->data, joined->len) != 0))
            return corrupt(err, "a rule does not have the sources of the phony rules");
        int rc = add_text(&info->targets, &info->targets_count, strndup(line.text, line.len - tail), err);
        if (rc)
            return rc;
        next_line(&lines, &line);
    }
    return info->targets_count ? 0 : corrupt(err, "no rule");
}

static int parse_env_line(const struct line *line, struct kiln_depinfo *info, struct kiln_err *err) {
    const char *text = line->text + strlen(ENV_PREFIX);
    size_t len = line->len - strlen(ENV_PREFIX);
    const char *equals = memchr(text, '=', len);
    kiln_autofree char *name = NULL;
    kiln_autofree char *value = NULL;
    int rc = unescape_env(text, equals ? (size_t)(equals - text) : len, &name, err);
    if (rc == 0 && equals)
        rc = unescape_env(equals + 1, len - (size_t)(equals - text) - 1, &value, err);
    return rc ? rc : add_env(info, KILN_STEAL(name), KILN_STEAL(value), err);
}

static int parse_comments(struct lines *lines, struct kiln_depinfo *info, struct kiln_err *err) {
    struct line line;
    bool blank = peek_line(lines, &line) && line.len == 0;
    if (blank)
        next_line(lines, &line);
    while (peek_line(lines, &line) && begins(&line, ENV_PREFIX)) {
        next_line(lines, &line);
        int rc = parse_env_line(&line, info, err);
        if (rc)
            return rc;
    }
    if (blank != (info->env_count > 0))
        return corrupt(err, "the empty line before env-dep lines is missing or too many");
    while (next_line(lines, &line)) {
        if (!begins(&line, "# ") || begins(&line, ENV_PREFIX))
            return corrupt(err, "a line behind the comments");
        int rc = add_text(&info->other, &info->other_count, strndup(line.text, line.len), err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_depinfo_parse(const void *data, size_t len, struct kiln_depinfo *info, struct kiln_err *err) {
    const char *text = data;
    if (len > KILN_DEPINFO_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "dep-info is larger than %u bytes", KILN_DEPINFO_BYTES_MAX);
    if (len == 0 || text[len - 1] != '\n' || memchr(text, 0, len))
        return corrupt(err, "empty, cut or with a NUL byte");
    kiln_autodepinfo struct kiln_depinfo found = {0};
    kiln_autobuf struct kiln_buf joined = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX);
    struct lines lines = {text, text + len};
    int rc = skip_rules(&lines, err);
    struct lines rules = {text, lines.at};
    if (rc == 0)
        rc = parse_phony(&lines, &found, &joined, err);
    if (rc == 0)
        rc = parse_rules(rules, &joined, &found, err);
    if (rc == 0)
        rc = parse_comments(&lines, &found, err);
    if (rc)
        return rc;
    *info = found;
    found = (struct kiln_depinfo){0};
    return 0;
}

int kiln_depinfo_format(const struct kiln_depinfo *info, struct kiln_buf *out, struct kiln_err *err) {
    for (size_t t = 0; t < info->targets_count; t++) {
        kiln_buf_add_str(out, info->targets[t]);
        kiln_buf_add_str(out, ": ");
        for (size_t s = 0; s < info->sources_count; s++) {
            if (s)
                kiln_buf_add_str(out, " ");
            escape_source(out, info->sources[s]);
        }
        kiln_buf_add_str(out, "\n\n");
    }
    for (size_t s = 0; s < info->sources_count; s++) {
        escape_source(out, info->sources[s]);
        kiln_buf_add_str(out, ":\n");
    }
    if (info->env_count)
        kiln_buf_add_str(out, "\n");
    for (size_t i = 0; i < info->env_count; i++) {
        kiln_buf_add_str(out, ENV_PREFIX);
        escape_env(out, info->env[i].name);
        if (info->env[i].value) {
            kiln_buf_add_str(out, "=");
            escape_env(out, info->env[i].value);
        }
        kiln_buf_add_str(out, "\n");
    }
    for (size_t i = 0; i < info->other_count; i++) {
        kiln_buf_add_str(out, info->other[i]);
        kiln_buf_add_str(out, "\n");
    }
    return kiln_buf_check(out, "dep-info", err);
}

static int left(const char *name, struct kiln_err *err) {
    return kiln_fail(err, KILN_E_CORRUPT, "dep-info: a name of the sandbox is left: %.200s", name);
}

// Takes ownership of `mapped`, also on failure; NULL is exhausted memory.
static int finish_name(char *mapped, char **real, struct kiln_err *err) {
    if (!mapped)
        return no_memory(err);
    if (strstr(mapped, kiln_sandbox_root()) || strncmp(mapped, SHOWN_PREFIX, strlen(SHOWN_PREFIX)) == 0) {
        int rc = left(mapped, err);
        free(mapped);
        return rc;
    }
    *real = mapped;
    return 0;
}

// *real gets the caller's name, on the heap.
static int source_to_real(const char *source, const struct kiln_path_map *map, char **real, struct kiln_err *err) {
    if (strncmp(source, SHOWN_PREFIX, strlen(SHOWN_PREFIX)) == 0)
        return left(source, err);
    char *mapped = source[0] == '/' ? kiln_path_map_to_real(map, source) : NULL;
    return finish_name(mapped ? mapped : strdup(source), real, err);
}

static int target_to_real(const char *target, const struct kiln_path_map *map, const char *out_dir, char **real,
                          struct kiln_err *err) {
    kiln_autofree char *place = kiln_place(KILN_PLACE_TARGET, NULL);
    if (!place)
        return no_memory(err);
    const char *name = kiln_path_beneath(target, place);
    if (!name || !*name)
        return source_to_real(target, map, real, err);
    return finish_name(kiln_out_dir_join(out_dir, name), real, err);
}

static int value_to_real(const char *value, const struct kiln_path_map *map, char **real, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX);
    bool residue = false;
    int rc = kiln_path_map_text_from_sandbox(map, value, strlen(value), &out, &residue, err);
    if (rc)
        return kiln_wrap(err, rc, "dep-info");
    if (residue)
        return left(value, err);
    *real = strdup(kiln_buf_text(&out));
    return *real ? 0 : no_memory(err);
}

// "# checksum:ALGORITHM=HEX file_len:N SOURCE": the source is what follows the third space.
static int comment_to_real(const char *comment, const struct kiln_path_map *map, char **real, struct kiln_err *err) {
    const char *source = comment;
    for (int i = 0; source && i < 3; i++) {
        source = strchr(source, ' ');
        source = source ? source + 1 : NULL;
    }
    if (!source || strncmp(comment, CHECKSUM_PREFIX, strlen(CHECKSUM_PREFIX)) != 0)
        return source_to_real(comment, map, real, err);
    kiln_autofree char *name = unescape_source(source, strlen(source));
    kiln_autofree char *mapped = NULL;
    int rc = name ? source_to_real(name, map, &mapped, err) : no_memory(err);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX);
    kiln_buf_add(&out, comment, (size_t)(source - comment));
    escape_source(&out, mapped);
    rc = kiln_buf_check(&out, "dep-info", err);
    return rc ? rc : finish_name(strdup(kiln_buf_text(&out)), real, err);
}

static int env_to_real(const struct kiln_depinfo_env *env, const struct kiln_path_map *map, struct kiln_depinfo *mapped,
                       struct kiln_err *err) {
    kiln_autofree char *name = strdup(env->name);
    kiln_autofree char *value = NULL;
    if (!name)
        return no_memory(err);
    if (strstr(name, kiln_sandbox_root()))
        return left(name, err);
    int rc = env->value ? value_to_real(env->value, map, &value, err) : 0;
    return rc ? rc : add_env(mapped, KILN_STEAL(name), KILN_STEAL(value), err);
}

int kiln_depinfo_to_real(struct kiln_depinfo *info, const struct kiln_path_map *map, const char *out_dir,
                         struct kiln_err *err) {
    kiln_autodepinfo struct kiln_depinfo mapped = {0};
    char *real;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < info->targets_count; i++) {
        rc = target_to_real(info->targets[i], map, out_dir, &real, err);
        rc = rc ? rc : add_text(&mapped.targets, &mapped.targets_count, real, err);
    }
    for (size_t i = 0; rc == 0 && i < info->sources_count; i++) {
        rc = source_to_real(info->sources[i], map, &real, err);
        rc = rc ? rc : add_text(&mapped.sources, &mapped.sources_count, real, err);
    }
    for (size_t i = 0; rc == 0 && i < info->env_count; i++)
        rc = env_to_real(&info->env[i], map, &mapped, err);
    for (size_t i = 0; rc == 0 && i < info->other_count; i++) {
        rc = comment_to_real(info->other[i], map, &real, err);
        rc = rc ? rc : add_text(&mapped.other, &mapped.other_count, real, err);
    }
    if (rc)
        return rc;
    kiln_depinfo_release(info);
    *info = mapped;
    mapped = (struct kiln_depinfo){0};
    return 0;
}
