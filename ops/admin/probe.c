#include "ops/admin/commands.h"
#include "ops/admin/storage.h"

static const struct kiln_cli_option options[] = {
    {"config", "FILE", "A kiln.conf with a storage key that may write the vault (default /etc/kiln/kiln.conf)."},
};

static int probe(const struct kiln_cli_call *call, struct kiln_err *err) {
    kiln_autosettings struct kiln_admin_settings settings = {.conf = NULL};
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    struct kiln_s3_options connection;
    int rc = kiln_admin_settings_load(call, &settings, err);
    if (!rc)
        rc = kiln_storage_open(&settings, &storage, err);
    if (rc)
        return rc;
    kiln_storage_options(&settings, &storage, &connection);
    return kiln_s3_probe(&connection, err);
}

static int run(const struct kiln_cli_call *call) {
    struct kiln_err err;
    if (probe(call, &err))
        return kiln_admin_failed(call, &err);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(256);
    kiln_buf_add_str(&out, "the storage honours all that a verifier relies on\n");
    return kiln_admin_print(&out);
}

const struct kiln_cli_command kiln_admin_probe = {
    .name = "probe",
    .help = "Try what a verifier relies on: create-only writes, versions, locks, checked digests.",
    .details = "Leaves some small locked objects in the vault.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
