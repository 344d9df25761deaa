// A fleet's buckets as an operator handles them: made with their locks, and the two signed documents in the vault.
#pragma once

#include "lib/blob/s3_client.h"
#include "ops/admin/settings.h"

#define KILN_TRUST_KEY "trust/record"
#define KILN_PUBLIC_KEY "trust/public"

struct kiln_storage {
    struct kiln_s3_client *client;
    char access[256], secret[256];
    char *scratch;
};

int kiln_storage_open(const struct kiln_admin_settings *settings, struct kiln_storage *storage, struct kiln_err *err);
void kiln_storage_close(struct kiln_storage *storage);
#define kiln_autostorage __attribute__((cleanup(kiln_storage_close)))
// What kiln_s3_probe takes; borrowed from settings and storage.
void kiln_storage_options(const struct kiln_admin_settings *settings, const struct kiln_storage *storage, struct kiln_s3_options *options);

// The newest version of an object of the vault, appended to `out`. KILN_E_NOTFOUND.
int kiln_storage_get(struct kiln_storage *storage, const char *key, struct kiln_buf *out, struct kiln_err *err);
// A newer version of it, locked as long as the bucket's default says.
int kiln_storage_put(struct kiln_storage *storage, const char *key, const struct kiln_buf *bytes, struct kiln_err *err);
// Quarantine without lock, its objects expire; inputs and vault with versions and a default lock in compliance mode. A bucket
// that is there is given the same settings; one made without a lock cannot have one, and is refused.
struct kiln_storage_days {
    uint32_t quarantine, inputs, vault;
};
int kiln_storage_make_buckets(struct kiln_storage *storage, const struct kiln_storage_days *days, struct kiln_err *err);
