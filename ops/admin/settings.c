#include "ops/admin/settings.h"

#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define TEXT(name, fallback) {name, KILN_CONF_TEXT, fallback, NULL, NULL, false, ""}
#define COUNT(name, fallback) {name, KILN_CONF_COUNT, fallback, NULL, NULL, false, ""}
static const struct kiln_conf_key keys[] = {
    TEXT("fleet.brokers", ""), TEXT("fleet.principal", ""), TEXT("fleet.tenant", ""), TEXT("fleet.pool", ""),
    TEXT("fleet.record_key", ""), TEXT("fleet.trust_roots", ""), COUNT("fleet.trust_threshold", "1"), COUNT("fleet.partitions", "16"),
    COUNT("fleet.work_partitions", "16"), COUNT("fleet.result_partitions", "16"), TEXT("fleet.topic_prefix", ""),
    TEXT("s3.endpoint", ""), TEXT("s3.region", "us-east-1"), TEXT("s3.bucket_prefix", "kiln"), TEXT("s3.access_key_file", ""),
    TEXT("tls.ca", ""), TEXT("tls.cert", ""), TEXT("tls.key", ""), TEXT("tls.s3_ca", ""),
};

static int take_roots(struct kiln_admin_settings *settings, struct kiln_err *err) {
    const char *rest = kiln_conf_text(settings->conf, "fleet.trust_roots");
    size_t count = 0;
    while (*rest) {
        size_t len = strcspn(rest, ", ");
        char hex[KILN_DIGEST_HEX_LEN + 1] = "";
        struct kiln_digest bytes;
        if (len == KILN_DIGEST_HEX_LEN)
            memcpy(hex, rest, len);
        if (count == KILN_TRUST_ROOTS_MAX || kiln_digest_parse(hex, &bytes, NULL))
            return kiln_fail(err, KILN_E_INVAL, "fleet.trust_roots: at most %u keys of 64 lower-case hex digits, with commas between",
                             KILN_TRUST_ROOTS_MAX);
        memcpy(settings->root_keys[count++], bytes.bytes, KILN_PUBLIC_KEY_BYTES);
        rest += len;
        rest += strspn(rest, ", ");
    }
    settings->roots.keys = settings->root_keys;
    settings->roots.count = count;
    settings->roots.threshold = (size_t)kiln_conf_number(settings->conf, "fleet.trust_threshold");
    if (!count || !settings->roots.threshold || settings->roots.threshold > count)
        return kiln_fail(err, KILN_E_INVAL, "fleet.trust_roots: %zu roots, of which %zu must sign", count, settings->roots.threshold);
    return 0;
}

int kiln_admin_settings_load(const struct kiln_cli_call *call, struct kiln_admin_settings *settings, struct kiln_err *err) {
    const char *file = kiln_cli_text(call, "config");
    int rc = kiln_conf_new(keys, sizeof keys / sizeof *keys, &settings->conf, err);
    if (!rc)
        rc = kiln_conf_load_file(settings->conf, file ? file : "/etc/kiln/kiln.conf", err);
    return rc ? rc : take_roots(settings, err);
}

void kiln_admin_settings_release(struct kiln_admin_settings *settings) {
    kiln_conf_free(settings->conf);
    settings->conf = NULL;
}

const char *kiln_admin_setting(const struct kiln_admin_settings *settings, const char *name) {
    const char *value = kiln_conf_text(settings->conf, name);
    return *value ? value : NULL;
}
