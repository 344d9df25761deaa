#include "lib/rustc/argv_target.h"

#include <stddef.h>
#include <string.h>

static const struct kiln_target_names elf = {"", "lib", ".so", .dll_optional = false, .has_dwp = true};
static const struct kiln_target_names elf_static = {"", "lib", ".so", .dll_optional = true, .has_dwp = true};
static const struct kiln_target_names wasm = {".wasm", "", ".wasm", .dll_optional = false, .has_dwp = false};

static bool is_wasm(const char *target) {
    static const char *const targets[] = {
        "wasm32-unknown-unknown", "wasm32-wasip1", "wasm32-wasip1-threads", "wasm32-wasip2", "wasm32-wasi",
        "wasm32v1-none",          "wasm64-unknown-unknown",
    };
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(target, targets[i]) == 0)
            return true;
    return false;
}

// ARCH-VENDOR-linux-ENV or ARCH-linux-android*: all the same but for the C library that is linked in.
static const struct kiln_target_names *linux_names(const char *target) {
    static const struct {
        const char *env;
        const struct kiln_target_names *names;
    } envs[] = {{"gnu", &elf}, {"musl", &elf_static}, {"uclibc", &elf}, {"ohos", &elf}, {"android", &elf}};
    const char *os = strstr(target, "-linux-");
    if (!os || strncmp(target, "wasm", 4) == 0 || strstr(target, "-unikraft-"))
        return NULL;
    for (size_t i = 0; i < sizeof envs / sizeof *envs; i++)
        if (strncmp(os + 7, envs[i].env, strlen(envs[i].env)) == 0)
            return envs[i].names;
    return NULL;
}

const struct kiln_target_names *kiln_target_names(const char *target) {
    if (!target)
        return &elf;
    return is_wasm(target) ? &wasm : linux_names(target);
}
