#include "verifier/vault.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

static int no_key(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "no memory for a key"); }

static int check_content(const struct kiln_vault *vault, const struct kiln_output *output, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("blob", vault->scope, &output->digest);
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = key ? kiln_store_get_fd(vault->store, KILN_SPACE_VAULT, key, &output->digest, &fd, &size, err) : no_key(err);
    if (rc == KILN_E_NOTFOUND || (!rc && size != output->size))
        rc = kiln_fail(err, KILN_E_CORRUPT, "content of \"%s\" is missing", output->name);
    return rc;
}

static int check_envelope(const struct kiln_vault *vault, const struct kiln_digest *action,
                          const struct kiln_buf *envelope, struct kiln_result *result, struct kiln_err *err) {
    kiln_autoresult struct kiln_result opened = {0};
    int rc = kiln_result_open(envelope->data, envelope->len, vault->trust, action, &opened, err);
    if (rc)
        return rc;
    if (strcmp(opened.scope, vault->scope) != 0 || opened.generation != vault->generation)
        return kiln_fail(err, KILN_E_CORRUPT, "a result of another scope or generation");
    for (size_t i = 0; !rc && i < opened.outputs_count; i++)
        rc = check_content(vault, &opened.outputs[i], err);
    if (rc || !result)
        return rc;
    *result = opened;
    opened = (struct kiln_result){0};
    return 0;
}

int kiln_vault_find(const struct kiln_vault *vault, const struct kiln_digest *action, struct kiln_buf *envelope,
                    struct kiln_result *result, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_result(vault->scope, vault->generation, action);
    kiln_autobuf struct kiln_buf found = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX + 4096);
    int rc = key ? kiln_store_get_bytes(vault->store, KILN_SPACE_VAULT, key, &found, err) : no_key(err);
    if (rc == KILN_E_LIMIT)
        rc = kiln_fail(err, KILN_E_CORRUPT, "a stored result is too large");
    if (!rc)
        rc = check_envelope(vault, action, &found, result, err);
    if (!rc && kiln_buf_add(envelope, found.data, found.len))
        rc = kiln_buf_check(envelope, "a stored result", err);
    return rc;
}

int kiln_vault_take(const struct kiln_vault *vault, const char *quarantine_key, const struct kiln_output *output,
                    struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("blob", vault->scope, &output->digest);
    kiln_autofd int fd = -1;
    int rc = key ? kiln_store_open_unchecked(vault->store, KILN_SPACE_QUARANTINE, quarantine_key, &fd, err) : no_key(err);
    if (rc == KILN_E_NOTFOUND)
        return kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" was not uploaded", output->name);
    struct stat st;
    if (!rc && fstat(fd, &st))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot stat output \"%s\"", output->name);
    if (!rc && (uint64_t)st.st_size != output->size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" has another size", output->name);
    if (!rc)
        rc = kiln_store_put_fd(vault->store, KILN_SPACE_VAULT, key, fd, output->size, &output->digest, err);
    if (rc == KILN_E_LIMIT)
        rc = kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" grew", output->name);
    return rc;
}

// The same outcome: what a client would get is equal. Who ran it and when is not.
static bool is_equal(const struct kiln_result *a, const struct kiln_result *b) {
    if (a->outcome != b->outcome || a->outputs_count != b->outputs_count)
        return false;
    for (size_t i = 0; i < a->outputs_count; i++) {
        const struct kiln_output *one = &a->outputs[i], *other = &b->outputs[i];
        if (one->kind != other->kind || one->executable != other->executable || strcmp(one->name, other->name) != 0 ||
            !kiln_digest_equal(&one->digest, &other->digest))
            return false;
    }
    return true;
}

int kiln_vault_publish(const struct kiln_vault *vault, const struct kiln_result *result, struct kiln_buf *envelope,
                       bool *diverges, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_result(vault->scope, vault->generation, &result->action);
    kiln_autobuf struct kiln_buf sealed = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX + 4096);
    *diverges = false;
    int rc = key ? kiln_result_seal(result, vault->key, &sealed, err) : no_key(err);
    if (!rc)
        rc = kiln_store_put_pointer(vault->store, key, sealed.data, sealed.len, false, err);
    if (rc == KILN_E_EXISTS) {
        kiln_autoresult struct kiln_result first = {0};
        rc = kiln_vault_find(vault, &result->action, envelope, &first, err);
        if (!rc)
            *diverges = !is_equal(&first, result);
        if (rc != KILN_E_CORRUPT && rc != KILN_E_NOTFOUND)
            return rc;
        rc = kiln_store_put_pointer(vault->store, key, sealed.data, sealed.len, true, err);
    }
    if (!rc && kiln_buf_add(envelope, sealed.data, sealed.len))
        rc = kiln_buf_check(envelope, "a signed result", err);
    return rc;
}
