// Arguments of linkers and of LLVM that cannot name a file. Whatever is not in these tables is refused.
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/rustc/argv_table.h"

enum word_value {
    WORD_ALONE,
    WORD_NUMBER,
    WORD_SYMBOL,   // a name or pattern without a slash
    WORD_CHOICE,   // one of `choices`
    WORD_MAYBE,    // nothing, or one of `choices`
    WORD_RPATH,    // directories at run time, each below $ORIGIN
    WORD_Z,        // -z keyword
};

struct word {
    const char *name; // without its dashes
    enum word_value value;
    const char *choices; // "a|b|c"
};

static const struct word linker_words[] = {
    {"gc-sections", WORD_ALONE, NULL},
    {"no-gc-sections", WORD_ALONE, NULL},
    {"as-needed", WORD_ALONE, NULL},
    {"no-as-needed", WORD_ALONE, NULL},
    {"start-group", WORD_ALONE, NULL},
    {"end-group", WORD_ALONE, NULL},
    {"whole-archive", WORD_ALONE, NULL},
    {"no-whole-archive", WORD_ALONE, NULL},
    {"push-state", WORD_ALONE, NULL},
    {"pop-state", WORD_ALONE, NULL},
    {"Bstatic", WORD_ALONE, NULL},
    {"Bdynamic", WORD_ALONE, NULL},
    {"Bsymbolic", WORD_ALONE, NULL},
    {"Bsymbolic-functions", WORD_ALONE, NULL},
    {"export-dynamic", WORD_ALONE, NULL},
    {"no-export-dynamic", WORD_ALONE, NULL},
    {"strip-all", WORD_ALONE, NULL},
    {"strip-debug", WORD_ALONE, NULL},
    {"discard-all", WORD_ALONE, NULL},
    {"discard-locals", WORD_ALONE, NULL},
    {"eh-frame-hdr", WORD_ALONE, NULL},
    {"no-eh-frame-hdr", WORD_ALONE, NULL},
    {"no-undefined", WORD_ALONE, NULL},
    {"undefined-version", WORD_ALONE, NULL},
    {"no-undefined-version", WORD_ALONE, NULL},
    {"allow-multiple-definition", WORD_ALONE, NULL},
    {"allow-shlib-undefined", WORD_ALONE, NULL},
    {"no-allow-shlib-undefined", WORD_ALONE, NULL},
    {"enable-new-dtags", WORD_ALONE, NULL},
    {"disable-new-dtags", WORD_ALONE, NULL},
    {"fatal-warnings", WORD_ALONE, NULL},
    {"no-fatal-warnings", WORD_ALONE, NULL},
    {"relax", WORD_ALONE, NULL},
    {"no-relax", WORD_ALONE, NULL},
    {"rosegment", WORD_ALONE, NULL},
    {"no-rosegment", WORD_ALONE, NULL},
    {"pie", WORD_ALONE, NULL},
    {"no-pie", WORD_ALONE, NULL},
    {"static", WORD_ALONE, NULL},
    // A uuid would be random.
    {"build-id", WORD_MAYBE, "none|fast|md5|sha1|tree"},
    {"hash-style", WORD_CHOICE, "gnu|sysv|both"},
    {"icf", WORD_CHOICE, "none|safe|all"},
    {"compress-debug-sections", WORD_CHOICE, "none|zlib|zlib-gnu|zlib-gabi|zstd"},
    {"pack-dyn-relocs", WORD_CHOICE, "none|android|relr|android+relr"},
    {"unresolved-symbols", WORD_CHOICE, "ignore-all|report-all|ignore-in-object-files|ignore-in-shared-libs"},
    {"sort-section", WORD_CHOICE, "name|alignment"},
    {"threads", WORD_NUMBER, NULL},
    {"image-base", WORD_NUMBER, NULL},
    {"soname", WORD_SYMBOL, NULL},
    {"undefined", WORD_SYMBOL, NULL},
    {"wrap", WORD_SYMBOL, NULL},
    {"exclude-libs", WORD_SYMBOL, NULL},
    {"export-dynamic-symbol", WORD_SYMBOL, NULL},
    {"entry", WORD_SYMBOL, NULL},
    {"init", WORD_SYMBOL, NULL},
    {"fini", WORD_SYMBOL, NULL},
    {"rpath", WORD_RPATH, NULL},
    {"z", WORD_Z, NULL},
    // wasm-ld
    {"no-entry", WORD_ALONE, NULL},
    {"export-table", WORD_ALONE, NULL},
    {"growable-table", WORD_ALONE, NULL},
    {"import-table", WORD_ALONE, NULL},
    {"import-memory", WORD_ALONE, NULL},
    {"shared-memory", WORD_ALONE, NULL},
    {"stack-first", WORD_ALONE, NULL},
    {"allow-undefined", WORD_ALONE, NULL},
    {"import-undefined", WORD_ALONE, NULL},
    {"export-all", WORD_ALONE, NULL},
    {"export", WORD_SYMBOL, NULL},
    {"initial-memory", WORD_NUMBER, NULL},
    {"max-memory", WORD_NUMBER, NULL},
    {"global-base", WORD_NUMBER, NULL},
};

// Words of one dash that do not fit the table: -O2, -s, -E.
static const char *const short_words[] = {"-s", "-S", "-E", "-O0", "-O1", "-O2", "-O3", NULL};

static const char *const z_words[] = {"relro",        "norelro",  "now",      "lazy",   "noexecstack", "execstack",
                                      "nodelete",     "nodlopen", "origin",   "defs",   "undefs",      "text",
                                      "notext",       "initfirst", "interpose", "separate-code", "noseparate-code",
                                      "start-stop-gc", "nostart-stop-gc", "pack-relative-relocs", "nocopyreloc", NULL};
