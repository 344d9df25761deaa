#include "ops/admin/commands.h"

static const struct kiln_cli_command *const commands[] = {
    &kiln_admin_trust_show,  &kiln_admin_trust_enrol, &kiln_admin_trust_rotate, &kiln_admin_trust_revoke,
    &kiln_admin_trust_renew, &kiln_admin_trust_sign,  &kiln_admin_trust_push,   NULL,
};

const struct kiln_cli_command kiln_admin_trust = {
    .name = "trust",
    .help = "Look at the trust record and change it: who is who, the generation, what is revoked.",
    .details = "Each change makes a new version, signed by the roots. Where the roots' keys are not together in one place, --out "
               "writes the record to a file, `trust sign` adds signatures to it elsewhere and `trust push` puts it into the vault.",
    .commands = commands,
};
