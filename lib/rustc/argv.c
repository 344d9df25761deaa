#include "lib/rustc/argv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/rustc/argv_expand.h"
#include "lib/rustc/argv_table.h"
#include "lib/rustc/argv_target.h"

#define SHOWN(text) kiln_shown_bytes(text), (text)

struct parse {
    const struct kiln_argv_options *options;
    struct kiln_rustc_call *call;
    struct kiln_err *err;
    bool passes;
    bool seen[KILN_FLAGS_TOP_MAX];
    size_t sources_count;
    char *link_reason; // what makes the call local if it runs the linker
};

static int no_memory(struct parse *parse) { return kiln_fail(parse->err, KILN_E_NOMEM, "rustc command line"); }

// The first reason stays.
static int set_reason(struct parse *parse, char **slot, const char *fmt, va_list args) {
    char *reason;
    if (*slot)
        return 0;
    if (vasprintf(&reason, fmt, args) < 0)
        return no_memory(parse);
    *slot = reason;
    return 0;
}

static int local(struct parse *parse, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int local(struct parse *parse, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int rc = set_reason(parse, &parse->call->reason, fmt, args);
    va_end(args);
    return rc;
}

static int local_if_linked(struct parse *parse, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int local_if_linked(struct parse *parse, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int rc = set_reason(parse, &parse->link_reason, fmt, args);
    va_end(args);
    return rc;
}

static int malformed(struct parse *parse, const struct kiln_token *token) {
    return local(parse, "malformed: %.*s", SHOWN(token->text));
}

// Arrays grow at the powers of two, so their capacity needs no field of its own.
static int grow(struct parse *parse, void *slot, size_t count, size_t item_bytes) {
    if (count & (count - 1))
        return 0;
    void *items;
    memcpy(&items, slot, sizeof items);
    items = realloc(items, (count ? 2 * count : 1) * item_bytes);
    if (!items)
        return no_memory(parse);
    memcpy(slot, &items, sizeof items);
    return 0;
}

static char *copy(struct parse *parse, const char *text, size_t len) {
    char *duplicate = strndup(text, len);
    if (!duplicate)
        no_memory(parse);
    return duplicate;
}

static int keep(struct parse *parse, char **slot, const char *text) {
    char *duplicate = copy(parse, text, strlen(text));
    if (!duplicate)
        return KILN_E_NOMEM;
    free(*slot);
    *slot = duplicate;
    return 0;
}

// Takes ownership of flag, value and path, also on failure.
static int add_arg(struct parse *parse, enum kiln_arg_role role, char *flag, char *value, char *path) {
    struct kiln_rustc_call *call = parse->call;
    struct kiln_arg arg = {.role = role, .flag = flag, .value = value, .path = path};
    int rc = flag ? grow(parse, &call->args, call->args_count, sizeof arg) : no_memory(parse);
    if (rc) {
        free(flag);
        free(value);
        free(path);
        return rc;
    }
    call->args[call->args_count++] = arg;
    return 0;
}

static int add_path_arg(struct parse *parse, enum kiln_arg_role role, const char *flag, const char *value,
                        const char *path) {
    char *value_copy = strdup(value), *path_copy = path ? strdup(path) : NULL;
    if (!value_copy || (path && !path_copy)) {
        free(value_copy);
        free(path_copy);
        return no_memory(parse);
    }
    return add_arg(parse, role, strdup(flag), value_copy, path_copy);
}

// One spelling for each flag: "--warn=x", "-Lx", "-O", "-Copt-level=3".
static int add_plain_arg(struct parse *parse, enum kiln_arg_role role, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->flag;
    char *text = NULL;
    int len;
    if (token->whole && token->option)
        len = asprintf(&text, "-%c%s%s%s", flag->letter, token->option->name, token->value ? "=" : "",
                       token->value ? token->value : "");
    else if (flag->name[0])
        len = asprintf(&text, "--%s%s%s", flag->name, token->value ? "=" : "", token->value ? token->value : "");
    else
        len = asprintf(&text, "-%c%s", flag->letter, token->whole ? token->whole : token->value ? token->value : "");
    return len < 0 ? no_memory(parse) : add_arg(parse, role, text, NULL, NULL);
}

static const char *const yes_words[] = {"y", "yes", "on", "true", NULL};
static const char *const no_words[] = {"n", "no", "off", "false", "0", NULL};

static bool is_true(const char *value) { return !value || !kiln_word_in(value, strlen(value), no_words); }

static int take_source(struct parse *parse, const char *path) {
    parse->sources_count++;
    int rc = keep(parse, &parse->call->source, path);
    return rc ? rc : add_path_arg(parse, KILN_ARG_SOURCE, "", path, path);
}

static bool is_identifier(const char *name) {
    if (name[0] >= '0' && name[0] <= '9')
        return false;
    return name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name);
}

// Every comma-separated item, without the `skip` bytes in front of it, is in the list.
static bool all_in_list(const char *items, size_t skip, const char *const *list) {
    for (const char *item = items;; item++) {
        size_t len = strcspn(item, ",");
        if (len < skip || !kiln_word_in(item + skip, len - skip, list))
            return false;
        item += len;
        if (!*item)
            return true;
    }
}

static int take_extern(struct parse *parse, const struct kiln_token *token) {
    static const char *const options[] = {"priv", "noprelude", "nounused", "force", NULL};
    struct kiln_rustc_call *call = parse->call;
    int rc = grow(parse, &call->externs, call->externs_count, sizeof *call->externs);
    if (rc)
        return rc;
    const char *path = strchr(token->value, '=');
    kiln_autofree char *left = copy(parse, token->value, path ? (size_t)(path++ - token->value) : strlen(token->value));
    if (!left)
        return KILN_E_NOMEM;
    char *colon = strchr(left, ':');
    struct kiln_extern *item = &call->externs[call->externs_count++];
    *item = (struct kiln_extern){.name = strdup(colon ? colon + 1 : left), .path = path ? strdup(path) : NULL,
                                 .options = colon ? copy(parse, left, (size_t)(colon - left)) : NULL};
    if (!item->name || (path && !item->path) || (colon && !item->options))
        return no_memory(parse);
    if (!is_identifier(item->name) || (path && !*path) || (colon && !all_in_list(item->options, 0, options)))
        rc = malformed(parse, token);
    return rc ? rc : add_path_arg(parse, KILN_ARG_EXTERN, "--extern=", left, path);
}

static int take_lib_dir(struct parse *parse, const struct kiln_token *token) {
    static const struct {
        const char *prefix;
        enum kiln_lib_dir_kind kind;
        const char *flag;
    } kinds[] = {
        {"dependency=", KILN_DIR_DEPENDENCY, "-Ldependency="}, {"native=", KILN_DIR_NATIVE, "-Lnative="},
        {"crate=", KILN_DIR_CRATE, "-Lcrate="},                {"framework=", KILN_DIR_FRAMEWORK, "-Lframework="},
        {"all=", KILN_DIR_ALL, "-Lall="},                      {"", KILN_DIR_ALL, "-Lall="},
    };
    size_t k = 0;
    while (strncmp(token->value, kinds[k].prefix, strlen(kinds[k].prefix)))
        k++;
    const char *path = token->value + strlen(kinds[k].prefix);
    struct kiln_rustc_call *call = parse->call;
    int rc = grow(parse, &call->lib_dirs, call->lib_dirs_count, sizeof *call->lib_dirs);
    if (rc)
        return rc;
    struct kiln_lib_dir item = {.kind = kinds[k].kind, .path = strdup(path)};
    if (!item.path)
        return no_memory(parse);
    call->lib_dirs[call->lib_dirs_count++] = item;
    if (!*path || strncmp(path, "@RUSTC_BUILTIN", 14) == 0)
        rc = malformed(parse, token);
    return rc ? rc : add_path_arg(parse, KILN_ARG_LIB_DIR, kinds[k].flag, path, path);
}

static int check_native_lib(struct parse *parse, const struct kiln_token *token, const struct kiln_native_lib *item) {
    static const char *const kinds[] = {"static", "dylib", "framework", NULL};
    static const char *const modifiers[] = {"bundle", "verbatim", "whole-archive", "as-needed", "export-symbols", NULL};
    if (!item->name[0] || (item->rename && !item->rename[0]))
        return malformed(parse, token);
    if (item->kind && strcmp(item->kind, "link-arg") == 0)
        return local(parse, "link_arg: -l%.*s", SHOWN(token->value));
    if (item->kind && !kiln_word_in(item->kind, strlen(item->kind), kinds))
        return malformed(parse, token);
    for (const char *at = item->modifiers; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (*at != '+' && *at != '-')
            return malformed(parse, token);
    if (item->modifiers && !all_in_list(item->modifiers, 1, modifiers))
        return malformed(parse, token);
    // A verbatim name is joined to each directory, so it could leave them.
    if (strchr(item->name, '/') || (item->rename && strchr(item->rename, '/')))
        return local(parse, "native_library_path: %.*s", SHOWN(item->name));
    return 0;
}

// [KIND[:MODIFIERS]=]NAME[:RENAME]
static int take_native_lib(struct parse *parse, const struct kiln_token *token) {
    struct kiln_rustc_call *call = parse->call;
    int rc = grow(parse, &call->native_libs, call->native_libs_count, sizeof *call->native_libs);
    if (rc)
        return rc;
    const char *equals = strchr(token->value, '=');
    const char *name = equals ? equals + 1 : token->value;
    const char *rename = strchr(name, ':');
    kiln_autofree char *kind = equals ? copy(parse, token->value, (size_t)(equals - token->value)) : NULL;
    char *modifiers = kind ? strchr(kind, ':') : NULL;
    if (modifiers)
        *modifiers++ = 0;
    struct kiln_native_lib *item = &call->native_libs[call->native_libs_count++];
    *item = (struct kiln_native_lib){
        .kind = kind ? strdup(kind) : NULL,
        .modifiers = modifiers ? strdup(modifiers) : NULL,
        .name = strndup(name, rename ? (size_t)(rename - name) : strlen(name)),
        .rename = rename ? strdup(rename + 1) : NULL,
    };
    if ((equals && !item->kind) || (modifiers && !item->modifiers) || !item->name || (rename && !item->rename))
        return no_memory(parse);
    rc = check_native_lib(parse, token, item);
    return rc ? rc : add_plain_arg(parse, KILN_ARG_PLAIN, token);
}

struct word_bit {
    const char *word;
    unsigned bit;
};

// ORs the bits of a comma-separated list; false when a word is unknown. "word=path" sets *with_path.
static bool take_bits(const char *list, const struct word_bit *words, unsigned *bits, bool *with_path) {
    for (const char *item = list;; item++) {
        size_t len = strcspn(item, ","), name_len = strcspn(item, ",="), k = 0;
        while (words[k].word && (strlen(words[k].word) != name_len || strncmp(words[k].word, item, name_len)))
            k++;
        if (!words[k].word)
            return false;
        *with_path |= name_len != len;
        *bits |= words[k].bit;
        item += len;
        if (!*item)
            return true;
    }
}

static int take_crate_type(struct parse *parse, const struct kiln_token *token) {
    static const struct word_bit words[] = {
        {"lib", KILN_CRATE_LIB},       {"rlib", KILN_CRATE_RLIB},           {"bin", KILN_CRATE_BIN},
        {"dylib", KILN_CRATE_DYLIB},   {"cdylib", KILN_CRATE_CDYLIB},       {"staticlib", KILN_CRATE_STATICLIB},
        {"proc-macro", KILN_CRATE_PROC_MACRO}, {NULL, 0},
    };
    bool odd = false;
    if (!take_bits(token->value, words, &parse->call->crate_types, &odd) || odd)
        return local(parse, "crate_type: %.*s", SHOWN(token->value));
    return 0;
}

static int take_emit(struct parse *parse, const struct kiln_token *token) {
    static const struct word_bit words[] = {
        {"link", KILN_EMIT_LINK},       {"metadata", KILN_EMIT_METADATA}, {"dep-info", KILN_EMIT_DEP_INFO},
        {"asm", KILN_EMIT_ASM},         {"llvm-ir", KILN_EMIT_LLVM_IR},   {"llvm-bc", KILN_EMIT_LLVM_BC},
        {"obj", KILN_EMIT_OBJ},         {"mir", KILN_EMIT_MIR},           {NULL, 0},
    };
    bool with_path = false;
    if (!take_bits(token->value, words, &parse->call->emits, &with_path))
        return local(parse, "emit: %.*s", SHOWN(token->value));
    return with_path ? local(parse, "output_path: --emit=%.*s", SHOWN(token->value)) : 0;
}

static int take_json(struct parse *parse, const struct kiln_token *token) {
    for (const char *item = token->value;; item++) {
        size_t len = strcspn(item, ",");
        if (len == 9 && strncmp(item, "artifacts", len) == 0)
            parse->call->json_artifacts = true;
        if (len == 24 && strncmp(item, "diagnostic-rendered-ansi", len) == 0)
            parse->call->json_rendered = true;
        item += len;
        if (!*item)
            return 0;
    }
}

static int take_remap(struct parse *parse, const struct kiln_token *token) {
    // rustc splits at the last '='.
    const char *to = strrchr(token->value, '=');
    if (parse->options->canonical && to && strncmp(to + 1, "/kiln/", 6) == 0)
        return 0;
    parse->call->user_remap = true;
    return local(parse, "user_remap: %.*s", SHOWN(token->value));
}

static int take_target(struct parse *parse, const char *target) {
    size_t len = strlen(target);
    if (strchr(target, '/') || (len >= 5 && strcmp(target + len - 5, ".json") == 0))
        return local(parse, "target_json: %.*s", SHOWN(target));
    return 0;
}

static int take_features(struct parse *parse, const struct kiln_token *token) {
    for (const char *item = token->value;; item++) {
        size_t len = strcspn(item, ",");
        if ((len == 6 && strncmp(item, "native", 6) == 0) || (len == 7 && strncmp(item + 1, "native", 6) == 0))
            return local(parse, "native_cpu: -Ctarget-feature=%.*s", SHOWN(token->value));
        item += len;
        if (!*item)
            return 0;
    }
}

static int take_metadata(struct parse *parse, const char *value, char **slot) {
    char *joined;
    if (!*slot)
        return keep(parse, slot, value);
    if (asprintf(&joined, "%s %s", *slot, value) < 0)
        return no_memory(parse);
    free(*slot);
    *slot = joined;
    return 0;
}

static int take_link_args(struct parse *parse, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->option;
    bool plain = true;
    if (flag->meaning == KILN_MEANS_LINK_ARG) {
        plain = kiln_link_arg_is_plain(token->value);
    } else {
        kiln_autofree char *list = copy(parse, token->value, strlen(token->value));
        if (!list)
            return KILN_E_NOMEM;
        char *rest = list, *word;
        while (plain && (word = strsep(&rest, " \t\r\n\v\f")))
            plain = !*word || kiln_link_arg_is_plain(word);
    }
    return plain ? 0 : local_if_linked(parse, "%s: %.*s", flag->reason, SHOWN(token->value));
}

static int take_incremental(struct parse *parse, const struct kiln_token *token) {
    if (parse->options->drop_incremental)
        return add_plain_arg(parse, KILN_ARG_DROP, token);
    int rc = local(parse, "incremental");
    return rc ? rc : add_plain_arg(parse, KILN_ARG_PLAIN, token);
}

// The meanings that only -C and -Z options have.
static int take_option_value(struct parse *parse, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->option;
    const char *value = token->value;
    switch (flag->meaning) {
    case KILN_MEANS_CPU:
        return strcmp(value, "native") ? 0 : local(parse, "native_cpu: -%c%s=native", token->flag->letter, flag->name);
    case KILN_MEANS_FEATURES:
        return take_features(parse, token);
    case KILN_MEANS_PLUGIN_LTO:
        if (is_true(value) && value && !kiln_word_in(value, strlen(value), yes_words))
            return local(parse, "linker_plugin: %.*s", SHOWN(value));
        return 0;
    case KILN_MEANS_LINKER:
        return strcmp(value, "cc") ? local_if_linked(parse, "linker: %.*s", SHOWN(value)) : 0;
    case KILN_MEANS_LINK_ARG:
    case KILN_MEANS_LINK_ARGS:
        return take_link_args(parse, token);
    case KILN_MEANS_LLVM_ARGS:
        return kiln_llvm_args_are_plain(value) ? 0 : local(parse, "llvm_args: %.*s", SHOWN(value));
    default:
        return 0;
    }
}

static int take_flag_value(struct parse *parse, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->option ? token->option : token->flag;
    switch (flag->meaning) {
    case KILN_MEANS_LOCAL:
        return local(parse, "%s: %.*s", flag->reason, SHOWN(token->text));
    case KILN_MEANS_LOCAL_IF_TRUE:
        return is_true(token->value) ? local(parse, "%s", flag->reason) : 0;
    case KILN_MEANS_LOCAL_IF_LINKED:
        return is_true(token->value) ? local_if_linked(parse, "%s", flag->reason) : 0;
    case KILN_MEANS_TARGET:
        return take_target(parse, token->value);
    case KILN_MEANS_CRATE_TYPE:
        return take_crate_type(parse, token);
    case KILN_MEANS_EMIT:
        return take_emit(parse, token);
    case KILN_MEANS_JSON:
        return take_json(parse, token);
    case KILN_MEANS_REMAP:
        return take_remap(parse, token);
    case KILN_MEANS_DEBUG:
        return keep(parse, &parse->call->debuginfo, "2");
    case KILN_MEANS_OPTIMIZE:
        return keep(parse, &parse->call->opt_level, "3");
    default:
        return token->option ? take_option_value(parse, token) : 0;
    }
}

// Keeps the value where the table says.
static int keep_value(struct parse *parse, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->option ? token->option : token->flag;
    char *call = (char *)parse->call;
    if (flag->truth)
        *(bool *)(call + flag->truth) = is_true(token->value);
    if (!flag->field)
        return 0;
    char **slot = (char **)(void *)(call + flag->field);
    if (flag->meaning == KILN_MEANS_METADATA)
        return take_metadata(parse, token->value, slot);
    return keep(parse, slot, token->value ? token->value : flag->meaning == KILN_MEANS_LTO ? "fat" : "");
}

static int add_token_arg(struct parse *parse, const struct kiln_token *token) {
    const struct kiln_flag *flag = token->option ? token->option : token->flag;
    switch (flag->meaning) {
    case KILN_MEANS_EXTERN:
        return take_extern(parse, token);
    case KILN_MEANS_LIB_DIR:
        return take_lib_dir(parse, token);
    case KILN_MEANS_NATIVE_LIB:
        return take_native_lib(parse, token);
    case KILN_MEANS_INCREMENTAL:
        return take_incremental(parse, token);
    case KILN_MEANS_OUT_DIR:
        return add_path_arg(parse, KILN_ARG_OUT_DIR, "--out-dir=", token->value, token->value);
    case KILN_MEANS_SYSROOT: {
        int rc = local(parse, "%s: %.*s", flag->reason, SHOWN(token->value));
        return rc ? rc : add_path_arg(parse, KILN_ARG_SYSROOT, "--sysroot=", token->value, token->value);
    }
    case KILN_MEANS_PROFILE_USE: {
        int rc = local(parse, "%s: %.*s", flag->reason, SHOWN(token->value));
        const char *spelling = token->flag->letter == 'C' ? "-Cprofile-use=" : "-Zprofile-sample-use=";
        return rc ? rc : add_path_arg(parse, KILN_ARG_FILE, spelling, token->value, token->value);
    }
    default:
        return add_plain_arg(parse, KILN_ARG_PLAIN, token);
    }
}

static int take_flag(struct parse *parse, const struct kiln_token *token) {
    size_t count;
    size_t row = (size_t)(token->flag - kiln_flag_table(KILN_FLAGS_TOP, &count));
    int rc = 0;
    if (token->flag->once && parse->seen[row])
        rc = malformed(parse, token);
    parse->seen[row] = true;
    if (token->kind == KILN_TOKEN_MALFORMED)
        return rc ? rc : malformed(parse, token);
    if (token->kind == KILN_TOKEN_UNKNOWN)
        return rc ? rc : local(parse, "unknown_flag: -%c%.*s", token->flag->letter, SHOWN(token->whole));
    parse->passes |= kiln_token_passes(token);
    if (rc == 0)
        rc = keep_value(parse, token);
    if (rc == 0)
        rc = take_flag_value(parse, token);
    return rc ? rc : add_token_arg(parse, token);
}

static int read_arguments(struct parse *parse, size_t argc, char *const *argv) {
    struct kiln_arg_reader reader = KILN_ARG_READER_INIT(argc, argv);
    struct kiln_token token;
    int rc = 0;
    while (rc == 0 && kiln_arg_next(&reader, &token)) {
        if (token.kind == KILN_TOKEN_FREE)
            rc = take_source(parse, token.text);
        else if (token.flag)
            rc = take_flag(parse, &token);
        else
            // Whether it takes a value is unknown, so nothing behind it can be read.
            return local(parse, "unknown_flag: %.*s", SHOWN(token.text));
    }
    if (rc == 0 && (parse->sources_count == 0 || (parse->sources_count == 1 && strcmp(parse->call->source, "-") == 0)))
        parse->passes = true;
    return rc;
}

static int check_names(struct parse *parse) {
    const struct kiln_rustc_call *call = parse->call;
    if (parse->sources_count != 1)
        return local(parse, "sources: %zu", parse->sources_count);
    if (!call->source[0])
        return local(parse, "malformed: an empty source");
    if (!call->crate_name)
        return local(parse, "no_crate_name"); // then it may come from an attribute in the source
    if (!is_identifier(call->crate_name))
        return local(parse, "crate_name: %.*s", SHOWN(call->crate_name));
    if (!call->out_dir || !call->out_dir[0])
        return local(parse, "no_out_dir");
    // A dot would be taken for the beginning of the extension, a slash for a directory.
    if (call->extra_filename)
        for (const char *at = call->extra_filename; *at; at++)
            if (strchr("./\\", *at) || (unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f)
                return local(parse, "extra_filename: %.*s", SHOWN(call->extra_filename));
    return 0;
}

static int check_outputs(struct parse *parse) {
    const struct kiln_rustc_call *call = parse->call;
    const unsigned llvm = KILN_EMIT_ASM | KILN_EMIT_LLVM_IR | KILN_EMIT_LLVM_BC | KILN_EMIT_OBJ;
    unsigned alone = KILN_CRATE_BIN | KILN_CRATE_PROC_MACRO;
    if (!call->test && (call->crate_types & alone) && (call->crate_types & (call->crate_types - 1)))
        return local(parse, "crate_type: a mix that rustc refuses");
    if (!call->test && (call->crate_types & KILN_CRATE_DYLIB) && (call->crate_types & KILN_CRATE_CDYLIB))
        return local(parse, "output_collision: dylib and cdylib have one name");
    if (call->coverage)
        return local(parse, "coverage");
    if ((call->emits & (llvm | KILN_EMIT_LINK)) && kiln_rustc_has_debuginfo(call) && call->split_debuginfo &&
        strcmp(call->split_debuginfo, "unpacked") == 0)
        return local(parse, "split_debuginfo_unpacked");
    // With several codegen units, or cross-crate LTO, which files are left has no simple rule.
    bool several_units = call->codegen_units && strcmp(call->codegen_units, "1");
    if ((call->emits & llvm) && (several_units || (call->lto && is_true(call->lto))))
        return local(parse, "llvm_outputs: several codegen units or LTO");
    const struct kiln_target_names *names = kiln_target_names(call->target);
    if (!names && (call->emits & KILN_EMIT_LINK) &&
        (call->test || (call->crate_types & ~(unsigned)(KILN_CRATE_LIB | KILN_CRATE_RLIB))))
        return local(parse, "target_os: %.*s", SHOWN(call->target));
    return 0;
}

static int finish(struct parse *parse) {
    struct kiln_rustc_call *call = parse->call;
    if (call->emits == 0)
        call->emits = KILN_EMIT_LINK;
    if (call->crate_types == 0)
        call->crate_types = KILN_CRATE_BIN;
    int rc = check_names(parse);
    if (rc == 0)
        rc = check_outputs(parse);
    if (rc == 0 && parse->link_reason && kiln_rustc_needs_linker(call))
        rc = local(parse, "%s", parse->link_reason);
    call->kind = parse->passes ? KILN_CALL_PASS : call->reason ? KILN_CALL_LOCAL : KILN_CALL_COMPILE;
    if (parse->passes) {
        free(call->reason);
        call->reason = NULL;
    }
    return rc;
}

int kiln_rustc_parse(size_t argc, char *const *argv, const struct kiln_argv_options *options,
                     struct kiln_rustc_call *call, struct kiln_err *err) {
    kiln_autocall struct kiln_rustc_call parsed = {0};
    struct parse parse = {.options = options, .call = &parsed, .err = err};
    size_t words = kiln_compiler_words(argc, argv, &parsed.clippy);
    struct kiln_expanded expanded __attribute__((cleanup(kiln_expanded_release))) = {0};
    int rc = kiln_argv_expand(argc - words, argv + words, options, &expanded, err);
    if (rc)
        return rc;
    if (expanded.refused)
        rc = local(&parse, "%s", expanded.refused);
    else
        rc = read_arguments(&parse, expanded.count, expanded.args);
    if (rc == 0)
        rc = finish(&parse);
    free(parse.link_reason);
    if (rc)
        return rc;
    *call = parsed;
    parsed = (struct kiln_rustc_call){0};
    return 0;
}

void kiln_rustc_call_release(struct kiln_rustc_call *call) {
    char *const strings[] = {
        call->reason,     call->crate_name, call->source,       call->out_dir, call->extra_filename,
        call->metadata,   call->edition,    call->target,       call->sysroot, call->debuginfo,
        call->opt_level,  call->target_cpu, call->linker,       call->lto,     call->split_debuginfo,
        call->color,      call->error_format, call->codegen_units,
    };
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        free(strings[i]);
    for (size_t i = 0; i < call->externs_count; i++) {
        free(call->externs[i].options);
        free(call->externs[i].name);
        free(call->externs[i].path);
    }
    for (size_t i = 0; i < call->lib_dirs_count; i++)
        free(call->lib_dirs[i].path);
    for (size_t i = 0; i < call->native_libs_count; i++) {
        free(call->native_libs[i].kind);
        free(call->native_libs[i].modifiers);
        free(call->native_libs[i].name);
        free(call->native_libs[i].rename);
    }
    for (size_t i = 0; i < call->args_count; i++) {
        free(call->args[i].flag);
        free(call->args[i].value);
        free(call->args[i].path);
    }
    free(call->externs);
    free(call->lib_dirs);
    free(call->native_libs);
    free(call->args);
    *call = (struct kiln_rustc_call){0};
}

bool kiln_rustc_needs_linker(const struct kiln_rustc_call *call) {
    const unsigned linked = KILN_CRATE_BIN | KILN_CRATE_DYLIB | KILN_CRATE_CDYLIB | KILN_CRATE_PROC_MACRO;
    return (call->emits & KILN_EMIT_LINK) && (call->test || (call->crate_types & linked));
}

bool kiln_rustc_needs_libraries(const struct kiln_rustc_call *call) {
    bool archives = (call->emits & KILN_EMIT_LINK) && (call->crate_types & KILN_CRATE_STATICLIB);
    return archives || kiln_rustc_needs_linker(call);
}
