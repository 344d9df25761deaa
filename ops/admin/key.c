#include "ops/admin/commands.h"
#include "ops/admin/root_keys.h"

static int run_new(const struct kiln_cli_call *call) {
    if (call->operands_count != 1)
        return kiln_admin_usage(call, "one FILE is needed");
    struct kiln_sign_key *key;
    struct kiln_err err;
    if (kiln_key_file_open(call->operands[0], KILN_KEY_MUST_BE_NEW, &key, &err))
        return kiln_admin_failed(call, &err);
    struct kiln_digest public_key;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_sign_key_public(key, public_key.bytes);
    kiln_sign_key_free(key);
    kiln_digest_format(&public_key, hex);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(256);
    kiln_buf_addf(&out, "%s\n", hex);
    return kiln_admin_print(&out);
}

static const struct kiln_cli_command new_key = {
    .name = "new",
    .operands = "FILE",
    .operands_max = 1,
    .help = "Make a key: the private half in FILE, the public half in FILE.pub and printed.",
    .details = "Each principal has one for its records, each verifier one more for results, each root one. A file that is there "
               "already is left alone.",
    .run = run_new,
};

static const struct kiln_cli_command *const commands[] = {&new_key, NULL};

const struct kiln_cli_command kiln_admin_key = {
    .name = "key",
    .help = "Make keys.",
    .commands = commands,
};
