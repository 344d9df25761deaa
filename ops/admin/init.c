// kiln-admin init: buckets, topics, rights and the first trust record of a fleet. Safe to run again, which is how principals enrolled
// later get their topics and rights.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/principals.h"
#include "ops/admin/rights.h"
#include "ops/admin/storage.h"
#include "ops/admin/topics.h"

#define LIST_BYTES_MAX (8u << 20)
#define DAY_MS (24ull * 3600 * 1000)
#define KEY_DAYS 365
#define QUARANTINE_DAYS 3
#define INPUTS_DAYS 14
#define VAULT_DAYS 45
#define DAYS_MAX 3650
#define REPLICATION_MAX 9

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"principals", "FILE", "Who is in the first trust record: NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY] a line."},
    {"replication", "COUNT", "Replicas of each topic; 3 where there are three brokers (default 1)."},
    {"quarantine-days", "COUNT", "After how many days objects of the quarantine expire (default 3)."},
    {"inputs-days", "COUNT", "Default lock of inputs, as far back as a replay reaches (default 14)."},
    {"vault-days", "COUNT", "Default lock of the vault (default 45)."},
    {"no-buckets", NULL, "Leave the buckets alone: somebody else has made them."},
};

struct done {
    size_t topics, topics_made, rights, taken;
};

static int first_record(const struct kiln_cli_call *call, struct kiln_trust_record *record, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(LIST_BYTES_MAX);
    const char *file = kiln_cli_text(call, "principals");
    if (!file)
        return kiln_fail(err, KILN_E_INVAL, "there is no trust record yet: --principals and --roots are needed");
    int rc = kiln_fs_read_file(AT_FDCWD, file, &text, err);
    record->generation = 1;
    if (!rc)
        rc = kiln_principals_parse((const char *)text.data, text.len, kiln_clock_wall_ms() + KEY_DAYS * DAY_MS, record, err);
    return rc ? kiln_wrap(err, rc, "%s", file) : 0;
}

static int set_up_storage(const struct kiln_cli_call *call, const struct kiln_admin_settings *settings, struct kiln_err *err) {
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    struct kiln_storage_days days;
    int rc = kiln_admin_number(call, "quarantine-days", QUARANTINE_DAYS, DAYS_MAX, &days.quarantine, err);
    if (!rc)
        rc = kiln_admin_number(call, "inputs-days", INPUTS_DAYS, DAYS_MAX, &days.inputs, err);
    if (!rc)
        rc = kiln_admin_number(call, "vault-days", VAULT_DAYS, DAYS_MAX, &days.vault, err);
    if (!rc)
        rc = kiln_storage_open(settings, &storage, err);
    return rc ? rc : kiln_storage_make_buckets(&storage, &days, err);
}

static int make_topics(struct kiln_kafka_admin *admin, const struct kiln_cli_call *call, const struct kiln_admin_settings *settings,
                       const struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    struct kiln_topic_counts counts = {
        .partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.partitions"),
        .work_partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.work_partitions"),
        .result_partitions = (uint32_t)kiln_conf_number(settings->conf, "fleet.result_partitions"),
    };
    kiln_autofree struct kiln_kafka_topic *topics = NULL;
    int rc = kiln_admin_number(call, "replication", 1, REPLICATION_MAX, &counts.replication, err);
    if (!rc)
        rc = kiln_topics_of_fleet(&counts, kiln_conf_text(settings->conf, "fleet.topic_prefix"), record, &topics, &done->topics, err);
    return rc ? rc : kiln_kafka_admin_make_topics(admin, topics, done->topics, &done->topics_made, err);
}

static int take_rights(struct kiln_kafka_admin *admin, const struct kiln_principal *whose, struct done *done, struct kiln_err *err) {
    char name[KILN_PRINCIPAL_BYTES + 8];
    size_t taken = 0;
    snprintf(name, sizeof name, "User:%s", whose->name);
    int rc = kiln_kafka_admin_forbid(admin, name, &taken, err);
    done->taken += taken;
    return rc;
}

// Those who are revoked lose theirs.
static int give_rights(struct kiln_kafka_admin *admin, const struct kiln_admin_settings *settings,
                       const struct kiln_trust_record *record, struct done *done, struct kiln_err *err) {
    kiln_autofree struct kiln_kafka_right *rights = calloc(record->principals_count + 1, KILN_RIGHTS_MAX * sizeof *rights);
    if (!rights)
        return kiln_fail(err, KILN_E_NOMEM, "rights: out of memory");
    int rc = 0;
    for (size_t i = 0; i < record->principals_count && !rc; i++) {
        const struct kiln_principal *one = &record->principals[i];
        size_t count = 0;
        if (!kiln_trust_record_find(record, one->name)) {
            rc = take_rights(admin, one, done, err);
            continue;
        }
        rc = kiln_rights_of(one, kiln_conf_text(settings->conf, "fleet.topic_prefix"), rights + done->rights, &count, err);
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
        kiln_buf_addf(&out, "{\"topics\": %zu, \"topics_made\": %zu, \"rights\": %zu, \"rights_taken\": %zu, \"principals\": %zu, \"trust_version\": %llu}\n",
                      done->topics, done->topics_made, done->rights, done->taken, record->principals_count, (unsigned long long)record->version);
    else
        kiln_buf_addf(&out, "%zu topics (%zu new), %zu rights given, %zu taken, %zu principals, trust record version %llu\n", done->topics,
                      done->topics_made, done->rights, done->taken, record->principals_count, (unsigned long long)record->version);
    return kiln_admin_print(&out);
}

static int set_up(const struct kiln_cli_call *call, struct kiln_draft *draft, struct done *done, struct kiln_err *err) {
    int rc = kiln_draft_begin(call, draft, err);
    if (!rc && !kiln_cli_flag(call, "no-buckets"))
        rc = set_up_storage(call, &draft->settings, err);
    if (rc)
        return rc;
    kiln_draft_release(draft);
    rc = kiln_draft_read(call, draft, err);
    bool first = rc == KILN_E_NOTFOUND;
    if (first)
        rc = first_record(call, &draft->record, err);
    if (!rc)
        rc = set_up_kafka(call, &draft->settings, &draft->record, done, err);
    if (!rc && first)
        rc = kiln_draft_issue(call, draft, err);
    return rc;
}

static int run(const struct kiln_cli_call *call) {
    kiln_autodraft struct kiln_draft draft = {.envelope = KILN_BUF_INIT(0)};
    struct done done = {0};
    struct kiln_err err;
    if (set_up(call, &draft, &done, &err))
        return kiln_admin_failed(call, &err);
    return print(call, &draft.record, &done);
}

const struct kiln_cli_command kiln_admin_init = {
    .name = "init",
    .help = "Make a fleet's buckets, topics, rights and first trust record, or what is missing of them.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
