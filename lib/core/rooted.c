#include "lib/core/rooted.h"

#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/core/list.h"

// Twice what a reader may name: one set of roots on its way out, one on its way in.
#define SIGNATURES_MAX (2 * KILN_TRUST_ROOTS_MAX)

struct signature {
    struct kiln_digest root;
    uint8_t bytes[KILN_SIGNATURE_BYTES];
};

struct opened {
    struct signature signatures[SIGNATURES_MAX];
    size_t count;
    const unsigned char *core; // borrowed
    size_t core_len;
};

static void free_trust(struct kiln_trust **trust) { kiln_trust_free(*trust); }

static int decode(const struct kiln_rooted *form, const void *envelope, size_t len, struct opened *opened,
                  struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(envelope, len);
    size_t magic_len = strlen(form->magic) + 1;
    const unsigned char *head = kiln_read_bytes(&reader, magic_len);
    if (!head || memcmp(head, form->magic, magic_len) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a signed %s", form->what);
    opened->count = kiln_read_be32(&reader);
    if (opened->count > SIGNATURES_MAX)
        return kiln_fail(err, KILN_E_CORRUPT, "a signed %s has at most %u signatures", form->what, SIGNATURES_MAX);
    for (size_t i = 0; i < opened->count; i++) {
        struct signature *signature = &opened->signatures[i];
        kiln_read_digest(&reader, &signature->root);
        const unsigned char *bytes = kiln_read_bytes(&reader, sizeof signature->bytes);
        if (bytes)
            memcpy(signature->bytes, bytes, sizeof signature->bytes);
        if (bytes && i > 0 && kiln_digest_compare(&signature[-1].root, &signature->root) >= 0)
            return kiln_fail(err, KILN_E_CORRUPT, "a signed %s names a root twice or out of order", form->what);
    }
    opened->core = kiln_read_field(&reader, form->core_bytes_max, &opened->core_len);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "a signed %s is malformed near byte %zu", form->what, reader.at);
    return 0;
}

static int insert(struct opened *opened, const struct signature *signature, struct kiln_err *err) {
    size_t at = 0;
    while (at < opened->count && kiln_digest_compare(&opened->signatures[at].root, &signature->root) < 0)
        at++;
    struct signature *place = &opened->signatures[at];
    if (at == opened->count || !kiln_digest_equal(&place->root, &signature->root)) {
        if (opened->count == SIGNATURES_MAX)
            return kiln_fail(err, KILN_E_LIMIT, "at most %u roots sign", SIGNATURES_MAX);
        memmove(place + 1, place, (opened->count - at) * sizeof *place);
        opened->count++;
    }
    *place = *signature;
    return 0;
}

static void encode(const struct kiln_rooted *form, const struct opened *opened, struct kiln_buf *out) {
    kiln_buf_add(out, form->magic, strlen(form->magic) + 1);
    kiln_buf_add_be32(out, (uint32_t)opened->count);
    for (size_t i = 0; i < opened->count; i++) {
        kiln_buf_add_digest(out, &opened->signatures[i].root);
        kiln_buf_add(out, opened->signatures[i].bytes, KILN_SIGNATURE_BYTES);
    }
    kiln_buf_add_field(out, opened->core, opened->core_len);
}

int kiln_rooted_sign(const struct kiln_rooted *form, const void *core, size_t core_len,
                     const struct kiln_sign_key *const *keys, size_t count, struct kiln_buf *envelope,
                     struct kiln_err *err) {
    struct opened opened = {0};
    int rc = envelope->len ? decode(form, envelope->data, envelope->len, &opened, err) : 0;
    if (rc)
        return rc;
    if (envelope->len && (opened.core_len != core_len || memcmp(opened.core, core, core_len) != 0))
        return kiln_fail(err, KILN_E_INVAL, "the envelope holds another %s", form->what);
    opened.core = core;
    opened.core_len = core_len;
    for (size_t i = 0; i < count; i++) {
        struct signature made;
        kiln_sign_key_id(keys[i], &made.root);
        rc = kiln_sign(keys[i], core, core_len, made.bytes, err);
        if (!rc)
            rc = insert(&opened, &made, err);
        if (rc)
            return rc;
    }
    kiln_autobuf struct kiln_buf made = KILN_BUF_INIT(envelope->max);
    encode(form, &opened, &made);
    rc = kiln_buf_check(&made, form->what, err);
    if (rc)
        return rc;
    struct kiln_buf old = *envelope;
    *envelope = made;
    made = old;
    return 0;
}

static int check_roots(const struct kiln_roots *roots, struct kiln_err *err) {
    if (roots->count > KILN_TRUST_ROOTS_MAX)
        return kiln_fail(err, KILN_E_INVAL, "at most %u trust roots", KILN_TRUST_ROOTS_MAX);
    if (!roots->threshold || roots->threshold > roots->count)
        return kiln_fail(err, KILN_E_INVAL, "a threshold of %zu does not fit %zu trust roots", roots->threshold,
                         roots->count);
    return 0;
}

int kiln_rooted_open(const struct kiln_rooted *form, const void *envelope, size_t len, const struct kiln_roots *roots,
                     const unsigned char **core, size_t *core_len, struct kiln_err *err) {
    kiln_auto(free_trust) struct kiln_trust *known = NULL;
    struct opened opened = {0};
    int rc = check_roots(roots, err);
    if (!rc)
        rc = decode(form, envelope, len, &opened, err);
    if (!rc)
        rc = kiln_trust_new(&known, err);
    for (size_t i = 0; !rc && i < roots->count; i++)
        rc = kiln_trust_add_public(known, roots->keys[i], err);
    if (rc)
        return rc;
    size_t good = 0; // the signatures are of distinct roots, whatever the reader's list repeats
    for (size_t i = 0; i < opened.count; i++)
        good += kiln_trust_verify(known, &opened.signatures[i].root, opened.core, opened.core_len,
                                  opened.signatures[i].bytes, NULL) == 0;
    if (good < roots->threshold)
        return kiln_fail(err, KILN_E_CORRUPT, "the %s is signed by %zu known roots, %zu are needed", form->what, good,
                         roots->threshold);
    *core = opened.core;
    *core_len = opened.core_len;
    return 0;
}
