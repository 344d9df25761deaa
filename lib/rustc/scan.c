#include "lib/rustc/scan.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/lexer.h"

#define OUT_DIR "OUT_DIR"

// What a delimiter belongs to: the macro or function that it is the argument list of. MACRO: any other macro, the rules
// of one, or an attribute.
enum group { GROUP_OTHER, GROUP_VAR, GROUP_MACRO, GROUP_INCLUDE, GROUP_CONCAT, GROUP_ENV, GROUP_OPTION_ENV };

static const struct {
    const char *name;
    enum group group;
    bool macro;
} callees[] = {
    {"env", GROUP_ENV, true},
    {"option_env", GROUP_OPTION_ENV, true},
    {"concat", GROUP_CONCAT, true},
    {"include", GROUP_INCLUDE, true},
    {"include_str", GROUP_INCLUDE, true},
    {"include_bytes", GROUP_INCLUDE, true},
    {"var", GROUP_VAR, false},
    {"var_os", GROUP_VAR, false},
};

struct scan {
    struct kiln_scan_facts *facts;
    struct kiln_buf groups;               // one byte per open delimiter
    struct kiln_token last, last_but_one; // tokens before the current one
    size_t macros;                        // open delimiters that belong to macros
    bool at_start;                        // the token before opened a group
    bool defines;                         // macro_rules was seen and its delimiter was not
    char *name;                           // the first argument of an env macro, until it is known to stand alone
};

static bool is_ident(const struct kiln_token *token, const char *name) {
    return token->kind == KILN_TOKEN_IDENT && token->len == strlen(name) && memcmp(token->text, name, token->len) == 0;
}

static bool is_punct(const struct kiln_token *token, char c) {
    return token->kind == KILN_TOKEN_PUNCT && token->text[0] == c;
}

static bool opens(const struct kiln_token *token) {
    return is_punct(token, '(') || is_punct(token, '[') || is_punct(token, '{');
}

static bool closes(const struct kiln_token *token) {
    return is_punct(token, ')') || is_punct(token, ']') || is_punct(token, '}');
}

// What the delimiter behind the last token belongs to.
static enum group group_of(const struct scan *scan) {
    bool macro = is_punct(&scan->last, '!');
    const struct kiln_token *callee = macro ? &scan->last_but_one : &scan->last;
    for (size_t i = 0; i < sizeof callees / sizeof *callees; i++)
        if (callees[i].macro == macro && is_ident(callee, callees[i].name))
            return callees[i].group;
    bool attribute = is_punct(callee, '#');
    return attribute || scan->defines || (macro && callee->kind == KILN_TOKEN_IDENT) ? GROUP_MACRO : GROUP_OTHER;
}

static bool is_macro(enum group group) { return group >= GROUP_MACRO; }

static enum group innermost(const struct scan *scan) {
    return scan->groups.len ? (enum group)scan->groups.data[scan->groups.len - 1] : GROUP_OTHER;
}

// True when the innermost group is an env! whose value is only (a part of) an included file's path.
static bool names_included_file(const struct scan *scan) {
    size_t depth = scan->groups.len - 1;
    while (depth > 0 && scan->groups.data[depth - 1] == GROUP_CONCAT)
        depth--;
    return depth > 0 && scan->groups.data[depth - 1] == GROUP_INCLUDE;
}

static int no_memory(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "source scan: out of memory"); }

// Takes ownership of name, also on failure.
static int add_name(struct kiln_scan_facts *facts, char *name, struct kiln_err *err) {
    if (facts->env_count && strcmp(facts->env_names[facts->env_count - 1], name) == 0) {
        free(name);
        return 0;
    }
    // A caller that filled the list itself has left the capacity at zero.
    if (facts->env_count >= facts->env_cap) {
        size_t cap = facts->env_count < 8 ? 16 : facts->env_count * 2;
        char **grown = realloc(facts->env_names, cap * sizeof *grown);
        if (!grown) {
            free(name);
            return no_memory(err);
        }
        facts->env_names = grown;
        facts->env_cap = cap;
    }
    facts->env_names[facts->env_count++] = name;
    return 0;
}

