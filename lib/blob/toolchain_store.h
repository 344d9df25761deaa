// Published toolchains: each part (producer/agent/toolchain.h) as one pack in the vault, named by the digest of its tree.
//
// An operator keeps them; an executor that does not have a part fetches it into its own directory in the layout that the
// embedded default's agent stages (DIR/HEX/{tree,root}, files 0444 and 0555). The name is the check: tree digest, then each
// file's digest while it is unpacked. A verifier gives `public` scope only to actions whose parts are published.
// Thread: re-entrant.
#pragma once

#include "lib/blob/store.h"

// "toolchain/HEX"; heap.
char *kiln_key_toolchain(const struct kiln_digest *part);
bool kiln_toolchain_is_published(struct kiln_store *store, const struct kiln_digest *part);
// Publishes the part that is staged at STAGE_DIR/HEX; there already is success.
int kiln_toolchain_publish(struct kiln_store *store, int stage_dir, const struct kiln_digest *part, struct kiln_err *err);
// Fetches the part to STAGE_DIR/HEX, in one step. KILN_E_NOTFOUND: it is not published. KILN_E_CORRUPT: the bytes are others.
int kiln_toolchain_fetch(struct kiln_store *store, int stage_dir, const struct kiln_digest *part, struct kiln_err *err);
