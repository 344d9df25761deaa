#include "consumer/executor/upload.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/blob/scratch.h"

void kiln_upload_release(struct kiln_upload *upload) {
    free(upload->members);
    *upload = (struct kiln_upload){0};
}

int kiln_upload_add(struct kiln_upload *upload, int fd, uint64_t size, const struct kiln_digest *digest, struct kiln_err *err) {
    for (size_t i = 0; i < upload->count; i++)
        if (kiln_digest_equal(&upload->members[i].digest, digest))
            return 0;
    struct kiln_bundle_member *grown = realloc(upload->members, (upload->count + 1) * sizeof *grown);
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an upload");
    upload->members = grown;
    grown[upload->count++] = (struct kiln_bundle_member){.digest = *digest, .size = size, .fd = fd};
    return 0;
}

static char *key_of(const struct kiln_upload_place *place, const char *name, struct kiln_err *err) {
    char job[33];
    for (size_t i = 0; i < sizeof place->work->job.bytes; i++)
        snprintf(job + 2 * i, 3, "%02x", place->work->job.bytes[i]);
    char *key = kiln_key_quarantine_out(place->executor, job, place->work->attempt, name);
    if (!key)
        kiln_fail(err, KILN_E_NOMEM, "no memory for an upload");
    return key;
}

static int send_bundle(const struct kiln_upload *upload, const struct kiln_upload_place *place, struct kiln_err *err) {
    kiln_autofree char *key = key_of(place, KILN_BUNDLE_NAME, err);
    kiln_autofd int bundle = -1;
    struct kiln_digest digest;
    uint64_t size, all_bytes = 0;
    for (size_t i = 0; i < upload->count; i++)
        all_bytes += upload->members[i].size;
    int rc = key ? kiln_scratch_file(place->scratch_dir, all_bytes, &bundle, err) : KILN_E_NOMEM;
    if (!rc)
        rc = kiln_bundle_write(upload->members, upload->count, bundle, &digest, &size, err);
    return rc ? rc : kiln_store_put_fd(place->store, KILN_SPACE_QUARANTINE, key, bundle, size, &digest, err);
}

static int send_each(const struct kiln_upload *upload, const struct kiln_upload_place *place, struct kiln_err *err) {
    kiln_autofree struct kiln_store_offer *offers = calloc(upload->count + 1, sizeof *offers);
    int rc = offers ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for an upload");
    size_t count = 0;
    while (!rc && count < upload->count) {
        const struct kiln_bundle_member *member = &upload->members[count];
        char hex[KILN_DIGEST_HEX_LEN + 1], *key;
        kiln_digest_format(&member->digest, hex);
        key = key_of(place, hex, err);
        rc = key ? 0 : KILN_E_NOMEM;
        if (key)
            offers[count++] = (struct kiln_store_offer){.space = KILN_SPACE_QUARANTINE, .key = key, .fd = member->fd,
                                                        .max_bytes = member->size, .expected = &member->digest};
    }
    if (!rc)
        rc = kiln_store_put_many(place->store, offers, count, err);
    for (size_t i = 0; i < count; i++)
        free((char *)(uintptr_t)offers[i].key);
    return rc;
}

int kiln_upload_send(const struct kiln_upload *upload, const struct kiln_upload_place *place, struct kiln_err *err) {
    return kiln_store_wants_bundles(place->store) ? send_bundle(upload, place, err) : send_each(upload, place, err);
}
