// kiln-admin init: topics, rights and the first trust record of a fleet. Safe to run again, which is how principals enrolled
// later get their topics and rights.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "ops/admin/commands.h"
#include "ops/admin/principals.h"
#include "ops/admin/rights.h"
#include "ops/admin/root_keys.h"
#include "ops/admin/settings.h"
#include "ops/admin/topics.h"

#define LIST_BYTES_MAX (8u << 20)
#define DAY_MS (24ull * 3600 * 1000)
#define RECORD_DAYS 30
#define KEY_DAYS 365

static const struct kiln_cli_option options[] = {
    {"config", "FILE", "The operator's kiln.conf."},
    {"principals", "FILE", "Who is in the first trust record: NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY] a line."},
    {"roots", "FILE,FILE", "Key files of the roots that sign it."},
    {"replication", "COUNT", "Replicas of each topic; 3 where there are three brokers (default 1)."},
    {"out", "FILE", "Write the signed trust record there too."},
    {"json", NULL, "Print what was done as a JSON object."},
};

struct done {
    size_t topics, topics_made, rights, principals;
};

static int first_record(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(LIST_BYTES_MAX);
    const char *file = kiln_cli_text(call, "principals");
    if (!file)
        return kiln_fail(err, KILN_E_INVAL, "there is no trust record yet: --principals and --roots are needed");
    int rc = kiln_fs_read_file(AT_FDCWD, file, &text, err);
    uint64_t now_ms = kiln_clock_wall_ms();
    record->version = 1;
    record->generation = 1;
    record->issued_ms = now_ms;
    record->expires_ms = now_ms + RECORD_DAYS * DAY_MS;
    if (!rc)
        rc = kiln_principals_parse((const char *)text.data, text.len, now_ms + KEY_DAYS * DAY_MS, record, err);
    return rc ? kiln_wrap(err, rc, "%s", file) : 0;
}

static int sign_record(const struct kiln_cli_call *call, const struct kiln_admin_settings *settings,
                       const struct kiln_trust_record *record, struct kiln_buf *envelope, struct kiln_err *err) {
    kiln_autoroot_keys struct kiln_root_keys keys = {.count = 0};
    const char *files = kiln_cli_text(call, "roots");
    if (!files)
        return kiln_fail(err, KILN_E_INVAL, "--roots is needed to sign the trust record");
    int rc = kiln_root_keys_load(files, &keys, err);
    if (!rc)
        rc = kiln_trust_record_sign(record, (const struct kiln_sign_key *const *)keys.keys, keys.count, envelope, err);
    kiln_autotrust_record struct kiln_trust_record opened = {0};
    if (!rc)
        rc = kiln_trust_record_open(envelope->data, envelope->len, settings->roots.keys, settings->roots.count,
                                    settings->roots.threshold, &opened, err);
    return rc;
}

static int number(const struct kiln_cli_call *call, const char *name, uint32_t fallback, uint32_t *value, struct kiln_err *err) {
    const char *text = kiln_cli_text(call, name);
    char *end;
    unsigned long given = text ? strtoul(text, &end, 10) : fallback;
    if (text && (*end || !*text || !given || given > 1000))
        return kiln_fail(err, KILN_E_INVAL, "--%s: a number from 1 to 1000", name);
    *value = (uint32_t)given;
    return 0;
}

static int make_topics(struct kiln_kafka_admin *admin, const struct kiln_cli_call *call, const struct kiln_admin_settings *settings,
                       const struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    struct kiln_topic_counts counts = {
        .partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.partitions"),
        .work_partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.work_partitions"),
        .result_partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.result_partitions"),
    };
    kiln_autofree struct kiln_kafka_topic *topics = NULL;
    int rc = number(call, "replication", 1, &counts.replication, err);
    if (!rc)
        rc = kiln_topics_of_fleet(&counts, kiln_conf_text(settings->conf, "fleet.topic_prefix"), record, &topics, &done->topics, err);
    return rc ? rc : kiln_kafka_admin_make_topics(admin, topics, done->topics, &done->topics_made, err);
}

static int give_rights(struct kiln_kafka_admin *admin, const struct kiln_admin_settings *settings,
                       const struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    kiln_autofree struct kiln_kafka_right *rights = calloc(record->principals_count + 1, KILN_RIGHTS_MAX * sizeof *rights);
    if (!rights)
        return kiln_fail(err, KILN_E_NOMEM, "rights: out of memory");
    int rc = 0;
    for (size_t i = 0; i < record->principals_count && !rc; i++) {
        size_t count = 0;
        rc = kiln_rights_of(&record->principals[i], kiln_conf_text(settings->conf, "fleet.topic_prefix"), rights + done->rights,
                            &count, err);
        done->rights += count;
    }
    return rc ? rc : kiln_kafka_admin_allow(admin, rights, done->rights, err);
}

static int set_up_kafka(const struct kiln_cli_call *call, const struct kiln_admin_settings *settings,
                        const struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    struct kiln_kafka_admin_options connection = {
        .brokers = kiln_admin_setting(settings, "fleet.brokers"),
        .tls_ca = kiln_admin_setting(settings, "tls.ca"),
        .tls_cert = kiln_admin_setting(settings, "tls.cert"),
        .tls_key = kiln_admin_setting(settings, "tls.key"),
    };
    if (!connection.brokers)
        return kiln_fail(err, KILN_E_INVAL, "fleet.brokers is not set");
    struct kiln_kafka_admin *admin;
    int rc = kiln_kafka_admin_open(&connection, &admin, err);
    if (rc)
        return rc;
    rc = make_topics(admin, call, settings, record, done, err);
    if (!rc)
        rc = give_rights(admin, settings, record, done, err);
    kiln_kafka_admin_close(admin);
    return rc;
}

static int print(const struct kiln_cli_call *call, const struct kiln_trust_record *record, const struct done *done) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    if (kiln_cli_flag(call, "json"))
        kiln_buf_addf(&out, "{\"topics\": %zu, \"topics_made\": %zu, \"rights\": %zu, \"principals\": %zu, \"trust_version\": %llu}\n",
                      done->topics, done->topics_made, done->rights, record->principals_count, (unsigned long long)record->version);
    else
        kiln_buf_addf(&out, "%zu topics (%zu new), %zu rights of %zu principals, trust record version %llu\n", done->topics,
                      done->topics_made, done->rights, record->principals_count, (unsigned long long)record->version);
    return kiln_admin_print(&out);
}

static int set_up(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    kiln_autosettings struct kiln_admin_settings settings = {.conf = NULL};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX + 4096);
    int rc = kiln_admin_settings_load(call, &settings, err);
    if (!rc)
        rc = first_record(call, record, err);
    if (!rc)
        rc = sign_record(call, &settings, record, &envelope, err);
    if (!rc)
        rc = set_up_kafka(call, &settings, record, done, err);
    const char *out = kiln_cli_text(call, "out");
    if (!rc && out)
        rc = kiln_fs_write_file(AT_FDCWD, out, envelope.data, envelope.len, 0644, err);
    return rc;
}

static int run(const struct kiln_cli_call *call) {
    kiln_autotrust_record struct kiln_trust_record record = {0};
    struct done done = {0};
    struct kiln_err err;
    if (set_up(call, &record, &done, &err))
        return kiln_admin_failed(call, &err);
    return print(call, &record, &done);
}

const struct kiln_cli_command kiln_admin_init = {
    .name = "init",
    .help = "Make a fleet's topics, rights and first trust record, or what is missing of them.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
