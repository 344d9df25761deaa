// Table-driven settings with the origin of each value: default < file < environment < flag.
//
// One table declares each setting once (key, type, default, environment variable, help); the parser, --help, the
// reference page and `kiln config --show-origin` come from it. File format: INI: "# comment", "[section]",
// "key = value"; a key in a section is addressed "section.key". Unknown keys, bad values and duplicate keys are errors
// that name file, line and key, and say what would be accepted. Sizes take K, M, G, T (powers of 1024) suffixes; times
// ms, s, m, h. A secret setting prints as "(set)".
// A table entry whose name ends in ".*" (text) takes every key of that section, for what is passed through to a library: at
// most 256 keys of letters, digits, '.', '_', '-'. Of these, a name with "password", "secret" or ".pem" is a secret.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

enum kiln_conf_type { KILN_CONF_TEXT, KILN_CONF_BOOL, KILN_CONF_COUNT, KILN_CONF_BYTES, KILN_CONF_MS, KILN_CONF_CHOICE };

struct kiln_conf_key {
    const char *name;     // "cache.max_size", or "kafka.*"
    enum kiln_conf_type type;
    const char *fallback; // default, in the text form
    const char *variable; // environment variable, or NULL when the environment must not set it
    const char *choices;  // "keep|drop" for KILN_CONF_CHOICE
    bool secret;
    const char *help;     // one sentence
};

struct kiln_conf; // values for one table

int kiln_conf_new(const struct kiln_conf_key *keys, size_t count, struct kiln_conf **conf, struct kiln_err *err);
void kiln_conf_free(struct kiln_conf *conf);
// Absent file: KILN_E_NOTFOUND (the caller decides). `text` form for tests and fuzzing; `origin` names it in messages.
int kiln_conf_load_file(struct kiln_conf *conf, const char *path, struct kiln_err *err);
int kiln_conf_load_text(struct kiln_conf *conf, const char *origin, const char *text, size_t len, struct kiln_err *err);
int kiln_conf_load_env(struct kiln_conf *conf, char *const *envp, struct kiln_err *err);
int kiln_conf_set(struct kiln_conf *conf, const char *name, const char *value, const char *origin, struct kiln_err *err);
// Getters assert that the name is in the table with that type. Borrowed until the next load/set.
const char *kiln_conf_text(const struct kiln_conf *conf, const char *name); // TEXT and CHOICE
bool kiln_conf_bool(const struct kiln_conf *conf, const char *name);
uint64_t kiln_conf_number(const struct kiln_conf *conf, const char *name); // COUNT, BYTES, MS
// The keys that a ".*" entry took, in the order in which they were first set; false past the last one. Borrowed likewise.
struct kiln_conf_item {
    const char *name, *value; // name without the section
};
bool kiln_conf_item(const struct kiln_conf *conf, const char *entry, size_t index, struct kiln_conf_item *item);
// "name = value  # origin" lines, or a JSON array of {name,value,origin}.
int kiln_conf_show(const struct kiln_conf *conf, bool json, struct kiln_buf *out);
// Reference text of a table: name, type, default, variable, help.
int kiln_conf_help(const struct kiln_conf_key *keys, size_t count, struct kiln_buf *out);
