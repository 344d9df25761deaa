#include "lib/core/action.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/core/list.h"

static const char magic[] = "kiln-action-1"; // with its NUL

static void release_env(struct kiln_action_env *env) {
    free(env->name);
    free(env->value);
}

void kiln_action_release(struct kiln_action *action) {
    free(action->profile);
    free(action->package);
    free(action->crate_name);
    free(action->cwd);
    free(action->out_dir);
    for (size_t i = 0; i < action->argc; i++)
        free(action->argv[i]);
    free(action->argv);
    for (size_t i = 0; i < action->env_count; i++)
        release_env(&action->env[i]);
    free(action->env);
    for (size_t i = 0; i < action->inputs_count; i++)
        free(action->inputs[i].mount);
    free(action->inputs);
    *action = (struct kiln_action){0};
}

static int no_room(struct kiln_err *err, size_t count, size_t max, const char *what) {
    if (count >= max)
        return kiln_fail(err, KILN_E_LIMIT, "an action has at most %zu %s", max, what);
    return kiln_fail(err, KILN_E_NOMEM, "no memory for %s", what);
}

int kiln_action_add_arg(struct kiln_action *action, const char *arg, struct kiln_err *err) {
    char **argv = action->argc < KILN_ACTION_ARGS_MAX
                      ? kiln_list_grow(action->argv, action->argc, sizeof *action->argv)
                      : NULL;
    if (!argv)
        return no_room(err, action->argc, KILN_ACTION_ARGS_MAX, "arguments");
    action->argv = argv;
    char *copy = strdup(arg);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an argument");
    action->argv[action->argc++] = copy;
    return 0;
}

int kiln_action_add_env(struct kiln_action *action, const char *name, const char *value_or_null, struct kiln_err *err) {
    struct kiln_action_env *list = action->env_count < KILN_ACTION_ENV_MAX
                                       ? kiln_list_grow(action->env, action->env_count, sizeof *list)
                                       : NULL;
    if (!list)
        return no_room(err, action->env_count, KILN_ACTION_ENV_MAX, "variables");
    action->env = list;
    struct kiln_action_env env = {
        .name = strdup(name), .value = strdup(value_or_null ? value_or_null : ""), .present = value_or_null != NULL};
    if (!env.name || !env.value) {
        release_env(&env);
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a variable");
    }
    action->env[action->env_count++] = env;
    return 0;
}

int kiln_action_add_input(struct kiln_action *action, const char *mount, enum kiln_input_form form,
                          const struct kiln_digest *tree, struct kiln_err *err) {
    struct kiln_action_input *list = action->inputs_count < KILN_ACTION_INPUTS_MAX
                                         ? kiln_list_grow(action->inputs, action->inputs_count, sizeof *list)
                                         : NULL;
    if (!list)
        return no_room(err, action->inputs_count, KILN_ACTION_INPUTS_MAX, "inputs");
    action->inputs = list;
    struct kiln_action_input input = {.mount = strdup(mount), .form = form, .tree = *tree};
    if (!input.mount)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an input");
    action->inputs[action->inputs_count++] = input;
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct kiln_action_env *)a)->name, ((const struct kiln_action_env *)b)->name);
}

static int by_mount(const void *a, const void *b) {
    return strcmp(((const struct kiln_action_input *)a)->mount, ((const struct kiln_action_input *)b)->mount);
}

static int check_text(const char *text, const char *what, struct kiln_err *err) {
    if (!text || !*text)
        return kiln_fail(err, KILN_E_INVAL, "an action without %s", what);
    return 0;
}

static int check_place(const char *path, const char *what, struct kiln_err *err) {
    int rc = check_text(path, what, err);
    if (rc)
        return rc;
    rc = kiln_path_check_absolute(path, err);
    return rc ? kiln_wrap(err, KILN_E_INVAL, "the %s of an action", what) : 0;
}

static int check_head(const struct kiln_action *action, struct kiln_err *err) {
    int rc = check_text(action->profile, "profile", err);
    if (!rc)
        rc = check_text(action->package, "package", err);
    if (!rc)
        rc = check_text(action->crate_name, "crate name", err);
    if (!rc)
        rc = check_place(action->cwd, "working directory", err);
    if (!rc)
        rc = check_place(action->out_dir, "output directory", err);
    if (!rc && action->argc == 0)
        rc = kiln_fail(err, KILN_E_INVAL, "an action without arguments");
    return rc;
}

