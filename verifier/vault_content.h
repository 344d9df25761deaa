// The vault's content: from quarantine to where it is kept, and back for a look. Used by vault.c only.
#pragma once

#include "verifier/vault.h"

// Keeps the outputs of a result whose pointer will be put next, and fills its bundle. pair->content_key (heap) is NULL afterwards when
// there is no bundle, else the pointer is the pair's. KILN_E_CORRUPT: an output is not there, or not what was said of it.
int kiln_vault_take(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result,
                    const struct kiln_vault_source *source, struct kiln_store_pair *pair, struct kiln_err *err);
// Reads all content of a result. KILN_E_CORRUPT: some is missing or not what it was. *bundle is -1, or the bundle's bytes.
int kiln_vault_read(const struct kiln_vault *vault, const struct kiln_result *result, int *bundle, struct kiln_err *err);
// Keeps a bundle as long as that of a fresh result, under the pin that the result then has.
int kiln_vault_keep_bundle(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result, int bundle,
                           struct kiln_err *err);
