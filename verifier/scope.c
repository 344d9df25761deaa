#include "verifier/scope.h"

#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/blob/toolchain_store.h"
#include "lib/rustc/paths.h"
#include "verifier/identity.h"

static int check_pack(const struct kiln_authority *authority, const char *registry, const struct kiln_action_input *input,
                      struct kiln_err *err) {
    const char *package = kiln_path_beneath(input->mount, registry);
    if (!package || !*package || strchr(package, '/'))
        return kiln_fail(err, KILN_E_DENIED, "scope: what lies at %.200s is no registry package", input->mount);
    if (!kiln_authority_is_public(authority, package, &input->tree))
        return kiln_fail(err, KILN_E_DENIED, "scope: %.200s is not on the list with that tree", package);
    return 0;
}

int kiln_scope_check(const struct kiln_authority *authority, const char *tenant, const char *claim,
                     const struct kiln_action *action, struct kiln_err *err) {
    if (strcmp(claim, tenant) == 0)
        return 0;
    if (strcmp(claim, KILN_SCOPE_PUBLIC) != 0)
        return kiln_fail(err, KILN_E_DENIED, "scope: %s is neither the tenant's own nor public", claim);
    kiln_autofree char *registry = kiln_place(KILN_PLACE_REGISTRY, NULL);
    if (!registry)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a place");
    size_t packs = 0;
    for (size_t i = 0; i < action->inputs_count; i++) {
        if (action->inputs[i].form == KILN_INPUT_LIST)
            continue;
        int rc = check_pack(authority, registry, &action->inputs[i], err);
        if (rc)
            return rc;
        packs++;
    }
    return packs ? 0 : kiln_fail(err, KILN_E_DENIED, "scope: a job without a package is not public");
}

static int check_part(struct kiln_store *store, const struct kiln_digest *part, const char *name, struct kiln_err *err) {
    return kiln_toolchain_is_published(store, part)
               ? 0
               : kiln_fail(err, KILN_E_DENIED, "scope: the %s part of the toolchain is not published", name);
}

int kiln_scope_check_toolchain(struct kiln_store *store, const struct kiln_action *action, struct kiln_err *err) {
    int rc = check_part(store, &action->toolchain_runtime, "runtime", err);
    if (!rc)
        rc = check_part(store, &action->toolchain_rustc, "rustc", err);
    return !rc && kiln_action_links(action) ? check_part(store, &action->toolchain_link, "link", err) : rc;
}
