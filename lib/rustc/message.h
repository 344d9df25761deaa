// What rustc prints: JSON lines (diagnostics, artifact notifications, future-incompat) or plain text, mapped from the
// sandbox's names to the caller's. Lines keep their order and bytes except for the names. Pure; re-entrant.
#pragma once

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/rustc/paths.h"

#define KILN_MESSAGE_BYTES_MAX (32u << 20)

// Maps all of a run's stderr (or stdout), appending to *out, whose maximum bounds it. An artifact line
// ({"$message_type":"artifact","artifact":"<path>",...}) whose path is a file directly in the sandbox's target place gets
// `out_dir` exactly as the caller spelled it (kiln_out_dir_join). A line that starts with '{' is mapped with JSON
// escaping. *residue: a sandbox or foreign /kiln/ name is left: do not replay; never cleared.
// KILN_E_LIMIT for more than KILN_MESSAGE_BYTES_MAX.
int kiln_message_to_real(const void *data, size_t len, const struct kiln_path_map *map, const char *out_dir,
                         struct kiln_buf *out, bool *residue, struct kiln_err *err);
