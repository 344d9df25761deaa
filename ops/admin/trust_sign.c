// kiln-admin trust sign, push: a record in a file gets further signatures, then goes to the vault.
#include <fcntl.h>

#include "lib/base/fs.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/root_keys.h"

#define ENVELOPE_BYTES_MAX (KILN_TRUST_BYTES_MAX + 4096)

static const struct kiln_cli_option sign_options[] = {
    {"config", "FILE", "A kiln.conf that names the fleet's roots (default /etc/kiln/kiln.conf)."},
    {"roots", "FILE,FILE", "Key files of the roots that sign here."},
};
static const struct kiln_cli_option push_options[] = {
    {"config", "FILE", "The operator's kiln.conf (default /etc/kiln/kiln.conf)."},
};

static int read_envelope(const char *file, const struct kiln_admin_settings *settings, size_t threshold, struct kiln_buf *envelope,
                         struct kiln_trust_record *record, struct kiln_err *err) {
    int rc = kiln_fs_read_file(AT_FDCWD, file, envelope, err);
    if (!rc)
        rc = kiln_trust_record_open(envelope->data, envelope->len, settings->roots.keys, settings->roots.count, threshold, record, err);
    return rc ? kiln_wrap(err, rc, "%s", file) : 0;
}

static int sign(const struct kiln_cli_call *call, struct kiln_err *err) {
    kiln_autosettings struct kiln_admin_settings settings = {.conf = NULL};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    kiln_autoroot_keys struct kiln_root_keys keys = {.count = 0};
    const char *file = call->operands[0];
    int rc = kiln_admin_settings_load(call, &settings, err);
    if (!rc)
        rc = read_envelope(file, &settings, 1, &envelope, &record, err);
    if (!rc)
        rc = kiln_root_keys_load(kiln_cli_text(call, "roots"), &keys, err);
    if (!rc)
        rc = kiln_trust_record_sign(&record, (const struct kiln_sign_key *const *)keys.keys, keys.count, &envelope, err);
    return rc ? rc : kiln_fs_write_file(AT_FDCWD, file, envelope.data, envelope.len, 0644, err);
}

static int push(const struct kiln_cli_call *call, struct kiln_err *err) {
    kiln_autosettings struct kiln_admin_settings settings = {.conf = NULL};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    int rc = kiln_admin_settings_load(call, &settings, err);
    if (!rc)
        rc = read_envelope(call->operands[0], &settings, settings.roots.threshold, &envelope, &record, err);
    return rc ? rc : kiln_draft_push(&settings, &record, &envelope, err);
}

static int run_sign(const struct kiln_cli_call *call) {
    struct kiln_err err;
    if (call->operands_count != 1 || !kiln_cli_text(call, "roots"))
        return kiln_admin_usage(call, "FILE and --roots are needed");
    return sign(call, &err) ? kiln_admin_failed(call, &err) : KILN_EXIT_OK;
}

static int run_push(const struct kiln_cli_call *call) {
    struct kiln_err err;
    if (call->operands_count != 1)
        return kiln_admin_usage(call, "one FILE is needed");
    return push(call, &err) ? kiln_admin_failed(call, &err) : KILN_EXIT_OK;
}

const struct kiln_cli_command kiln_admin_trust_sign = {
    .name = "sign",
    .operands = "FILE",
    .operands_max = 1,
    .help = "Add signatures of roots to a record in a file; its first signature is by another root of the fleet.",
    .details = "Nothing else is needed here than the file, a kiln.conf with the roots' public keys, and a private key.",
    .options = sign_options,
    .options_count = sizeof sign_options / sizeof *sign_options,
    .run = run_sign,
};

const struct kiln_cli_command kiln_admin_trust_push = {
    .name = "push",
    .operands = "FILE",
    .operands_max = 1,
    .help = "Put a record that enough roots have signed into the vault.",
    .options = push_options,
    .options_count = sizeof push_options / sizeof *push_options,
    .run = run_push,
};
