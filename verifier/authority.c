#include "verifier/authority.h"

int kiln_authority_valid(const struct kiln_authority *authority, struct kiln_err *err) {
    if (!authority->keeper)
        return 0;
    int rc = kiln_keeper_valid(authority->keeper, err);
    if (!rc && authority->key && !kiln_keeper_signs(authority->keeper, authority->principal, authority->key))
        rc = kiln_fail(err, KILN_E_DENIED, "trust_signer: the trust record lets %s sign nothing with its key", authority->principal);
    return rc;
}

int kiln_authority_may_make(const struct kiln_authority *authority, const struct kiln_digest *digest,
                            const struct kiln_action *action, struct kiln_err *err) {
    return authority->keeper ? kiln_keeper_may_make(authority->keeper, digest, action, err) : 0;
}

uint64_t kiln_authority_generation(const struct kiln_authority *authority) {
    return authority->keeper ? kiln_keeper_generation(authority->keeper) : KILN_GENERATION_EMBEDDED;
}

bool kiln_authority_knows(const struct kiln_authority *authority, const char *principal) {
    struct kiln_principal found;
    return !authority->keeper || kiln_keeper_find(authority->keeper, principal, &found);
}

bool kiln_authority_is_public(const struct kiln_authority *authority, const char *package,
                              const struct kiln_digest *tree) {
    return authority->keeper && kiln_keeper_is_public(authority->keeper, package, tree);
}