static int check_env(const struct kiln_action *action, struct kiln_err *err) {
    for (size_t i = 0; i < action->env_count; i++) {
        const struct kiln_action_env *env = &action->env[i];
        if (!*env->name || strchr(env->name, '='))
            return kiln_fail(err, KILN_E_INVAL, "\"%s\" is no name of a variable", env->name);
        if (!env->present && *env->value)
            return kiln_fail(err, KILN_E_INVAL, "absent variable %s has a value", env->name);
        if (i > 0 && by_name(env - 1, env) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "variable %s is there twice or out of order", env->name);
    }
    return 0;
}

static int check_inputs(const struct kiln_action *action, struct kiln_err *err) {
    for (size_t i = 0; i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        int rc = kiln_path_check_absolute(input->mount, err);
        if (rc)
            return kiln_wrap(err, rc, "an input's mount");
        if (strcmp(input->mount, "/") == 0)
            return kiln_fail(err, KILN_E_INVAL, "an input cannot be mounted on /");
        if (input->form != KILN_INPUT_PACK && input->form != KILN_INPUT_LIST)
            return kiln_fail(err, KILN_E_INVAL, "input %s has an unknown form", input->mount);
        if (i > 0 && by_mount(input - 1, input) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "input %s is there twice or out of order", input->mount);
    }
    return 0;
}

static int check(const struct kiln_action *action, struct kiln_err *err) {
    int rc = check_head(action, err);
    if (!rc)
        rc = check_env(action, err);
    return rc ? rc : check_inputs(action, err);
}

int kiln_action_finish(struct kiln_action *action, struct kiln_err *err) {
    if (action->env_count)
        qsort(action->env, action->env_count, sizeof *action->env, by_name);
    if (action->inputs_count)
        qsort(action->inputs, action->inputs_count, sizeof *action->inputs, by_mount);
    return check(action, err);
}

static void encode_inputs(const struct kiln_action *action, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)action->inputs_count);
    for (size_t i = 0; i < action->inputs_count; i++) {
        kiln_buf_add_field_str(out, action->inputs[i].mount);
        kiln_buf_add_u8(out, (uint8_t)action->inputs[i].form);
        kiln_buf_add_digest(out, &action->inputs[i].tree);
    }
}

static void encode_lists(const struct kiln_action *action, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)action->argc);
    for (size_t i = 0; i < action->argc; i++)
        kiln_buf_add_field_str(out, action->argv[i]);
    kiln_buf_add_be32(out, (uint32_t)action->env_count);
    for (size_t i = 0; i < action->env_count; i++) {
        kiln_buf_add_u8(out, action->env[i].present);
        kiln_buf_add_field_str(out, action->env[i].name);
        kiln_buf_add_field_str(out, action->env[i].value);
    }
    encode_inputs(action, out);
}

int kiln_action_encode(const struct kiln_action *action, struct kiln_buf *out, struct kiln_err *err) {
    int rc = check(action, err);
    if (rc)
        return rc;
    size_t start = out->len;
    kiln_buf_add(out, magic, sizeof magic);
    kiln_buf_add_field_str(out, action->profile);
    kiln_buf_add_digest(out, &action->toolchain_runtime);
    kiln_buf_add_digest(out, &action->toolchain_rustc);
    kiln_buf_add_digest(out, &action->toolchain_link);
    kiln_buf_add_field_str(out, action->package);
    kiln_buf_add_field_str(out, action->crate_name);
    kiln_buf_add_field_str(out, action->cwd);
    kiln_buf_add_field_str(out, action->out_dir);
    encode_lists(action, out);
    rc = kiln_buf_check(out, "an action", err);
    if (!rc && out->len - start > KILN_ACTION_BYTES_MAX)
        rc = kiln_fail(err, KILN_E_LIMIT, "an action is larger than %u bytes", KILN_ACTION_BYTES_MAX);
    return rc;
}

