// The one error convention of Kiln.
//
// A fallible function returns 0 or a negative KILN_E_* and, where it is given a struct kiln_err, fills it. On failure
// its other outputs are untouched. A caller that cannot handle the error adds context with kiln_wrap() and returns the
// same code; only programs (never lib/) print it. `err` may be NULL everywhere: then only the code is returned.
// Thread: a struct kiln_err belongs to one thread; the functions are re-entrant.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum kiln_code {
    KILN_OK = 0,
    KILN_E_INVAL = -1,       // malformed or refused input
    KILN_E_NOMEM = -2,       // memory exhausted
    KILN_E_IO = -3,          // a system call failed; sys_errno says how
    KILN_E_NOTFOUND = -4,    // the named thing does not exist
    KILN_E_EXISTS = -5,      // a create-only operation found something there
    KILN_E_LIMIT = -6,       // a declared limit was exceeded
    KILN_E_CORRUPT = -7,     // bytes do not match their digest, signature or format
    KILN_E_DENIED = -8,      // policy or permission refuses
    KILN_E_TIMEOUT = -9,     // a deadline passed
    KILN_E_CLOSED = -10,     // the other side has gone
    KILN_E_UNSUPPORTED = -11, // understood, but not something Kiln does (compile locally)
    KILN_E_INTERNAL = -12,   // a state that should not occur
};

struct kiln_err {
    int code;       // enum kiln_code
    int sys_errno;  // 0 when no system call is involved
    bool retriable; // the same call may succeed later
    bool fatal;     // the object that failed cannot be used any more
    char text[448]; // "context: what happened: strerror", always terminated, cut if longer
};

// Sets code and text; returns code.
int kiln_fail(struct kiln_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Like kiln_fail, for the current errno: appends its description and keeps it in sys_errno.
int kiln_fail_errno(struct kiln_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Prefixes "context: " to the text; returns `code` (the code of the failure being passed on).
int kiln_wrap(struct kiln_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// A short stable name: "invalid", "io", ...; for logs and metrics.
const char *kiln_code_name(int code);
