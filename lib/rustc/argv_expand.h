// Expansion of @file arguments: each line is one argument, no quoting, and an @ inside a file means nothing. rustc does
// this before it looks at any flag, so the value of a flag can be an @file too. Private to lib/rustc/argv*.c.
#pragma once

#include "lib/rustc/argv.h"

#define KILN_ARGV_BYTES_MAX (1u << 20)

struct kiln_expanded {
    char **args;
    size_t count, bytes;
    char *refused; // why Kiln cannot read the line ("argument_file: x"); then args are incomplete
};

void kiln_expanded_release(struct kiln_expanded *expanded);
int kiln_argv_expand(size_t argc, char *const *argv, const struct kiln_argv_options *options,
                     struct kiln_expanded *expanded, struct kiln_err *err);
