#include "lib/rustc/paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/path.h"

#define SHOWN_PREFIX "/kiln/"

// An ANSI escape sequence before a path is at most this long ("\u001b[38;5;255m").
#define ANSI_LEN_MAX 32

enum reading {
    READ_PATH,    // one path, nothing else
    READ_VALUE,   // paths inside an environment value
    READ_MESSAGE, // paths inside compiler output, where a backslash begins an escape
};

const char *kiln_sandbox_root(void) {
    return "/kb"
           "x7q2"
           "vwzj";
}

char *kiln_place(const char *place, const char *rest_or_null) {
    char *path = NULL;
    int len = rest_or_null ? asprintf(&path, "%s/%s/%s", kiln_sandbox_root(), place, rest_or_null)
                           : asprintf(&path, "%s/%s", kiln_sandbox_root(), place);
    return len < 0 ? NULL : path;
}

char *kiln_out_dir_join(const char *out_dir, const char *name) {
    size_t len = strlen(out_dir);
    char *path = NULL;
    return asprintf(&path, "%s%s%s", out_dir, len && out_dir[len - 1] != '/' ? "/" : "", name) < 0 ? NULL : path;
}

static bool ends_name(unsigned char c, enum reading reading) {
    if (reading == READ_PATH)
        return false;
    if (c <= 0x20 || c == 0x7f)
        return true;
    if (c == '\\')
        return reading == READ_MESSAGE;
    return strchr("\"'`=:;,()[]{}<>|&", c) != NULL;
}

static bool at_boundary(const char *text, size_t len, size_t at, enum reading reading) {
    return at == len || text[at] == '/' || ends_name((unsigned char)text[at], reading);
}

