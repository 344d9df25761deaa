#include "ops/admin/revoked.h"

#include <string.h>

static const char *const names[] = {
    [KILN_REVOKED_KEY] = "key",       [KILN_REVOKED_EXECUTOR] = "executor",   [KILN_REVOKED_TOOLCHAIN] = "toolchain",
    [KILN_REVOKED_ACTION] = "action", [KILN_REVOKED_PRINCIPAL] = "principal",
};

int kiln_revoked_parse(const char *word, enum kiln_revoked *kind, struct kiln_err *err) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i] && !strcmp(names[i], word)) {
            *kind = (enum kiln_revoked)i;
            return 0;
        }
    }
    return kiln_fail(err, KILN_E_INVAL, "\"%.64s\" is none of key, executor, toolchain, action, principal", word);
}

const char *kiln_revoked_name(enum kiln_revoked kind) {
    return (size_t)kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "unknown";
}
