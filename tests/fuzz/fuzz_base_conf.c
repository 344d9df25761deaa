// Whatever text is a file of settings: it is taken whole or not at all, what was taken shows, and a secret does not.
#include <stdlib.h>
#include <string.h>

#include "lib/base/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct kiln_conf_key keys[] = {
    {"name", KILN_CONF_TEXT, "unset", NULL, NULL, false, "A text."},
    {"a.size", KILN_CONF_BYTES, "1K", NULL, NULL, false, "A size."},
    {"a.time", KILN_CONF_MS, "1s", NULL, NULL, false, "A time."},
    {"a.count", KILN_CONF_COUNT, "1", NULL, NULL, false, "A number."},
    {"a.on", KILN_CONF_BOOL, "no", NULL, NULL, false, "A truth."},
    {"a.pick", KILN_CONF_CHOICE, "x", NULL, "x|y", false, "A choice."},
    {"a.token", KILN_CONF_TEXT, "", NULL, NULL, true, "A secret."},
    {"k.*", KILN_CONF_TEXT, NULL, NULL, NULL, false, "Passed through."},
};
#define KEYS (sizeof keys / sizeof *keys)

static void check_untouched(const struct kiln_conf *conf) {
    struct kiln_conf_item item;
    if (strcmp(kiln_conf_text(conf, "name"), "unset") != 0 || kiln_conf_number(conf, "a.size") != 1024 ||
        kiln_conf_item(conf, "k.*", 0, &item))
        abort();
}

static void check_taken(const struct kiln_conf *conf) {
    struct kiln_conf_item item;
    const char *pick = kiln_conf_text(conf, "a.pick"), *token = kiln_conf_text(conf, "a.token");
    if (strcmp(pick, "x") != 0 && strcmp(pick, "y") != 0)
        abort();
    for (size_t i = 0; kiln_conf_item(conf, "k.*", i, &item); i++)
        if (i >= 256 || !*item.name || strpbrk(item.name, " =\n[]"))
            abort();
    kiln_autobuf struct kiln_buf shown = KILN_BUF_INIT(4 << 20);
    if (kiln_conf_show(conf, false, &shown))
        abort();
    const char *line = strstr(kiln_buf_text(&shown), "\na.token = "); // no value holds a line end
    if (!line || strncmp(line + 1, *token ? "a.token = (set)" : "a.token = (not set)", *token ? 15 : 19) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_conf *conf = NULL;
    struct kiln_err err;
    if (kiln_conf_new(keys, KEYS, &conf, NULL))
        abort();
    if (kiln_conf_load_text(conf, "fuzz", (const char *)data, size, &err))
        check_untouched(conf);
    else
        check_taken(conf);
    kiln_conf_free(conf);
    return 0;
}
