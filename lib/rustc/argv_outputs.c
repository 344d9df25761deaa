#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/rustc/argv.h"
#include "lib/rustc/argv_target.h"

enum output_flags { REQUIRED = 1, EXECUTABLE = 2, PREFIX = 4 };

struct list {
    const struct kiln_rustc_call *call;
    const struct kiln_target_names *names;
    struct kiln_expected_output *outputs;
    size_t count;
    bool failed;
};

#define OUTPUTS_MAX 16 // each row below adds one, none twice

static void add(struct list *list, unsigned flags, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add(struct list *list, unsigned flags, const char *fmt, ...) {
    if (list->count == OUTPUTS_MAX) {
        list->failed = true;
        return;
    }
    struct kiln_expected_output *output = &list->outputs[list->count];
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&output->name, fmt, args);
    va_end(args);
    if (len < 0) {
        output->name = NULL;
        list->failed = true;
        return;
    }
    output->required = flags & REQUIRED;
    output->executable = flags & EXECUTABLE;
    output->prefix = flags & PREFIX;
    list->count++;
}

bool kiln_rustc_has_debuginfo(const struct kiln_rustc_call *call) {
    return call->debuginfo && strcmp(call->debuginfo, "0") && strcmp(call->debuginfo, "none");
}

static bool has_dwp(const struct list *list) {
    const char *split = list->call->split_debuginfo;
    return list->names->has_dwp && split && strcmp(split, "packed") == 0 && kiln_rustc_has_debuginfo(list->call);
}

static void add_linked(struct list *list, const char *stem) {
    const struct kiln_rustc_call *call = list->call;
    const struct kiln_target_names *names = list->names;
    unsigned types = call->test ? KILN_CRATE_BIN : call->crate_types;
    if (types & (KILN_CRATE_LIB | KILN_CRATE_RLIB))
        add(list, REQUIRED, "lib%s.rlib", stem);
    if (!names)
        return;
    if (types & KILN_CRATE_STATICLIB)
        add(list, REQUIRED, "lib%s.a", stem);
    if (types & KILN_CRATE_BIN) {
        add(list, REQUIRED | EXECUTABLE, "%s%s", stem, names->exe_suffix);
        if (has_dwp(list))
            add(list, REQUIRED, "%s.dwp", stem);
    }
    if (types & (KILN_CRATE_DYLIB | KILN_CRATE_CDYLIB | KILN_CRATE_PROC_MACRO)) {
        bool dropped = names->dll_optional && !(types & KILN_CRATE_PROC_MACRO);
        unsigned required = dropped ? 0 : REQUIRED;
        add(list, required | EXECUTABLE, "%s%s%s", names->dll_prefix, stem, names->dll_suffix);
        if (has_dwp(list))
            add(list, required, "%s%s%s.dwp", names->dll_prefix, stem, names->dll_suffix);
    }
}

int kiln_rustc_outputs(const struct kiln_rustc_call *call, struct kiln_expected_output **outputs, size_t *count,
                       struct kiln_err *err) {
    static const struct {
        unsigned emit;
        const char *extension;
    } named[] = {
        {KILN_EMIT_DEP_INFO, "d"},  {KILN_EMIT_ASM, "s"}, {KILN_EMIT_LLVM_IR, "ll"},
        {KILN_EMIT_LLVM_BC, "bc"},  {KILN_EMIT_OBJ, "o"}, {KILN_EMIT_MIR, "mir"},
    };
    if (call->kind != KILN_CALL_COMPILE)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "outputs of a call that is not cacheable");
    char *stem;
    if (asprintf(&stem, "%s%s", call->crate_name, call->extra_filename ? call->extra_filename : "") < 0)
        return kiln_fail(err, KILN_E_NOMEM, "rustc outputs");
    struct list list = {.call = call, .names = kiln_target_names(call->target),
                        .outputs = calloc(OUTPUTS_MAX, sizeof *list.outputs)};
    list.failed = !list.outputs;
    if (list.outputs) {
        if (call->emits & KILN_EMIT_METADATA)
            add(&list, REQUIRED, "lib%s.rmeta", stem);
        if (call->emits & KILN_EMIT_LINK)
            add_linked(&list, stem);
        for (size_t i = 0; i < sizeof named / sizeof *named; i++)
            if (call->emits & named[i].emit)
                add(&list, REQUIRED, "%s.%s", stem, named[i].extension);
        // A diagnostic, also a warning, writes a type that is too long to show here.
        add(&list, PREFIX, "%s.long-type-", stem);
    }
    free(stem);
    if (list.failed) {
        kiln_rustc_outputs_free(list.outputs, list.count);
        return kiln_fail(err, KILN_E_NOMEM, "rustc outputs");
    }
    *outputs = list.outputs;
    *count = list.count;
    return 0;
}

void kiln_rustc_outputs_free(struct kiln_expected_output *outputs, size_t count) {
    for (size_t i = 0; outputs && i < count; i++)
        free(outputs[i].name);
    free(outputs);
}
