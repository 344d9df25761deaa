// Paths as text: canonical relative paths, and prefixes on component boundaries.
//
// A *canonical relative path* has no leading or trailing slash, no empty, "." or ".." component, no NUL, no byte below
// 0x20, at most KILN_PATH_MAX bytes, at most KILN_PATH_DEPTH_MAX components of at most 255 bytes. Everything that
// becomes a file name below a directory Kiln owns is one. Pure; re-entrant.
#pragma once

#include <stdbool.h>

#include "lib/base/err.h"

#define KILN_PATH_MAX 4095
#define KILN_PATH_DEPTH_MAX 128

// 0 when `path` is a canonical relative path; else KILN_E_INVAL and why.
int kiln_path_check_relative(const char *path, struct kiln_err *err);
// 0 when `path` is "/" + a canonical relative path (or "/" itself).
int kiln_path_check_absolute(const char *path, struct kiln_err *err);
// dir + "/" + name on the heap; `name` alone when it is absolute. NULL on exhausted memory.
char *kiln_path_join(const char *dir, const char *name);
// Removes "." and empty components and resolves ".." by text; absolute in, absolute out. NULL if it climbs above "/".
char *kiln_path_normalize(const char *absolute);
// The rest of `path` after `prefix` when prefix is `path` or an ancestor of it ("" or without leading slash); else NULL.
const char *kiln_path_beneath(const char *path, const char *prefix);
const char *kiln_path_base(const char *path); // after the last slash
char *kiln_path_dir(const char *path);        // before the last slash, on the heap; "/" or "." at the ends
