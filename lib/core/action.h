// The action: everything a compile sees, as one canonical record. Its digest is the key of the result.
//
// Encoding (frozen by golden vectors in schemas/canonical.md):
//   "kiln-action-1\0" field profile, 32 runtime, 32 rustc, 32 link (zeros when the job does not link), field package,
//   field crate_name, field cwd, field out_dir, be32 argc + fields, be32 env count + (u8 present, field name,
//   field value), be32 input count + (field mount, u8 form, 32 tree digest).
// env is in strictly ascending order of name, inputs of mount. An absent variable (present = 0) has an empty value: the
// key says that it was looked for and not there. Paths are the sandbox's (lib/rustc/paths.h).
// The action digest is SHA-256 of the encoding. Ownership: the struct owns everything in it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

#define KILN_ACTION_BYTES_MAX (240u << 10)
#define KILN_ACTION_ARGS_MAX 4096u
#define KILN_ACTION_ENV_MAX 1024u
#define KILN_ACTION_INPUTS_MAX 256u

// How the content of an input tree travels: PACK = tree and bytes in one object; LIST = the tree encoding alone, the
// files being blobs of their own (extern libraries, which the store has already).
enum kiln_input_form { KILN_INPUT_PACK = 1, KILN_INPUT_LIST = 2 };

struct kiln_action_env {
    char *name, *value; // value "" when absent
    bool present;
};

struct kiln_action_input {
    char *mount; // absolute path inside the sandbox
    enum kiln_input_form form;
    struct kiln_digest tree;
};

struct kiln_action {
    char *profile; // sandbox and observer: KILN_PROFILE (lib/core/profile.h)
    struct kiln_digest toolchain_runtime, toolchain_rustc, toolchain_link;
    char *package;    // NAME-VERSION, as in remap names
    char *crate_name;
    char *cwd;
    char *out_dir;
    char **argv; // argv[0] is the compiler's path in the sandbox; count in argc, no NULL needed
    size_t argc;
    struct kiln_action_env *env;
    size_t env_count;
    struct kiln_action_input *inputs;
    size_t inputs_count;
};

void kiln_action_release(struct kiln_action *action);
#define kiln_autoaction __attribute__((cleanup(kiln_action_release)))

// Adders copy. kiln_action_finish() sorts env and inputs, refuses duplicates and non-canonical paths.
int kiln_action_add_arg(struct kiln_action *action, const char *arg, struct kiln_err *err);
int kiln_action_add_env(struct kiln_action *action, const char *name, const char *value_or_null, struct kiln_err *err);
int kiln_action_add_input(struct kiln_action *action, const char *mount, enum kiln_input_form form,
                          const struct kiln_digest *tree, struct kiln_err *err);
int kiln_action_finish(struct kiln_action *action, struct kiln_err *err);

int kiln_action_encode(const struct kiln_action *action, struct kiln_buf *out, struct kiln_err *err);
int kiln_action_decode(const void *data, size_t len, struct kiln_action *action, struct kiln_err *err); // strict
int kiln_action_digest(const struct kiln_action *action, struct kiln_digest *digest, struct kiln_err *err);
// SHA-256 of the encoded list of inputs: what the action reads, without how.
int kiln_action_inputs_digest(const struct kiln_action *action, struct kiln_digest *digest, struct kiln_err *err);
// Seed of the job's random bytes: SHA-256 of "kiln-seed-1\0", rustc part, field package, field crate_name and the
// --crate-type / --test arguments as fields. Not of content: an edit must not reshuffle a macro's HashMap.
void kiln_action_seed(const struct kiln_action *action, struct kiln_digest *seed);
bool kiln_action_links(const struct kiln_action *action); // the link part is not zero