static void decode_lists(struct kiln_reader *reader, struct kiln_action *action) {
    action->argv = kiln_list_read(reader, KILN_ACTION_ARGS_MAX, 4, sizeof *action->argv, &action->argc);
    for (size_t i = 0; i < action->argc && !reader->failed; i++)
        action->argv[i] = kiln_read_field_text(reader, KILN_ACTION_BYTES_MAX);
    action->env = kiln_list_read(reader, KILN_ACTION_ENV_MAX, 9, sizeof *action->env, &action->env_count);
    for (size_t i = 0; i < action->env_count && !reader->failed; i++) {
        uint8_t present = kiln_read_u8(reader);
        action->env[i].present = present;
        action->env[i].name = kiln_read_field_text(reader, KILN_ACTION_BYTES_MAX);
        action->env[i].value = kiln_read_field_text(reader, KILN_ACTION_BYTES_MAX);
        if (present > 1)
            reader->failed = true;
    }
    action->inputs = kiln_list_read(reader, KILN_ACTION_INPUTS_MAX, 37, sizeof *action->inputs, &action->inputs_count);
    for (size_t i = 0; i < action->inputs_count && !reader->failed; i++) {
        action->inputs[i].mount = kiln_read_field_text(reader, KILN_PATH_MAX);
        action->inputs[i].form = kiln_read_u8(reader);
        kiln_read_digest(reader, &action->inputs[i].tree);
    }
}

int kiln_action_decode(const void *data, size_t len, struct kiln_action *action, struct kiln_err *err) {
    if (len > KILN_ACTION_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "an action is larger than %u bytes", KILN_ACTION_BYTES_MAX);
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof magic);
    if (!head || memcmp(head, magic, sizeof magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not an action");
    kiln_autoaction struct kiln_action decoded = {0};
    decoded.profile = kiln_read_field_text(&reader, KILN_ACTION_BYTES_MAX);
    kiln_read_digest(&reader, &decoded.toolchain_runtime);
    kiln_read_digest(&reader, &decoded.toolchain_rustc);
    kiln_read_digest(&reader, &decoded.toolchain_link);
    decoded.package = kiln_read_field_text(&reader, KILN_ACTION_BYTES_MAX);
    decoded.crate_name = kiln_read_field_text(&reader, KILN_ACTION_BYTES_MAX);
    decoded.cwd = kiln_read_field_text(&reader, KILN_PATH_MAX);
    decoded.out_dir = kiln_read_field_text(&reader, KILN_PATH_MAX);
    decode_lists(&reader, &decoded);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "an action is malformed near byte %zu", reader.at);
    if (check(&decoded, err))
        return kiln_wrap(err, KILN_E_CORRUPT, "an action");
    *action = decoded;
    decoded = (struct kiln_action){0};
    return 0;
}

int kiln_action_digest(const struct kiln_action *action, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    int rc = kiln_action_encode(action, &encoding, err);
    if (!rc)
        kiln_digest_of(encoding.data, encoding.len, digest);
    return rc;
}

int kiln_action_inputs_digest(const struct kiln_action *action, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    encode_inputs(action, &encoding);
    int rc = kiln_buf_check(&encoding, "the inputs of an action", err);
    if (!rc)
        kiln_digest_of(encoding.data, encoding.len, digest);
    return rc;
}

static void add_type(struct kiln_buf *out, const char *type) {
    static const char flag[] = "--crate-type=";
    kiln_buf_add_be32(out, (uint32_t)(sizeof flag - 1 + strlen(type)));
    kiln_buf_add_str(out, flag);
    kiln_buf_add_str(out, type);
}

void kiln_action_seed(const struct kiln_action *action, struct kiln_digest *seed) {
    static const char seed_magic[] = "kiln-seed-1";
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(2 * KILN_ACTION_BYTES_MAX);
    kiln_buf_add(&text, seed_magic, sizeof seed_magic);
    kiln_buf_add_digest(&text, &action->toolchain_rustc);
    kiln_buf_add_field_str(&text, action->package);
    kiln_buf_add_field_str(&text, action->crate_name);
    for (size_t i = 0; i < action->argc; i++) {
        const char *arg = action->argv[i];
        if (strcmp(arg, "--test") == 0)
            kiln_buf_add_field_str(&text, arg);
        else if (strncmp(arg, "--crate-type=", 13) == 0)
            add_type(&text, arg + 13);
        else if (strcmp(arg, "--crate-type") == 0 && i + 1 < action->argc)
            add_type(&text, action->argv[++i]);
    }
    kiln_digest_of(text.data, text.len, seed);
}

bool kiln_action_links(const struct kiln_action *action) { return !kiln_digest_is_zero(&action->toolchain_link); }
