#include "verifier/harvest.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/blob/bundle.h"

void kiln_harvest_release(struct kiln_harvest *harvest) {
    for (size_t i = 0; i < harvest->count; i++)
        close(harvest->members[i].fd);
    if (harvest->members)
        kiln_cleanup_fd(&harvest->bundle);
    free(harvest->members);
    *harvest = (struct kiln_harvest){0};
}

int kiln_harvest_find(const struct kiln_harvest *harvest, const struct kiln_digest *digest) {
    for (size_t i = 0; i < harvest->count; i++) {
        if (kiln_digest_equal(&harvest->members[i].digest, digest))
            return harvest->members[i].fd;
    }
    return -1;
}

static int take_member(void *context, const struct kiln_digest *digest, uint64_t size, int fd) {
    struct kiln_harvest *harvest = context;
    (void)size;
    harvest->members[harvest->count++] = (struct kiln_harvested){.digest = *digest, .fd = fd};
    return 0;
}

static int check_sizes(const struct kiln_result *result, struct kiln_err *err) {
    uint64_t left = KILN_HARVEST_BYTES_MAX;
    for (size_t i = 0; i < result->outputs_count; i++) {
        if (result->outputs[i].size > left)
            return kiln_fail(err, KILN_E_LIMIT, "the outputs have more than %llu bytes", (unsigned long long)KILN_HARVEST_BYTES_MAX);
        left -= result->outputs[i].size;
    }
    return 0;
}

int kiln_harvest_fetch(struct kiln_store *store, int scratch_dir, const char *key, const struct kiln_result *result,
                       struct kiln_harvest *harvest, struct kiln_err *err) {
    kiln_auto(kiln_harvest_release) struct kiln_harvest made = {.bundle = -1};
    int rc = check_sizes(result, err);
    if (rc)
        return rc;
    made.members = calloc(result->outputs_count + 1, sizeof *made.members);
    if (!made.members)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for outputs");
    rc = kiln_store_open_unchecked(store, KILN_SPACE_QUARANTINE, key, &made.bundle, err);
    if (rc == KILN_E_NOTFOUND || rc == KILN_E_LIMIT)
        return kiln_fail(err, KILN_E_CORRUPT, rc == KILN_E_LIMIT ? "they are too large" : "they were not uploaded");
    if (!rc)
        rc = kiln_digest_of_fd(made.bundle, KILN_HARVEST_BYTES_MAX, &made.digest, &made.size, err);
    if (!rc)
        rc = kiln_bundle_read(made.bundle, result, scratch_dir, take_member, &made, err);
    if (rc)
        return rc;
    *harvest = made;
    made = (struct kiln_harvest){0};
    return 0;
}
