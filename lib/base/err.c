#include "lib/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_text(struct kiln_err *err, const char *fmt, va_list args) {
    vsnprintf(err->text, sizeof err->text, fmt, args);
}

int kiln_fail(struct kiln_err *err, int code, const char *fmt, ...) {
    if (!err)
        return code;
    *err = (struct kiln_err){.code = code};
    va_list args;
    va_start(args, fmt);
    set_text(err, fmt, args);
    va_end(args);
    return code;
}

int kiln_fail_errno(struct kiln_err *err, int code, const char *fmt, ...) {
    int saved = errno;
    if (!err)
        return code;
    *err = (struct kiln_err){.code = code, .sys_errno = saved};
    va_list args;
    va_start(args, fmt);
    set_text(err, fmt, args);
    va_end(args);
    size_t used = strlen(err->text);
    char reason[128];
    snprintf(err->text + used, sizeof err->text - used, ": %s", strerror_r(saved, reason, sizeof reason));
    errno = saved;
    return code;
}

int kiln_wrap(struct kiln_err *err, int code, const char *fmt, ...) {
    if (!err)
        return code;
    char inner[sizeof err->text];
    memcpy(inner, err->text, sizeof inner);
    va_list args;
    va_start(args, fmt);
    set_text(err, fmt, args);
    va_end(args);
    size_t used = strlen(err->text);
    if (used + 2 < sizeof err->text) {
        int room = (int)(sizeof err->text - used);
        snprintf(err->text + used, (size_t)room, ": %.*s", room > 3 ? room - 3 : 0, inner);
    }
    err->code = code;
    return code;
}

const char *kiln_code_name(int code) {
    static const char *const names[] = {"ok",      "invalid", "no_memory", "io",     "not_found",   "exists",  "limit",
                                        "corrupt", "denied",  "timeout",   "closed", "unsupported", "internal"};
    size_t index = (size_t)-code;
    return code <= 0 && index < sizeof names / sizeof *names ? names[index] : "unknown";
}
