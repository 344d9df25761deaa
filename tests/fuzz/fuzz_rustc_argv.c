// Any command line: parsing ends, a cacheable call has outputs with plain names, its canonical form reads back as itself.
// Input: arguments separated by NUL bytes; behind a 0x01 byte, the text of every @file.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/argv.h"

#define ARGS_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
    const uint8_t *data;
    size_t len;
};

static int read_file(void *context, const char *path, struct kiln_buf *out, struct kiln_err *err) {
    const struct text *file = context;
    return path[0] ? kiln_buf_add(out, file->data, file->len) : kiln_fail(err, KILN_E_NOTFOUND, "no name");
}

struct list {
    char *items[ARGS_MAX * 8];
    size_t count;
};

static void list_release(struct list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
}

static int add_item(void *context, const char *arg, struct kiln_err *err) {
    struct list *list = context;
    if (list->count == sizeof list->items / sizeof *list->items)
        return kiln_fail(err, KILN_E_LIMIT, "arguments");
    list->items[list->count++] = strdup(arg);
    return 0;
}

static char *place_same(void *context, const struct kiln_arg *arg) {
    (void)context;
    return strdup(arg->path);
}

static void require(bool condition) {
    if (!condition)
        abort();
}

static void check_outputs(const struct kiln_rustc_call *call) {
    struct kiln_expected_output *outputs;
    size_t count;
    require(kiln_rustc_outputs(call, &outputs, &count, NULL) == 0);
    for (size_t i = 0; i < count; i++) {
        const char *name = outputs[i].name;
        require(name[0] && name[0] != '.' && !strchr(name, '/'));
        for (size_t k = 0; k < i; k++)
            require(strcmp(name, outputs[k].name) != 0);
    }
    kiln_rustc_outputs_free(outputs, count);
}

static void check_canonical(const struct kiln_rustc_call *call) {
    __attribute__((cleanup(list_release))) struct list first = {.count = 0}, again = {.count = 0};
    add_item(&first, "rustc", NULL);
    add_item(&again, "rustc", NULL);
    if (kiln_rustc_rewrite(call, place_same, &first, add_item, NULL))
        return; // a source that begins with '-' or '@'
    const struct kiln_argv_options options = {.drop_incremental = true};
    kiln_autocall struct kiln_rustc_call canonical = {0};
    require(kiln_rustc_parse(first.count, first.items, &options, &canonical, NULL) == 0);
    require(canonical.kind == KILN_CALL_COMPILE);
    require(kiln_rustc_rewrite(&canonical, place_same, &again, add_item, NULL) == 0);
    require(first.count == again.count);
    for (size_t i = 0; i < first.count; i++)
        require(strcmp(first.items[i], again.items[i]) == 0);
    require(canonical.crate_types == call->crate_types && canonical.emits == call->emits && canonical.test == call->test);
    require(strcmp(canonical.crate_name, call->crate_name) == 0 && canonical.externs_count == call->externs_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *file = size ? memchr(data, 1, size) : NULL;
    struct text text = {file ? file + 1 : NULL, file ? size - (size_t)(file + 1 - data) : 0};
    size_t len = file ? (size_t)(file - data) : size;
    kiln_autofree char *args = malloc(len + 1);
    char *argv[ARGS_MAX];
    size_t argc = 0;
    memcpy(args, data, len);
    args[len] = 0;
    for (size_t at = 0; at <= len && argc < ARGS_MAX; at += strlen(args + at) + 1)
        argv[argc++] = args + at;
    const struct kiln_argv_options options = {.drop_incremental = true, .read_file = read_file, .context = &text};
    kiln_autocall struct kiln_rustc_call call = {0};
    struct kiln_err err = {0};
    bool probe = kiln_rustc_is_probe(argc, argv);
    if (kiln_rustc_parse(argc, argv, &options, &call, &err))
        return 0;
    require(!probe || call.kind == KILN_CALL_PASS || strncmp(call.reason, "not_utf8", 8) == 0);
    require((call.reason != NULL) == (call.kind == KILN_CALL_LOCAL));
    if (call.kind != KILN_CALL_COMPILE)
        return 0;
    check_outputs(&call);
    check_canonical(&call);
    return 0;
}
