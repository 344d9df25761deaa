#include "lib/base/conf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/json.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define VALUE_BYTES_MAX 4096
#define PASSED_MAX 256u
#define PASSED_NAME_BYTES_MAX 128u

struct value {
    char *text, *origin;
    uint64_t number; // BOOL, COUNT, BYTES, MS
};

struct passed { // a key that an entry ending in ".*" took
    const struct kiln_conf_key *entry;
    char *name; // whole
    struct value value;
};

struct values {
    struct value *of_key; // one for each key; unused for an entry ending in ".*"
    struct passed *passed;
    size_t passed_count;
};

struct kiln_conf {
    const struct kiln_conf_key *keys;
    size_t count;
    struct values values;
};

static void value_release(struct value *value) {
    free(value->text);
    free(value->origin);
    *value = (struct value){0};
}

static void passed_release(struct passed *passed) {
    free(passed->name);
    value_release(&passed->value);
}

static int values_init(struct values *values, size_t count, struct kiln_err *err) {
    *values = (struct values){.of_key = calloc(count + 1, sizeof *values->of_key)};
    return values->of_key ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
}

static void values_release(struct values *values, size_t count) {
    for (size_t i = 0; values->of_key && i < count; i++)
        value_release(&values->of_key[i]);
    free(values->of_key);
    for (size_t i = 0; i < values->passed_count; i++)
        passed_release(&values->passed[i]);
    free(values->passed);
    *values = (struct values){0};
}

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit count_units[] = {{"", 1}, {NULL, 0}};
static const struct unit byte_units[] = {{"", 1},           {"K", 1ull << 10}, {"M", 1ull << 20},
                                         {"G", 1ull << 30}, {"T", 1ull << 40}, {NULL, 0}};
static const struct unit time_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};

// Digits and one of the suffixes; false also when the product does not fit.
static bool parse_number(const char *text, const struct unit *units, uint64_t *number) {
    uint64_t parsed = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(parsed, 10u, &parsed) ||
            __builtin_add_overflow(parsed, (uint64_t)(*at - '0'), &parsed))
            return false;
    if (at == text)
        return false;
    for (; units->suffix; units++)
        if (strcmp(at, units->suffix) == 0)
            return !__builtin_mul_overflow(parsed, units->factor, number);
    return false;
}

static bool parse_bool(const char *text, uint64_t *number) {
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    for (size_t truth = 0; truth < 2; truth++) {
        for (size_t i = 0; i < 3; i++) {
            if (strcmp(text, words[truth][i]) == 0) {
                *number = truth;
                return true;
            }
        }
    }
    return false;
}

