#include "ops/admin/storage.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define SECRET_BYTES_MAX 600u

static int read_keys(const char *file, struct kiln_storage *storage, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(SECRET_BYTES_MAX);
    int rc = kiln_fs_read_file(AT_FDCWD, file, &text, err);
    if (rc)
        return kiln_wrap(err, rc, "s3.access_key_file");
    const char *line = kiln_buf_text(&text), *next = strchr(line, '\n');
    size_t access_len = next ? (size_t)(next - line) : 0, secret_len = next ? strcspn(next + 1, "\r\n") : 0;
    if (!access_len || !secret_len || access_len >= sizeof storage->access || secret_len >= sizeof storage->secret)
        rc = kiln_fail(err, KILN_E_INVAL, "%s: not two lines, the access key and the secret key", file);
    else {
        memcpy(storage->access, line, access_len);
        memcpy(storage->secret, next + 1, secret_len);
    }
    explicit_bzero(text.data, text.len);
    return rc;
}

void kiln_storage_options(const struct kiln_admin_settings *settings, const struct kiln_storage *storage, struct kiln_s3_options *options) {
    *options = (struct kiln_s3_options){
        .endpoint = kiln_admin_setting(settings, "s3.endpoint"),
        .region = kiln_admin_setting(settings, "s3.region"),
        .bucket_prefix = kiln_admin_setting(settings, "s3.bucket_prefix"),
        .access_key = storage->access,
        .secret_key = storage->secret,
        .tls_ca = kiln_admin_setting(settings, "tls.s3_ca"),
        .scratch_dir = storage->scratch,
    };
}

int kiln_storage_open(const struct kiln_admin_settings *settings, struct kiln_storage *storage, struct kiln_err *err) {
    const char *file = kiln_admin_setting(settings, "s3.access_key_file");
    struct kiln_s3_options options;
    if (!kiln_admin_setting(settings, "s3.endpoint") || !file)
        return kiln_fail(err, KILN_E_INVAL, "s3.endpoint and s3.access_key_file are needed");
    int rc = read_keys(file, storage, err);
    if (!rc && asprintf(&storage->scratch, "/tmp/kiln-admin-XXXXXX") < 0)
        rc = kiln_fail(err, KILN_E_NOMEM, "storage: out of memory");
    if (!rc && !mkdtemp(storage->scratch))
        rc = kiln_fail_errno(err, KILN_E_IO, "%s", storage->scratch);
    kiln_storage_options(settings, storage, &options);
    return rc ? rc : kiln_s3_client_new(&options, &storage->client, err);
}

void kiln_storage_close(struct kiln_storage *storage) {
    if (storage->client)
        kiln_s3_client_free(storage->client);
    if (storage->scratch)
        kiln_fs_remove_tree(AT_FDCWD, storage->scratch, NULL);
    free(storage->scratch);
    explicit_bzero(storage, sizeof *storage);
}

int kiln_storage_get(struct kiln_storage *storage, const char *key, struct kiln_buf *out, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "GET", KILN_SPACE_VAULT, key);
    exchange.sink = KILN_S3_SINK_BYTES;
    exchange.max_bytes = out->max;
    int rc = kiln_s3_run_one(storage->client, &exchange, err);
    if (!rc && kiln_buf_add(out, exchange.bytes.data, exchange.bytes.len))
        rc = kiln_fail(err, KILN_E_LIMIT, "%s: too large", key);
    kiln_s3_exchange_release(&exchange);
    return rc ? kiln_wrap(err, rc, "%s", key) : 0;
}

static int send(struct kiln_storage *storage, struct kiln_s3_exchange *exchange, const void *bytes, size_t len, struct kiln_err *err) {
    struct kiln_s3_body body;
    int rc = kiln_s3_body_of(bytes, len, &body, err);
    exchange->body = &body;
    if (!rc)
        rc = kiln_s3_run_one(storage->client, exchange, err);
    kiln_s3_exchange_release(exchange);
    return rc;
}

int kiln_storage_put(struct kiln_storage *storage, const char *key, const struct kiln_buf *bytes, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "PUT", KILN_SPACE_VAULT, key);
    int rc = send(storage, &exchange, bytes->data, bytes->len, err);
    return rc ? kiln_wrap(err, rc, "%s", key) : 0;
}

static int set_up(struct kiln_storage *storage, enum kiln_space space, const char *what, const char *document, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "PUT", space, NULL);
    kiln_s3_add_query(&exchange, what, "");
    return send(storage, &exchange, document, strlen(document), err);
}

static int make_bucket(struct kiln_storage *storage, enum kiln_space space, bool locked, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_exchange_init(&exchange, "PUT", space, NULL);
    if (locked)
        kiln_s3_add_header(&exchange, "x-amz-bucket-object-lock-enabled", "true");
    int rc = send(storage, &exchange, "", 0, err);
    return rc == KILN_E_EXISTS ? 0 : rc;
}

static int make_locked(struct kiln_storage *storage, enum kiln_space space, uint32_t days, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf document = KILN_BUF_INIT(1024);
    kiln_buf_addf(&document,
                  "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ObjectLockEnabled>Enabled"
                  "</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>%u</Days></DefaultRetention></Rule>"
                  "</ObjectLockConfiguration>",
                  days);
    int rc = make_bucket(storage, space, true, err);
    return rc ? rc : set_up(storage, space, "object-lock", kiln_buf_text(&document), err);
}

static int make_quarantine(struct kiln_storage *storage, uint32_t days, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf document = KILN_BUF_INIT(1024);
    kiln_buf_addf(&document,
                  "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Rule><ID>expire</ID><Status>Enabled"
                  "</Status><Filter><Prefix></Prefix></Filter><Expiration><Days>%u</Days></Expiration></Rule>"
                  "</LifecycleConfiguration>",
                  days);
    int rc = make_bucket(storage, KILN_SPACE_QUARANTINE, false, err);
    return rc ? rc : set_up(storage, KILN_SPACE_QUARANTINE, "lifecycle", kiln_buf_text(&document), err);
}

int kiln_storage_make_buckets(struct kiln_storage *storage, const struct kiln_storage_days *days, struct kiln_err *err) {
    int rc = make_quarantine(storage, days->quarantine, err);
    if (rc)
        return kiln_wrap(err, rc, "bucket quarantine");
    rc = make_locked(storage, KILN_SPACE_INPUTS, days->inputs, err);
    if (rc)
        return kiln_wrap(err, rc, "bucket inputs");
    rc = make_locked(storage, KILN_SPACE_VAULT, days->vault, err);
    return rc ? kiln_wrap(err, rc, "bucket vault") : 0;
}