static size_t common_prefix(const char *a, size_t a_len, const char *b, size_t b_len) {
    size_t n = a_len < b_len ? a_len : b_len, i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len) {
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

// Number of names that are not greater than the text.
static size_t upper_bound(const struct kiln_path_name *names, size_t count, const char *text, size_t len) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(names[middle].text, names[middle].len, text, len) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest name that is a prefix of the text up to a component boundary. All prefixes of the text are prefixes of
// the greatest name below it, so each round either answers or cuts the text to what the two have in common.
static const struct kiln_path_name *longest_prefix(const struct kiln_path_name *names, size_t count, const char *text,
                                                   size_t len, enum reading reading) {
    size_t cut = len < KILN_PATH_MAX ? len : KILN_PATH_MAX;
    while (cut > 0) {
        size_t at = upper_bound(names, count, text, cut);
        if (at == 0)
            return NULL;
        const struct kiln_path_name *name = &names[at - 1];
        size_t common = common_prefix(name->text, name->len, text, cut);
        if (common == name->len && at_boundary(text, len, common, reading))
            return name;
        cut = common == name->len ? common - 1 : common;
        while (cut > 0 && !at_boundary(text, len, cut, reading))
            cut--;
    }
    return NULL;
}

static const struct kiln_path_name *find_exact(const struct kiln_path_name *names, size_t count, const char *text) {
    size_t len = strlen(text), at = upper_bound(names, count, text, len);
    return at && compare(names[at - 1].text, names[at - 1].len, text, len) == 0 ? &names[at - 1] : NULL;
}

static void insert_name(struct kiln_path_name *names, size_t *count, const char *text, size_t rule) {
    struct kiln_path_name name = {.text = text, .len = strlen(text), .rule = rule};
    size_t at = upper_bound(names, *count, name.text, name.len);
    memmove(names + at + 1, names + at, (*count - at) * sizeof *names);
    names[at] = name;
    ++*count;
}

void kiln_path_map_release(struct kiln_path_map *map) {
    for (size_t i = 0; i < map->count; i++) {
        free(map->rules[i].real);
        free(map->rules[i].sandbox);
        free(map->rules[i].shown);
    }
    free(map->rules);
    free(map->reals);
    free(map->names);
    *map = (struct kiln_path_map){0};
}

static int grow(struct kiln_path_map *map, struct kiln_err *err) {
    if (map->count < map->cap)
        return 0;
    size_t cap = map->cap ? map->cap * 2 : 16;
    void *rules = realloc(map->rules, cap * sizeof *map->rules);
    if (rules)
        map->rules = rules;
    void *reals = realloc(map->reals, cap * sizeof *map->reals);
    if (reals)
        map->reals = reals;
    void *names = realloc(map->names, 2 * cap * sizeof *map->names);
    if (names)
        map->names = names;
    if (!rules || !reals || !names)
        return kiln_fail(err, KILN_E_NOMEM, "path map: out of memory");
    map->cap = cap;
    return 0;
}

static int check_rule(const char *real, const char *sandbox, const char *shown, struct kiln_err *err) {
    int rc = kiln_path_check_absolute(real, err);
    if (rc == 0)
        rc = kiln_path_check_absolute(sandbox, err);
    if (rc == 0 && shown)
        rc = kiln_path_check_absolute(shown, err);
    if (rc)
        return kiln_wrap(err, rc, "path map");
    const char *rest = kiln_path_beneath(sandbox, kiln_sandbox_root());
    if (strcmp(real, "/") == 0 || !rest || !*rest)
        return kiln_fail(err, KILN_E_INVAL, "path map: %s cannot be mapped to %s", real, sandbox);
    if (shown && strncmp(shown, SHOWN_PREFIX, strlen(SHOWN_PREFIX)) != 0)
        return kiln_fail(err, KILN_E_INVAL, "path map: %s is no shown name", shown);
    return 0;
}

// 0 when `name` is free or leads to `real` already (then *known).
static int check_name(const struct kiln_path_map *map, const char *name, const char *real, bool *known,
                      struct kiln_err *err) {
    const struct kiln_path_name *found = find_exact(map->names, map->names_count, name);
    *known = found != NULL;
    if (found && strcmp(map->rules[found->rule].real, real) != 0)
        return kiln_fail(err, KILN_E_EXISTS, "path map: %s leads to %s already, not to %s", name,
                         map->rules[found->rule].real, real);
    return 0;
}

int kiln_path_map_add(struct kiln_path_map *map, const char *real, const char *sandbox, const char *shown_or_null,
                      struct kiln_err *err) {
    bool sandbox_known = false, shown_known = true;
    int rc = check_rule(real, sandbox, shown_or_null, err);
    if (rc == 0)
        rc = check_name(map, sandbox, real, &sandbox_known, err);
    if (rc == 0 && shown_or_null)
        rc = check_name(map, shown_or_null, real, &shown_known, err);
    if (rc || (sandbox_known && shown_known))
        return rc;
    rc = grow(map, err);
    if (rc)
        return rc;
    struct kiln_path_rule rule = {.real = strdup(real), .sandbox = strdup(sandbox),
                                  .shown = shown_or_null ? strdup(shown_or_null) : NULL};
    if (!rule.real || !rule.sandbox || (shown_or_null && !rule.shown)) {
        free(rule.real);
        free(rule.sandbox);
        free(rule.shown);
        return kiln_fail(err, KILN_E_NOMEM, "path map: out of memory");
    }
    size_t index = map->count++;
    map->rules[index] = rule;
    if (!find_exact(map->reals, map->reals_count, real))
        insert_name(map->reals, &map->reals_count, rule.real, index);
    if (!sandbox_known)
        insert_name(map->names, &map->names_count, rule.sandbox, index);
    if (!shown_known)
        insert_name(map->names, &map->names_count, rule.shown, index);
    return 0;
}

static bool climbs(const char *rest) {
    long depth = 0;
    while (*rest) {
        size_t skip = strspn(rest, "/"), len = strcspn(rest + skip, "/");
        rest += skip;
        if (len == 2 && rest[0] == '.' && rest[1] == '.')
            depth--;
        else if (len > 0 && !(len == 1 && rest[0] == '.'))
            depth++;
        if (depth < 0)
            return true;
        rest += len;
    }
    return false;
}

static char *replace_prefix(const char *path, const struct kiln_path_name *name, const char *by) {
    if (!name || climbs(path + name->len))
        return NULL;
    char *mapped = NULL;
    return asprintf(&mapped, "%s%s", by, path + name->len) < 0 ? NULL : mapped;
}

char *kiln_path_map_to_sandbox(const struct kiln_path_map *map, const char *real_path) {
    const struct kiln_path_name *name =
        longest_prefix(map->reals, map->reals_count, real_path, strlen(real_path), READ_PATH);
    return replace_prefix(real_path, name, name ? map->rules[name->rule].sandbox : NULL);
}

char *kiln_path_map_to_real(const struct kiln_path_map *map, const char *path) {
    const struct kiln_path_name *name = longest_prefix(map->names, map->names_count, path, strlen(path), READ_PATH);
    return replace_prefix(path, name, name ? map->rules[name->rule].real : NULL);
}

int kiln_path_map_text_to_sandbox(const struct kiln_path_map *map, const char *text, struct kiln_buf *out,
                                  bool *changed, struct kiln_err *err) {
    size_t len = strlen(text), from = 0;
    bool any = false;
    for (const char *slash = strchr(text, '/'); slash; slash = strchr(slash, '/')) {
        size_t at = (size_t)(slash - text);
        const struct kiln_path_name *name = NULL;
        if (at == 0 || ends_name((unsigned char)text[at - 1], READ_VALUE))
            name = longest_prefix(map->reals, map->reals_count, slash, len - at, READ_VALUE);
        slash++;
        if (!name)
            continue;
        kiln_buf_add(out, text + from, at - from);
        kiln_buf_add_str(out, map->rules[name->rule].sandbox);
        from = at + name->len;
        slash = text + from;
        any = true;
    }
    kiln_buf_add(out, text + from, len - from);
    int rc = kiln_buf_check(out, "a value with mapped paths", err);
    if (rc == 0)
        *changed = any;
    return rc;
}

// True when text[..at) ends with an escape sequence of either kind: the bytes before `at` are then no part of a name
// that goes on at `at`, though the last one is a letter ("\n", "\u001b[0m").
static bool after_escape(const char *text, size_t at) {
    size_t back = at - 1;
    if (strchr("nrtbf", text[back])) {
        size_t slashes = 0;
        while (slashes < back && text[back - 1 - slashes] == '\\')
            slashes++;
        return slashes % 2 == 1;
    }
    if (text[back] != 'm')
        return false;
    size_t floor = at > ANSI_LEN_MAX ? at - ANSI_LEN_MAX : 0;
    while (back > floor && ((text[back - 1] >= '0' && text[back - 1] <= '9') || text[back - 1] == ';'))
        back--;
    if (back == floor || text[back - 1] != '[')
        return false;
    back--;
    static const char escape[] = "\\u001b";
    size_t escape_len = sizeof escape - 1;
    return (back >= 1 && text[back - 1] == 0x1b) ||
           (back >= escape_len && memcmp(text + back - escape_len, escape, escape_len) == 0);
}

static bool starts_name(const char *text, size_t at) {
    return at == 0 || ends_name((unsigned char)text[at - 1], READ_MESSAGE) ||
           (text[at - 1] != 0 && after_escape(text, at));
}

static size_t utf8_sequence(const unsigned char *s, size_t len) {
    unsigned char c = s[0];
    size_t need = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 0;
    if (need == 0 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (c == 0xe0 && s[1] < 0xa0) || (c == 0xf0 && s[1] < 0x90);
    bool outside = (c == 0xed && s[1] >= 0xa0) || (c == 0xf4 && s[1] >= 0x90);
    return overlong || outside ? 0 : need;
}

static void add_json_control(struct kiln_buf *out, unsigned char c) {
    static const char letters[] = "btn?fr"; // of 0x08 to 0x0d; 0x0b has none
    if (c >= 0x08 && c <= 0x0d && c != 0x0b)
        kiln_buf_add(out, (char[]){'\\', letters[c - 0x08]}, 2);
    else
        kiln_buf_addf(out, "\\u%04x", c);
}

void kiln_path_add_json(struct kiln_buf *out, const char *path, size_t len) {
    const unsigned char *s = (const unsigned char *)path;
    for (size_t i = 0; i < len;) {
        size_t sequence = s[i] >= 0x80 ? utf8_sequence(s + i, len - i) : 1;
        if (sequence == 0)
            kiln_buf_add_str(out, "\xef\xbf\xbd");
        else if (s[i] == '"' || s[i] == '\\')
            kiln_buf_add(out, (char[]){'\\', (char)s[i]}, 2);
        else if (s[i] < 0x20)
            add_json_control(out, s[i]);
        else
            kiln_buf_add(out, s + i, sequence);
        i += sequence ? sequence : 1;
    }
}

struct rewrite {
    const struct kiln_path_map *map;
    const char *text;
    size_t len;
    bool json, shown; // shown: look for shown names too
    enum reading reading;
};

static bool text_has(const char *text, size_t len, const char *prefix, size_t prefix_len) {
    return len >= prefix_len && memcmp(text, prefix, prefix_len) == 0;
}

// Whether a name that the caller must not see begins at `at`. The sandbox root is one wherever it is found.
static bool hides_name(const struct rewrite *job, size_t at) {
    const char *root = kiln_sandbox_root();
    if (text_has(job->text + at, job->len - at, root, strlen(root)))
        return true;
    return job->shown && text_has(job->text + at, job->len - at, SHOWN_PREFIX, strlen(SHOWN_PREFIX)) &&
           (starts_name(job->text, at) || job->text[at - 1] == '/');
}

static int rewrite_to_real(const struct rewrite *job, struct kiln_buf *out, bool *residue, struct kiln_err *err) {
    const char *text = job->text;
    size_t from = 0, at = 0;
    bool left = false;
    for (const char *slash; at < job->len && (slash = memchr(text + at, '/', job->len - at)); at++) {
        at = (size_t)(slash - text);
        if (!hides_name(job, at))
            continue;
        const struct kiln_path_name *name =
            longest_prefix(job->map->names, job->map->names_count, slash, job->len - at, job->reading);
        if (!name) {
            left = true;
            continue;
        }
        const char *real = job->map->rules[name->rule].real;
        kiln_buf_add(out, text + from, at - from);
        if (job->json)
            kiln_path_add_json(out, real, strlen(real));
        else
            kiln_buf_add_str(out, real);
        from = at + name->len;
        at = from - 1;
    }
    kiln_buf_add(out, text + from, job->len - from);
    int rc = kiln_buf_check(out, "text with mapped paths", err);
    if (rc == 0 && left)
        *residue = true;
    return rc;
}

int kiln_path_map_text_from_sandbox(const struct kiln_path_map *map, const void *text, size_t len,
                                    struct kiln_buf *out, bool *residue, struct kiln_err *err) {
    struct rewrite job = {.map = map, .text = text, .len = len, .reading = READ_VALUE};
    return rewrite_to_real(&job, out, residue, err);
}

int kiln_path_map_text_to_real(const struct kiln_path_map *map, const void *text, size_t len, bool json,
                               struct kiln_buf *out, bool *residue, struct kiln_err *err) {
    struct rewrite job = {.map = map, .text = text, .len = len, .json = json, .shown = true, .reading = READ_MESSAGE};
    return rewrite_to_real(&job, out, residue, err);
}