static const char *const z_numbers[] = {"max-page-size", "common-page-size", "stack-size", NULL};

static const char *const driver_words[] = {
    "-nostartfiles", "-nodefaultlibs", "-nostdlib",    "-static",      "-static-pie", "-no-pie",    "-pie",
    "-rdynamic",     "-pthread",       "-s",           "-shared-libgcc", "-static-libgcc", "-static-libstdc++",
    "-m32",          "-m64",           "-fuse-ld=lld", "-fuse-ld=bfd", "-fuse-ld=gold",
    // Libraries of the C toolchain itself.
    "-lc", "-lm", "-ldl", "-lpthread", "-lrt", "-lutil", "-lgcc", "-lgcc_s", NULL};

static const char *const llvm_numbers[] = {"inline-threshold", "inlinehint-threshold", "inlinecold-threshold",
                                           "unroll-threshold", "align-all-functions", "align-all-nofallthru-blocks",
                                           "slp-threshold", "import-instr-limit", NULL};

static bool is_number(const char *text) {
    bool hex = strncmp(text, "0x", 2) == 0;
    if (hex)
        text += 2;
    return *text && strspn(text, hex ? "0123456789abcdefABCDEF" : "0123456789") == strlen(text);
}

static bool is_symbol(const char *text) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$*?:+-";
    return *text && *text != '-' && strspn(text, allowed) == strlen(text);
}

static bool is_choice(const char *text, const char *choices) {
    size_t len = strlen(text);
    while (*choices) {
        size_t step = strcspn(choices, "|");
        if (step == len && strncmp(choices, text, len) == 0)
            return true;
        choices += step + (choices[step] == '|');
    }
    return false;
}

static bool is_run_path(const char *text) {
    while (*text) {
        if (strncmp(text, "$ORIGIN", 7) == 0)
            text += 7;
        else if (strncmp(text, "${ORIGIN}", 9) == 0)
            text += 9;
        else
            return false;
        if (*text != '/' && *text != ':' && *text)
            return false;
        text += strcspn(text, ":");
        if (*text && !*++text)
            return false;
    }
    return true;
}

static bool is_z_keyword(const char *text) {
    size_t len = strcspn(text, "=");
    if (!text[len])
        return kiln_word_in(text, len, z_words);
    return kiln_word_in(text, len, z_numbers) && is_number(text + len + 1);
}

static bool value_fits(const struct word *word, const char *value) {
    switch (word->value) {
    case WORD_ALONE:
        return !value;
    case WORD_NUMBER:
        return value && is_number(value);
    case WORD_SYMBOL:
        return value && is_symbol(value);
    case WORD_CHOICE:
        return value && is_choice(value, word->choices);
    case WORD_MAYBE:
        return !value || is_choice(value, word->choices);
    case WORD_RPATH:
        return value && *value && is_run_path(value);
    case WORD_Z:
        return value && is_z_keyword(value);
    }
    return false;
}

// `next` is the word behind, for a value that stands alone; *used tells whether it was taken.
static bool linker_word_is_plain(const char *text, const char *next, bool *used) {
    *used = false;
    if (text[0] != '-')
        return false;
    if (kiln_word_in(text, strlen(text), short_words))
        return true;
    if (strncmp(text, "-z", 2) == 0 && text[2])
        return is_z_keyword(text + 2);
    const char *name = text + (text[1] == '-' ? 2 : 1);
    size_t len = strcspn(name, "=");
    const struct word *word = NULL;
    for (size_t i = 0; !word && i < sizeof linker_words / sizeof *linker_words; i++)
        if (strlen(linker_words[i].name) == len && strncmp(linker_words[i].name, name, len) == 0)
            word = &linker_words[i];
    if (!word)
        return false;
    const char *value = name[len] ? name + len + 1 : NULL;
    if (!value && word->value != WORD_ALONE && word->value != WORD_MAYBE) {
        value = next;
        *used = true;
    }
    return value_fits(word, value);
}

static bool comma_words_are_plain(const char *list) {
    kiln_autofree char *copy = strdup(list);
    char *rest = copy;
    char *word = rest ? strsep(&rest, ",") : NULL;
    if (!word)
        return false;
    while (word) {
        char *next = rest ? strsep(&rest, ",") : NULL;
        bool used;
        if (!linker_word_is_plain(word, next, &used))
            return false;
        word = used ? (rest ? strsep(&rest, ",") : NULL) : next;
    }
    return true;
}

bool kiln_link_arg_is_plain(const char *arg) {
    bool used;
    if (strncmp(arg, "-Wl,", 4) == 0)
        return comma_words_are_plain(arg + 4);
    if (kiln_word_in(arg, strlen(arg), driver_words))
        return true;
    // With one dash a driver would read it as flags of its own; with two it is a linker's word (rust-lld, wasm-ld).
    return strncmp(arg, "--", 2) == 0 && linker_word_is_plain(arg, NULL, &used);
}

static bool llvm_arg_is_plain(const char *arg) {
    if (*arg++ != '-')
        return false;
    if (*arg == '-')
        arg++;
    size_t len = strcspn(arg, "=");
    return arg[len] && kiln_word_in(arg, len, llvm_numbers) && is_number(arg + len + 1);
}

bool kiln_llvm_args_are_plain(const char *args) {
    kiln_autofree char *copy = strdup(args);
    char *rest = copy, *word;
    if (!copy)
        return false;
    while ((word = strsep(&rest, " \t\r\n\v\f")))
        if (*word && !llvm_arg_is_plain(word))
            return false;
    return true;
}
