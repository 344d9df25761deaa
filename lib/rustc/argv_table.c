#include "lib/rustc/argv_table.h"

#include <string.h>

#include "lib/rustc/argv.h"

#define FIELD(name) .field = offsetof(struct kiln_rustc_call, name)
#define TRUTH(name) .truth = offsetof(struct kiln_rustc_call, name)

#define ROW(text, short_form, value, means, ...)                                                                       \
    {.name = text, .letter = short_form, .takes = KILN_TAKES_##value, .meaning = KILN_MEANS_##means, ##__VA_ARGS__}

static const struct kiln_flag top[] = {
    ROW("help", 'h', NOTHING, PASS, .once = true),
    ROW("version", 'V', NOTHING, PASS, .once = true),
    ROW("verbose", 'v', NOTHING, PLAIN, .once = true),
    ROW("print", 0, VALUE, PASS),
    ROW("explain", 0, VALUE, PASS, .once = true),
    ROW("cfg", 0, VALUE, PLAIN),
    ROW("check-cfg", 0, VALUE, PLAIN),
    ROW("crate-name", 0, VALUE, PLAIN, .once = true, FIELD(crate_name)),
    ROW("crate-type", 0, VALUE, CRATE_TYPE),
    ROW("edition", 0, VALUE, PLAIN, .once = true, FIELD(edition)),
    ROW("emit", 0, VALUE, EMIT),
    ROW("test", 0, NOTHING, PLAIN, .once = true, TRUTH(test)),
    ROW("target", 0, VALUE, TARGET, .once = true, FIELD(target)),
    ROW("", 'g', NOTHING, DEBUG),
    ROW("", 'O', NOTHING, OPTIMIZE),
    ROW("", 'o', VALUE, LOCAL, .once = true, .reason = "output_path"),
    ROW("out-dir", 0, VALUE, OUT_DIR, .once = true, FIELD(out_dir)),
    ROW("", 'L', VALUE, LIB_DIR),
    ROW("", 'l', VALUE, NATIVE_LIB),
    ROW("extern", 0, VALUE, EXTERN),
    ROW("sysroot", 0, VALUE, SYSROOT, .once = true, .reason = "sysroot", FIELD(sysroot)),
    ROW("allow", 'A', VALUE, LINT),
    ROW("warn", 'W', VALUE, LINT),
    ROW("force-warn", 0, VALUE, LINT),
    ROW("deny", 'D', VALUE, LINT),
    ROW("forbid", 'F', VALUE, LINT),
    ROW("cap-lints", 0, VALUE, PLAIN),
    ROW("codegen", 'C', VALUE, CODEGEN),
    ROW("", 'Z', VALUE, UNSTABLE),
    ROW("error-format", 0, VALUE, PLAIN, .once = true, FIELD(error_format)),
    ROW("json", 0, VALUE, JSON),
    ROW("color", 0, VALUE, PLAIN, .once = true, FIELD(color)),
    ROW("diagnostic-width", 0, VALUE, PLAIN, .once = true),
    ROW("remap-path-prefix", 0, VALUE, REMAP, .reason = "user_remap"),
    ROW("remap-path-scope", 0, VALUE, LOCAL, .reason = "user_remap", TRUTH(user_remap)),
    ROW("env-set", 0, VALUE, PLAIN),
};
_Static_assert(sizeof top / sizeof *top <= KILN_FLAGS_TOP_MAX, "the set of seen flags is too small");

#define PLAIN(name) ROW(name, 0, MAYBE, PLAIN)
#define NEEDS(name) ROW(name, 0, VALUE, PLAIN)

static const struct kiln_flag codegen[] = {
    ROW("help", 0, MAYBE, PASS),
    ROW("ar", 0, VALUE, LOCAL, .reason = "ar"),
    NEEDS("code-model"),
    ROW("codegen-units", 0, VALUE, PLAIN, FIELD(codegen_units)),
    PLAIN("collapse-macro-debuginfo"),
    PLAIN("control-flow-guard"),
    PLAIN("debug-assertions"),
    ROW("debuginfo", 0, VALUE, PLAIN, FIELD(debuginfo)),
    PLAIN("default-linker-libraries"),
    ROW("dlltool", 0, VALUE, LOCAL, .reason = "dlltool"),
    NEEDS("dwarf-version"),
    PLAIN("embed-bitcode"),
    ROW("extra-filename", 0, VALUE, PLAIN, FIELD(extra_filename)),
    PLAIN("force-frame-pointers"),
    PLAIN("force-unwind-tables"),
    ROW("incremental", 0, VALUE, INCREMENTAL, .reason = "incremental"),
    NEEDS("inline-threshold"),
    ROW("instrument-coverage", 0, MAYBE, PLAIN, TRUTH(coverage)),
    PLAIN("jump-tables"),
    ROW("link-arg", 0, VALUE, LINK_ARG, .reason = "link_arg"),
    ROW("link-args", 0, VALUE, LINK_ARGS, .reason = "link_arg"),
    PLAIN("link-dead-code"),
    PLAIN("link-self-contained"),
    ROW("linker", 0, VALUE, LINKER, .reason = "linker", FIELD(linker)),
    NEEDS("linker-features"),
    NEEDS("linker-flavor"),
    ROW("linker-plugin-lto", 0, MAYBE, PLUGIN_LTO, .reason = "linker_plugin"),
    ROW("llvm-args", 0, VALUE, LLVM_ARGS, .reason = "llvm_args"),
    ROW("lto", 0, MAYBE, LTO, FIELD(lto)),
    ROW("metadata", 0, VALUE, METADATA, FIELD(metadata)),
    PLAIN("no-prepopulate-passes"),
    PLAIN("no-redzone"),
    PLAIN("no-stack-check"),
    PLAIN("no-vectorize-loops"),
    PLAIN("no-vectorize-slp"),
    ROW("opt-level", 0, VALUE, PLAIN, FIELD(opt_level)),
    PLAIN("overflow-checks"),
    NEEDS("panic"),
    // Some passes write files beside the outputs (insert-gcov-profiling).
    ROW("passes", 0, VALUE, LOCAL, .reason = "llvm_passes"),
    ROW("prefer-dynamic", 0, MAYBE, PLAIN, TRUTH(prefer_dynamic)),
    ROW("profile-generate", 0, MAYBE, LOCAL, .reason = "profile_generate"),
    ROW("profile-use", 0, VALUE, PROFILE_USE, .reason = "profile_use"),
    NEEDS("relocation-model"),
    NEEDS("relro-level"),
    NEEDS("remark"),
    // RUNPATH becomes a relative way from the output to the sysroot.
    ROW("rpath", 0, MAYBE, LOCAL_IF_LINKED, .reason = "rpath", TRUTH(rpath)),
    ROW("save-temps", 0, MAYBE, LOCAL_IF_TRUE, .reason = "save_temps"),
    PLAIN("soft-float"),
    ROW("split-debuginfo", 0, VALUE, PLAIN, FIELD(split_debuginfo)),
    NEEDS("strip"),
    NEEDS("symbol-mangling-version"),
    ROW("target-cpu", 0, VALUE, CPU, .reason = "native_cpu", FIELD(target_cpu)),
    ROW("target-feature", 0, VALUE, FEATURES, .reason = "native_cpu"),
    NEEDS("unsafe-allow-abi-mismatch"),
};

// The unstable options that only change code, metadata or messages, from the sources and flags alone. All others run
// locally: they name or write files, change the set of outputs, spread the front end over threads or measure time.
static const struct kiln_flag unstable[] = {
    ROW("help", 0, MAYBE, PASS),
    ROW("tune-cpu", 0, VALUE, CPU, .reason = "native_cpu"),
    ROW("pre-link-arg", 0, VALUE, LINK_ARG, .reason = "link_arg"),
    ROW("pre-link-args", 0, VALUE, LINK_ARGS, .reason = "link_arg"),
    ROW("remap-cwd-prefix", 0, VALUE, LOCAL, .reason = "user_remap", TRUTH(user_remap)),
    ROW("codegen-backend", 0, VALUE, LOCAL, .reason = "codegen_backend"),
    ROW("threads", 0, VALUE, LOCAL, .reason = "threads"),
    ROW("profile-sample-use", 0, VALUE, PROFILE_USE, .reason = "profile_use"),
    PLAIN("unstable-options"),
    PLAIN("allow-features"),
    PLAIN("always-encode-mir"),
    PLAIN("annotate-moves"),
    PLAIN("assume-incomplete-release"),
    PLAIN("box-noalias"),
    PLAIN("branch-protection"),
    PLAIN("cf-protection"),
    PLAIN("check-cfg-all-expected"),
    PLAIN("codegen-source-order"),
    PLAIN("contract-checks"),
    PLAIN("cross-crate-inline-threshold"),
    PLAIN("debug-info-for-profiling"),
    PLAIN("debug-info-type-line-numbers"),
    PLAIN("debuginfo-compression"),
    PLAIN("deduplicate-diagnostics"),
    PLAIN("default-visibility"),
    PLAIN("dep-info-omit-d-target"),
    PLAIN("direct-access-external-data"),
    PLAIN("dwarf-version"),
    PLAIN("emit-stack-sizes"),
    PLAIN("enforce-type-length-limit"),
    PLAIN("export-executable-symbols"),
    PLAIN("extra-const-ub-checks"),
    PLAIN("fewer-names"),
    PLAIN("fixed-x18"),
    PLAIN("flatten-format-args"),
    PLAIN("fmt-debug"),
    PLAIN("force-unstable-if-unmarked"),
    PLAIN("function-return"),
    PLAIN("function-sections"),
    PLAIN("has-thread-local"),
    PLAIN("hint-mostly-unused"),
    PLAIN("human-readable-cgu-names"),
    PLAIN("indirect-branch-cs-prefix"),
    PLAIN("inline-llvm"),
    PLAIN("inline-mir"),
    PLAIN("inline-mir-forwarder-threshold"),
    PLAIN("inline-mir-hint-threshold"),
    PLAIN("inline-mir-preserve-debug"),
    PLAIN("inline-mir-threshold"),
    PLAIN("instrument-mcount"),
    PLAIN("instrument-xray"),
    PLAIN("large-data-threshold"),
    PLAIN("layout-seed"),
    PLAIN("lint-llvm-ir"),
    PLAIN("lint-mir"),
    PLAIN("location-detail"),
    PLAIN("macro-backtrace"),
    PLAIN("maximal-hir-to-mir-coverage"),
    PLAIN("merge-functions"),
    PLAIN("min-function-alignment"),
    PLAIN("mir-emit-retag"),
    PLAIN("mir-enable-passes"),
    PLAIN("mir-include-spans"),
    PLAIN("mir-opt-level"),
    PLAIN("mir-preserve-ub"),
    PLAIN("mir-strip-debuginfo"),
    PLAIN("move-size-limit"),
    PLAIN("mutable-noalias"),
    PLAIN("next-solver"),
    PLAIN("no-generate-arange-section"),
    PLAIN("no-implied-bounds-compat"),
    PLAIN("no-leak-check"),
    PLAIN("no-trait-vptr"),
    PLAIN("no-unique-section-names"),
    PLAIN("panic-abort-tests"),
    PLAIN("panic-in-drop"),
    PLAIN("patchable-function-entry"),
    PLAIN("plt"),
    PLAIN("polonius"),
    PLAIN("precise-enum-drop-elaboration"),
    PLAIN("proc-macro-backtrace"),
    PLAIN("randomize-layout"),
    PLAIN("reg-struct-return"),
    PLAIN("regparm"),
    PLAIN("relax-elf-relocations"),
    PLAIN("retpoline"),
    PLAIN("retpoline-external-thunk"),
    PLAIN("saturating-float-casts"),
    PLAIN("share-generics"),
    PLAIN("small-data-threshold"),
    PLAIN("span-debug"),
    PLAIN("src-hash-algorithm"),
    PLAIN("stack-protector"),
    PLAIN("strict-init-checks"),
    PLAIN("teach"),
    PLAIN("tiny-const-eval-limit"),
    PLAIN("tls-model"),
    PLAIN("trap-unreachable"),
    PLAIN("trim-diagnostic-paths"),
    PLAIN("ub-checks"),
    PLAIN("ui-testing"),
    PLAIN("uninit-const-chunk-threshold"),
    PLAIN("unsound-mir-opts"),
    PLAIN("use-ctors-section"),
    PLAIN("use-sync-unwind"),
    PLAIN("validate-mir"),
    PLAIN("verbose-asm"),
    PLAIN("verify-llvm-ir"),
    PLAIN("virtual-function-elimination"),
};

const struct kiln_flag *kiln_flag_table(enum kiln_flag_space space, size_t *count) {
    switch (space) {
    case KILN_FLAGS_TOP:
        *count = sizeof top / sizeof *top;
        return top;
    case KILN_FLAGS_CODEGEN:
        *count = sizeof codegen / sizeof *codegen;
        return codegen;
    default:
        *count = sizeof unstable / sizeof *unstable;
        return unstable;
    }
}

static bool same_name(const char *flag, const char *name, size_t len, bool underscores) {
    if (strlen(flag) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (flag[i] != name[i] && !(underscores && flag[i] == '-' && name[i] == '_'))
            return false;
    return true;
}

const struct kiln_flag *kiln_flag_find(enum kiln_flag_space space, const char *name, size_t len) {
    size_t count;
    const struct kiln_flag *table = kiln_flag_table(space, &count);
    for (size_t i = 0; len && i < count; i++)
        if (same_name(table[i].name, name, len, space != KILN_FLAGS_TOP))
            return &table[i];
    return NULL;
}

const struct kiln_flag *kiln_flag_by_letter(char letter) {
    for (size_t i = 0; letter && i < sizeof top / sizeof *top; i++)
        if (top[i].letter == letter)
            return &top[i];
    return NULL;
}
