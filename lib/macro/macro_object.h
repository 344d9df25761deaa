// Does a proc-macro object hold code that the preloaded observer cannot see?
//
// Raw system-call instructions (syscall, sysenter, int 0x80) in executable code, found by disassembly of the function
// that holds the bytes, not by the bytes alone; or an import of `environ` / `__environ`, which reads variables without
// getenv. The file is hostile: ELF parsed with bounds; what cannot be understood is KILN_MACRO_UNKNOWN (compile locally).
// Pure over the file's bytes; memoise by digest.
#pragma once

#include "lib/base/err.h"

enum kiln_macro_verdict {
    KILN_MACRO_SEEN = 0,     // all it does goes through libc
    KILN_MACRO_SYSCALL = 1,
    KILN_MACRO_ENVIRON = 2,
    KILN_MACRO_UNKNOWN = 3,
};

int kiln_macro_object_check(int fd, enum kiln_macro_verdict *verdict, struct kiln_err *err);
const char *kiln_macro_verdict_name(enum kiln_macro_verdict verdict);
