// Make-style dep-info as rustc writes it: rules, phony rules, "# env-dep:" and "# checksum:" lines; read, and written
// again for another caller. Hostile input: bounded, and strict: what kiln_depinfo_parse() takes is what
// kiln_depinfo_format() writes, byte for byte; anything else is KILN_E_CORRUPT. Pure; re-entrant.
//
// The form, as rustc 1.95 and nightly 1.97 write it (checked against both by tests/unit/test_rustc_depinfo.c):
//   per target:   TARGET ": " sources joined by one space, "\n\n"
//   per source:   SOURCE ":\n"
//   with env:     "\n", then per variable "# env-dep:" NAME ["=" VALUE] "\n"
//   then:         per source "# checksum:" ALGORITHM "=" HEX " file_len:" N " " SOURCE "\n" (an unstable option)
// A source has each space written as "\ " and no other escape, so a backslash may stand for itself; a target has none
// at all. A NAME or VALUE has "\n", "\r" and "\\". All targets have the same sources. A name that holds a line break
// cannot be read back and is refused. rustc's arguments and names are UTF-8; the bytes are not checked.
#pragma once

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/rustc/paths.h"

#define KILN_DEPINFO_BYTES_MAX (16u << 20)

struct kiln_depinfo_env {
    char *name;
    char *value; // NULL: looked up and not set
};

struct kiln_depinfo {
    char **targets; // of the first rules, in order: each has all prerequisites
    size_t targets_count;
    char **sources; // prerequisites, in order
    size_t sources_count;
    struct kiln_depinfo_env *env;
    size_t env_count;
    char **other; // other comment lines ("# checksum:..."), kept as they are
    size_t other_count;
};

// *info must be zeroed.
int kiln_depinfo_parse(const void *data, size_t len, struct kiln_depinfo *info, struct kiln_err *err);
void kiln_depinfo_release(struct kiln_depinfo *info);
#define kiln_autodepinfo __attribute__((cleanup(kiln_depinfo_release)))
// Byte for byte what rustc writes for these values; appends to *out.
int kiln_depinfo_format(const struct kiln_depinfo *info, struct kiln_buf *out, struct kiln_err *err);
// Targets below the sandbox's target place get `out_dir` (the caller's spelling) as their directory; sources (also those
// of checksum lines) and environment values are mapped back by `map`; relative names stay. KILN_E_CORRUPT when a sandbox
// name is left.
int kiln_depinfo_to_real(struct kiln_depinfo *info, const struct kiln_path_map *map, const char *out_dir,
                         struct kiln_err *err);