// The name an env macro was given, once the token behind it shows that nothing is computed from it.
static int settle_name(struct scan *scan, const struct kiln_token *token, struct kiln_err *err) {
    if (!scan->name)
        return 0;
    char *name = KILN_STEAL(scan->name);
    if (!is_punct(token, ',') && !closes(token) && token->kind != KILN_TOKEN_END)
        scan->facts->env_computed = true;
    return add_name(scan->facts, name, err);
}

// A string literal's value on the heap; *odd when it cannot be a variable's name.
static char *literal(const struct kiln_token *token, bool *odd) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(2 * token->len + 1);
    kiln_token_value(token, &value);
    *odd = value.len == 0 || memchr(value.data, 0, value.len) || memchr(value.data, '=', value.len);
    return value.failed ? NULL : strdup(kiln_buf_text(&value));
}

static int see_string(struct scan *scan, const struct kiln_token *token, struct kiln_err *err) {
    enum group group = scan->at_start ? innermost(scan) : GROUP_OTHER;
    bool asks = token->plain && (group == GROUP_ENV || group == GROUP_OPTION_ENV);
    // Everything else that is told apart here is OUT_DIR: most literals are not looked into.
    if (!asks && !token->escapes && token->len != strlen(OUT_DIR))
        return 0;
    bool odd;
    kiln_autofree char *value = literal(token, &odd);
    if (!value)
        return no_memory(err);
    if (!odd && strcmp(value, OUT_DIR) == 0) {
        scan->facts->out_dir_used = true;
        bool harmless = scan->macros == 0 || group == GROUP_VAR || (asks && group == GROUP_ENV && names_included_file(scan));
        if (!harmless)
            scan->facts->out_dir_as_value = true;
    }
    if (asks && odd)
        scan->facts->env_computed = true;
    else if (asks)
        scan->name = KILN_STEAL(value);
    return 0;
}

static int open_group(struct scan *scan, struct kiln_err *err) {
    enum group group = group_of(scan);
    scan->macros += is_macro(group);
    scan->defines = false;
    return kiln_buf_add_u8(&scan->groups, (uint8_t)group) ? no_memory(err) : 0;
}

static void close_group(struct scan *scan) {
    scan->macros -= is_macro(innermost(scan));
    scan->groups.len--;
}

static int see(struct scan *scan, const struct kiln_token *token, struct kiln_err *err) {
    int rc = settle_name(scan, token, err);
    if (rc)
        return rc;
    bool opened = false;
    enum group group = scan->at_start ? innermost(scan) : GROUP_OTHER;
    if (token->kind == KILN_TOKEN_STRING)
        rc = see_string(scan, token, err);
    if ((group == GROUP_ENV || group == GROUP_OPTION_ENV) && !scan->name)
        scan->facts->env_computed = true;
    if (opens(token)) {
        rc = open_group(scan, err);
        opened = true;
    } else if (closes(token) && scan->groups.len) {
        close_group(scan);
    } else if (is_ident(token, "macro_rules")) {
        scan->defines = true;
    }
    scan->at_start = opened;
    scan->last_but_one = scan->last;
    scan->last = *token;
    return rc;
}

int kiln_scan_source(const void *data, size_t len, struct kiln_scan_facts *facts, struct kiln_err *err) {
    struct scan scan = {.facts = facts, .groups = KILN_BUF_INIT(len)};
    struct kiln_lexer lexer;
    struct kiln_token token;
    kiln_lexer_init(&lexer, data, len);
    int rc = 0;
    do {
        kiln_lexer_next(&lexer, &token);
        rc = see(&scan, &token, err);
    } while (rc == 0 && token.kind != KILN_TOKEN_END);
    kiln_buf_release(&scan.groups);
    free(scan.name);
    return rc;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void kiln_scan_finish(struct kiln_scan_facts *facts) {
    if (facts->env_count == 0)
        return;
    qsort(facts->env_names, facts->env_count, sizeof *facts->env_names, compare_names);
    size_t kept = 1;
    for (size_t i = 1; i < facts->env_count; i++) {
        if (strcmp(facts->env_names[i], facts->env_names[kept - 1]) == 0)
            free(facts->env_names[i]);
        else
            facts->env_names[kept++] = facts->env_names[i];
    }
    facts->env_count = kept;
}

void kiln_scan_release(struct kiln_scan_facts *facts) {
    for (size_t i = 0; i < facts->env_count; i++)
        free(facts->env_names[i]);
    free(facts->env_names);
    *facts = (struct kiln_scan_facts){0};
}