static bool is_choice(const char *text, const char *choices) {
    size_t len = strlen(text);
    for (const char *at = choices; at && *at;) {
        const char *end = strchrnul(at, '|');
        if ((size_t)(end - at) == len && memcmp(at, text, len) == 0)
            return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

static bool is_printable(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at < 0x20 || *at == 0x7f)
            return false;
    return true;
}

static bool parse_value(const struct kiln_conf_key *key, const char *text, uint64_t *number) {
    if (strlen(text) > VALUE_BYTES_MAX || !is_printable(text))
        return false;
    switch (key->type) {
    case KILN_CONF_BOOL:
        return parse_bool(text, number);
    case KILN_CONF_COUNT:
        return parse_number(text, count_units, number);
    case KILN_CONF_BYTES:
        return parse_number(text, byte_units, number);
    case KILN_CONF_MS:
        return parse_number(text, time_units, number);
    case KILN_CONF_CHOICE:
        return is_choice(text, key->choices);
    case KILN_CONF_TEXT:
        return true;
    }
    return false;
}

static const char *accepted_form(const struct kiln_conf_key *key) {
    switch (key->type) {
    case KILN_CONF_BOOL:
        return "true, yes, on, false, no or off";
    case KILN_CONF_COUNT:
        return "a whole number";
    case KILN_CONF_BYTES:
        return "a size: a whole number, K, M, G or T may follow";
    case KILN_CONF_MS:
        return "a time: a whole number and ms, s, m or h";
    case KILN_CONF_CHOICE:
        return key->choices;
    case KILN_CONF_TEXT:
        return "text of at most 4096 bytes without control characters";
    }
    return "";
}

// How many bytes of an entry's name, with the dot, begin the names that it takes; 0 for an ordinary key.
static size_t passes_prefix(const struct kiln_conf_key *key) {
    size_t len = strlen(key->name);
    return len > 2 && strcmp(key->name + len - 2, ".*") == 0 ? len - 1 : 0;
}

static bool is_passed_name(const char *rest) {
    size_t len = strlen(rest);
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return len > 0 && len <= PASSED_NAME_BYTES_MAX && strspn(rest, letters) == len;
}

static const struct kiln_conf_key *find_key(const struct kiln_conf *conf, const char *name) {
    const struct kiln_conf_key *found = NULL;
    for (size_t i = 0; i < conf->count; i++) {
        const struct kiln_conf_key *key = &conf->keys[i];
        size_t prefix = passes_prefix(key);
        if (!prefix && strcmp(key->name, name) == 0)
            return key;
        if (prefix && strncmp(key->name, name, prefix) == 0 && is_passed_name(name + prefix))
            found = key;
    }
    return found;
}

static struct passed *find_passed(const struct values *values, const char *name) {
    for (size_t i = 0; i < values->passed_count; i++)
        if (strcmp(values->passed[i].name, name) == 0)
            return &values->passed[i];
    return NULL;
}

// What is set for the name; NULL when nothing is.
static const struct value *find_value(const struct kiln_conf *conf, const struct values *values, const char *name) {
    const struct kiln_conf_key *key = find_key(conf, name);
    if (!key)
        return NULL;
    if (!passes_prefix(key))
        return values->of_key[key - conf->keys].text ? &values->of_key[key - conf->keys] : NULL;
    const struct passed *passed = find_passed(values, name);
    return passed ? &passed->value : NULL;
}

static bool is_secret(const struct kiln_conf_key *key, const char *name) {
    return key->secret || (passes_prefix(key) && (strstr(name, "password") || strstr(name, "secret") || strstr(name, ".pem")));
}

static int fail_unknown(const struct kiln_conf *conf, const char *name, const char *origin, struct kiln_err *err) {
    const char *dot = strchr(name, '.');
    size_t section = dot ? (size_t)(dot - name) + 1 : 0;
    kiln_autobuf struct kiln_buf near = KILN_BUF_INIT(300), all = KILN_BUF_INIT(300);
    for (size_t i = 0; i < conf->count; i++) {
        const char *known = conf->keys[i].name;
        if (section && strncmp(known, name, section) == 0)
            kiln_buf_addf(&near, "%s%s", near.len ? ", " : "", known);
        kiln_buf_addf(&all, "%s%s", all.len ? ", " : "", known);
    }
    struct kiln_buf *known = near.len ? &near : &all;
    return kiln_fail(err, KILN_E_INVAL, "%s: unknown key \"%.100s\"; known are %s%s", origin, name, kiln_buf_text(known),
                     known->failed ? ", ..." : "");
}

static int add_passed(struct values *values, const struct kiln_conf_key *entry, const char *name, struct value **slot,
                      struct kiln_err *err) {
    if (values->passed_count >= PASSED_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "more than %u keys for %s", PASSED_MAX, entry->name);
    struct passed *grown = reallocarray(values->passed, values->passed_count + 1, sizeof *grown);
    if (grown)
        values->passed = grown;
    char *copy = grown ? strdup(name) : NULL;
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
    grown[values->passed_count] = (struct passed){.entry = entry, .name = copy};
    *slot = &grown[values->passed_count++].value;
    return 0;
}

static int find_slot(const struct kiln_conf *conf, struct values *values, const struct kiln_conf_key *key,
                     const char *name, struct value **slot, struct kiln_err *err) {
    if (!passes_prefix(key)) {
        *slot = &values->of_key[key - conf->keys];
        return 0;
    }
    struct passed *passed = find_passed(values, name);
    if (!passed)
        return add_passed(values, key, name, slot, err);
    *slot = &passed->value;
    return 0;
}

// Sets the value of that name. The text of a secret appears in no message.
static int assign(const struct kiln_conf *conf, struct values *values, const char *name, const char *text,
                  const char *origin, struct kiln_err *err) {
    const struct kiln_conf_key *key = find_key(conf, name);
    if (!key)
        return fail_unknown(conf, name, origin, err);
    struct value fresh = {0};
    if (!parse_value(key, text, &fresh.number))
        return kiln_fail(err, KILN_E_INVAL, "%s: %s = %.100s is not accepted; give %s", origin, name,
                         is_secret(key, name) ? "(secret)" : text, accepted_form(key));
    fresh.text = strdup(text);
    fresh.origin = strdup(origin);
    struct value *slot = NULL;
    int rc = fresh.text && fresh.origin ? find_slot(conf, values, key, name, &slot, err)
                                        : kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
    if (rc) {
        value_release(&fresh);
        return rc;
    }
    value_release(slot);
    *slot = fresh;
    return 0;
}

static void move_value(struct value *to, struct value *from) {
    value_release(to);
    *to = *from;
    *from = (struct value){0};
}

// Moves what was assigned in `fresh` over the values, once all of it is known to be good.
static int adopt(struct kiln_conf *conf, struct values *fresh, struct kiln_err *err) {
    size_t before = conf->values.passed_count;
    for (size_t i = 0; i < fresh->passed_count; i++) { // what may fail comes first
        struct value *slot;
        struct passed *passed = &fresh->passed[i];
        int rc = find_passed(&conf->values, passed->name) ? 0
                                                          : add_passed(&conf->values, passed->entry, passed->name, &slot, err);
        if (!rc)
            continue;
        while (conf->values.passed_count > before)
            passed_release(&conf->values.passed[--conf->values.passed_count]);
        return rc;
    }
    for (size_t i = 0; i < fresh->passed_count; i++)
        move_value(&find_passed(&conf->values, fresh->passed[i].name)->value, &fresh->passed[i].value);
    for (size_t i = 0; i < conf->count; i++)
        if (fresh->of_key[i].text)
            move_value(&conf->values.of_key[i], &fresh->of_key[i]);
    return 0;
}

static int set_default(struct kiln_conf *conf, const struct kiln_conf_key *key, struct kiln_err *err) {
    for (const struct kiln_conf_key *other = conf->keys; other < key; other++)
        if (strcmp(other->name, key->name) == 0)
            return kiln_fail(err, KILN_E_INTERNAL, "key %s is declared twice", key->name);
    if (passes_prefix(key))
        return key->type == KILN_CONF_TEXT ? 0 : kiln_fail(err, KILN_E_INTERNAL, "%s is not text", key->name);
    return assign(conf, &conf->values, key->name, key->fallback ? key->fallback : "", "default", err);
}

int kiln_conf_new(const struct kiln_conf_key *keys, size_t count, struct kiln_conf **conf, struct kiln_err *err) {
    struct kiln_conf *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
    made->keys = keys;
    made->count = count;
    int rc = values_init(&made->values, count, err);
    for (size_t i = 0; !rc && i < count; i++)
        rc = set_default(made, &keys[i], err);
    if (rc)
        kiln_conf_free(made);
    else
        *conf = made;
    return rc;
}

void kiln_conf_free(struct kiln_conf *conf) {
    if (!conf)
        return;
    values_release(&conf->values, conf->count);
    free(conf);
}

static char *trim(char *text) {
    text += strspn(text, " \t\r");
    size_t len = strlen(text);
    while (len && strchr(" \t\r", text[len - 1]))
        text[--len] = 0;
    return text;
}

struct parse {
    const struct kiln_conf *conf;
    struct values fresh;
    const char *origin;
    char *section; // heap, or NULL at the top
};

static int parse_section(struct parse *parse, char *line, const char *place, struct kiln_err *err) {
    size_t len = strlen(line);
    if (len < 3 || line[len - 1] != ']')
        return kiln_fail(err, KILN_E_INVAL, "%s: a section is written [name]", place);
    line[len - 1] = 0;
    char *name = strdup(trim(line + 1));
    if (!name)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
    free(parse->section);
    parse->section = name;
    return 0;
}

static int parse_line(struct parse *parse, char *line, size_t number, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf place = KILN_BUF_INIT(8192), name = KILN_BUF_INIT(8192);
    line = trim(line);
    if (!*line || *line == '#')
        return 0;
    kiln_buf_addf(&place, "%s:%zu", parse->origin, number);
    if (*line == '[')
        return parse_section(parse, line, kiln_buf_text(&place), err);
    char *equals = strchr(line, '=');
    if (!equals)
        return kiln_fail(err, KILN_E_INVAL, "%s: \"%.100s\" is not \"key = value\"", kiln_buf_text(&place), line);
    *equals = 0;
    if (parse->section)
        kiln_buf_addf(&name, "%s.", parse->section);
    kiln_buf_add_str(&name, trim(line));
    int rc = kiln_buf_check(&name, "key", err);
    if (rc)
        return rc;
    const struct value *before = find_value(parse->conf, &parse->fresh, kiln_buf_text(&name));
    if (before)
        return kiln_fail(err, KILN_E_INVAL, "%s: %.100s is set a second time, first at %s", kiln_buf_text(&place),
                         kiln_buf_text(&name), before->origin);
    return assign(parse->conf, &parse->fresh, kiln_buf_text(&name), trim(equals + 1), kiln_buf_text(&place), err);
}

int kiln_conf_load_text(struct kiln_conf *conf, const char *origin, const char *text, size_t len, struct kiln_err *err) {
    if (memchr(text, 0, len))
        return kiln_fail(err, KILN_E_INVAL, "%s: holds a NUL byte", origin);
    kiln_autofree char *copy = strndup(text, len);
    struct parse parse = {.conf = conf, .origin = origin};
    int rc = copy ? values_init(&parse.fresh, conf->count, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for settings");
    size_t number = 1;
    for (char *line = copy; rc == 0 && line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        rc = parse_line(&parse, line, number, err);
        line = end ? end + 1 : NULL;
    }
    if (rc == 0)
        rc = adopt(conf, &parse.fresh, err);
    values_release(&parse.fresh, conf->count);
    free(parse.section);
    return rc;
}

int kiln_conf_load_file(struct kiln_conf *conf, const char *path, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(FILE_BYTES_MAX);
    int rc = kiln_fs_read_file(AT_FDCWD, path, &text, err);
    return rc ? rc : kiln_conf_load_text(conf, path, kiln_buf_text(&text), text.len, err);
}

static const char *find_variable(char *const *envp, const char *name) {
    size_t len = strlen(name);
    for (; *envp; envp++)
        if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
            return *envp + len + 1;
    return NULL;
}

int kiln_conf_load_env(struct kiln_conf *conf, char *const *envp, struct kiln_err *err) {
    struct values fresh;
    int rc = values_init(&fresh, conf->count, err);
    for (size_t i = 0; rc == 0 && i < conf->count; i++) {
        const struct kiln_conf_key *key = &conf->keys[i];
        const char *text = key->variable ? find_variable(envp, key->variable) : NULL;
        if (!text || !*text) // an empty variable is how a caller unsets one
            continue;
        kiln_autobuf struct kiln_buf origin = KILN_BUF_INIT(512);
        kiln_buf_addf(&origin, "environment %s", key->variable);
        rc = assign(conf, &fresh, key->name, text, kiln_buf_text(&origin), err);
    }
    if (rc == 0)
        rc = adopt(conf, &fresh, err);
    values_release(&fresh, conf->count);
    return rc;
}

int kiln_conf_set(struct kiln_conf *conf, const char *name, const char *value, const char *origin,
                  struct kiln_err *err) {
    return assign(conf, &conf->values, name, value, origin, err);
}

// A name or type that is not in the table is a mistake of the program, whatever its configuration.
static const struct value *value_of(const struct kiln_conf *conf, const char *name, unsigned types) {
    const struct kiln_conf_key *key = find_key(conf, name);
    if (!key || passes_prefix(key) || !(types & 1u << key->type))
        abort();
    return &conf->values.of_key[key - conf->keys];
}

const char *kiln_conf_text(const struct kiln_conf *conf, const char *name) {
    return value_of(conf, name, 1u << KILN_CONF_TEXT | 1u << KILN_CONF_CHOICE)->text;
}

bool kiln_conf_bool(const struct kiln_conf *conf, const char *name) {
    return value_of(conf, name, 1u << KILN_CONF_BOOL)->number != 0;
}

uint64_t kiln_conf_number(const struct kiln_conf *conf, const char *name) {
    return value_of(conf, name, 1u << KILN_CONF_COUNT | 1u << KILN_CONF_BYTES | 1u << KILN_CONF_MS)->number;
}

bool kiln_conf_item(const struct kiln_conf *conf, const char *entry, size_t index, struct kiln_conf_item *item) {
    for (size_t i = 0; i < conf->values.passed_count; i++) {
        const struct passed *passed = &conf->values.passed[i];
        if (strcmp(passed->entry->name, entry) != 0 || index-- > 0)
            continue;
        *item = (struct kiln_conf_item){passed->name + passes_prefix(passed->entry), passed->value.text};
        return true;
    }
    return false;
}

static const char *shown(const struct kiln_conf_key *key, const char *name, const char *text) {
    if (!is_secret(key, name))
        return text;
    return *text ? "(set)" : "(not set)";
}

static void show_value(const struct kiln_conf_key *key, const char *name, const struct value *value, bool json,
                       struct kiln_buf *out) {
    const char *text = shown(key, name, value->text);
    if (!json) {
        kiln_buf_addf(out, "%s = %s  # %s\n", name, text, value->origin);
        return;
    }
    kiln_buf_add_str(out, out->len > 1 ? ",\n {\"name\":" : "\n {\"name\":");
    kiln_json_add_string(out, name, strlen(name));
    kiln_buf_add_str(out, ",\"value\":");
    kiln_json_add_string(out, text, strlen(text));
    kiln_buf_add_str(out, ",\"origin\":");
    kiln_json_add_string(out, value->origin, strlen(value->origin));
    kiln_buf_add_str(out, "}");
}

int kiln_conf_show(const struct kiln_conf *conf, bool json, struct kiln_buf *out) {
    kiln_autobuf struct kiln_buf made = KILN_BUF_INIT(out->max);
    if (json)
        kiln_buf_add_str(&made, "[");
    for (size_t i = 0; i < conf->count; i++) {
        const struct kiln_conf_key *key = &conf->keys[i];
        if (!passes_prefix(key))
            show_value(key, key->name, &conf->values.of_key[i], json, &made);
        for (size_t k = 0; k < conf->values.passed_count; k++)
            if (conf->values.passed[k].entry == key)
                show_value(key, conf->values.passed[k].name, &conf->values.passed[k].value, json, &made);
    }
    if (json)
        kiln_buf_add_str(&made, "\n]\n");
    int rc = kiln_buf_check(&made, "list of settings", NULL);
    if (rc)
        return rc;
    kiln_buf_add(out, made.data, made.len);
    return kiln_buf_check(out, "list of settings", NULL);
}

static const char *type_name(const struct kiln_conf_key *key) {
    static const char *const names[] = {"text", "yes or no", "number", "size", "time"};
    return key->type == KILN_CONF_CHOICE ? key->choices : names[key->type];
}

int kiln_conf_help(const struct kiln_conf_key *keys, size_t count, struct kiln_buf *out) {
    for (size_t i = 0; i < count; i++) {
        const char *fallback = keys[i].fallback && *keys[i].fallback ? keys[i].fallback : "(empty)";
        kiln_buf_addf(out, "%s (%s; default %s", keys[i].name, type_name(&keys[i]), shown(&keys[i], keys[i].name, fallback));
        if (keys[i].variable)
            kiln_buf_addf(out, "; variable %s", keys[i].variable);
        kiln_buf_addf(out, ")\n    %s\n", keys[i].help);
    }
    return kiln_buf_check(out, "help text", NULL);
}
