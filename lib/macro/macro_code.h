// Looks for system-call instructions in a shared object's code.
//
// The bytes of one (0f 05, 0f 34, cd 80) stand in any object's constants and displacements. So where they stand in
// code, the function around them is disassembled from its start, which .eh_frame names, and only an instruction counts.
#pragma once

#include "lib/base/err.h"
#include "lib/macro/elf_object.h"

enum kiln_macro_code {
    KILN_CODE_CLEAN = 0,
    KILN_CODE_CALLS = 1,   // an instruction that enters the kernel
    KILN_CODE_UNCLEAR = 2, // the bytes stand where no disassembly leads
};

int kiln_macro_code_search(const struct kiln_elf_object *object, enum kiln_macro_code *found, struct kiln_err *err);
