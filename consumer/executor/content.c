#include "consumer/executor/content.h"

#include "lib/base/cleanup.h"

static const struct {
    const char *name;
    enum kiln_space first, second;
} kinds[] = {
    [KILN_CONTENT_BLOB] = {"blob", KILN_SPACE_VAULT, KILN_SPACE_INPUTS},
    [KILN_CONTENT_PACK] = {"pack", KILN_SPACE_INPUTS, KILN_SPACE_VAULT},
    [KILN_CONTENT_LIST] = {"list", KILN_SPACE_INPUTS, KILN_SPACE_VAULT},
};

int kiln_content_open(struct kiln_store *store, enum kiln_content_kind kind, const char *scope,
                      const struct kiln_digest *digest, int *fd, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content(kinds[kind].name, scope, digest);
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "content key");
    if (kiln_store_open_unchecked(store, kinds[kind].first, key, fd, NULL) == 0)
        return 0;
    return kiln_store_open_unchecked(store, kinds[kind].second, key, fd, err);
}
