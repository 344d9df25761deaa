#include "producer/agent/lookup.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

static int give_local(const struct kiln_lookup *lookup, const struct kiln_digest *action, const struct kiln_result *result,
                      struct kiln_err *err) {
    const char *reason = result->reasons_count ? result->reasons[0] : "undeclared: no reason recorded";
    kiln_lookup_mark_local(lookup, action, reason);
    return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", reason);
}

void kiln_lookup_mark_local(const struct kiln_lookup *lookup, const struct kiln_digest *action, const char *reason) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1024);
    kiln_buf_addf(&text, "%.900s", reason);
    kiln_l0_memo_put(lookup->l0, KILN_MEMO_LOCAL, action->bytes, sizeof action->bytes, text.data, text.len, NULL);
}

int kiln_lookup_accept(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_result *result, struct kiln_err *err) {
    int rc = kiln_result_open(envelope, len, lookup->trust, action, result, err);
    if (rc)
        return rc;
    if (result->outcome != KILN_OUTCOME_SUCCESS) {
        rc = give_local(lookup, action, result, err);
        kiln_result_release(result);
        *result = (struct kiln_result){0};
        return rc;
    }
    kiln_l0_put_result(lookup->l0, action, envelope, len, NULL);
    return 0;
}

int kiln_lookup_result(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    if (kiln_l0_memo_get(lookup->l0, KILN_MEMO_LOCAL, action->bytes, sizeof action->bytes, &bytes, NULL) == 0)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s", kiln_buf_text(&bytes));
    kiln_buf_reset(&bytes);
    if (kiln_l0_get_result(lookup->l0, action, &bytes, NULL) == 0) {
        int rc = kiln_result_open(bytes.data, bytes.len, lookup->trust, action, result, NULL);
        if (rc == 0 && result->outcome == KILN_OUTCOME_SUCCESS)
            return 0;
        kiln_l0_drop_result(lookup->l0, action);
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
        if (rc == 0)
            kiln_result_release(result);
        *result = (struct kiln_result){0};
    }
    kiln_buf_reset(&bytes);
    kiln_autofree char *key = kiln_key_result(KILN_SCOPE, KILN_GENERATION, action);
    if (!key || kiln_store_get_bytes(lookup->store, KILN_SPACE_VAULT, key, &bytes, NULL))
        return kiln_fail(err, KILN_E_NOTFOUND, "no result");
    int rc = kiln_lookup_accept(lookup, action, bytes.data, bytes.len, result, err);
    if (rc == 0 || rc == KILN_E_UNSUPPORTED)
        return rc;
    kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    return kiln_fail(err, KILN_E_NOTFOUND, "the stored result is not valid");
}

int kiln_lookup_open(const struct kiln_lookup *lookup, const struct kiln_output *output, int *fd, struct kiln_err *err) {
    int rc = kiln_l0_open_blob(lookup->l0, &output->digest, output->size, fd, err);
    if (rc == 0)
        return 0;
    if (rc == KILN_E_CORRUPT)
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    kiln_autofree char *key = kiln_key_content("blob", KILN_SCOPE, &output->digest);
    kiln_autofd int stored = -1;
    uint64_t size;
    rc = key ? kiln_store_get_fd(lookup->store, KILN_SPACE_VAULT, key, &output->digest, &stored, &size, err) : KILN_E_NOMEM;
    if (rc == KILN_E_CORRUPT)
        kiln_stats_add(lookup->stats, "", KILN_STAT_CORRUPT);
    if (rc == 0 && size != output->size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "stored content has another size");
    if (rc)
        return rc;
    // A full or read-only cache costs the next hit, not this one.
    kiln_l0_add_blob(lookup->l0, stored, &output->digest, output->size, NULL);
    if (lseek(stored, 0, SEEK_SET)) // adding may have read it
        return kiln_fail_errno(err, KILN_E_IO, "stored content");
    *fd = kiln_steal_fd(&stored);
    return 0;
}
