// What is done to a fleet beside lib/fleet, for its tests: by the storage's root user, by raw Kafka clients with a principal's
// certificate, and by operators with the trust roots. Around tests/integration/fleet_rig.h.
#pragma once

#include <librdkafka/rdkafka.h>

#include "lib/core/public_list.h"
#include "tests/integration/fleet_rig.h"

#define FLEET_DAY_MS (24ull * 3600 * 1000)

// The storage admin's own options; their texts live as long as the test.
static inline struct kiln_s3_options fleet_root_options(void) {
    static char access[128], secret[128], *endpoint;
    kiln_autofree char *file = stack_env(&fleet.stack, "KILN_STACK_S3_ROOT");
    free(endpoint);
    endpoint = stack_env(&fleet.stack, "KILN_STACK_S3");
    FILE *in = fopen(file, "re");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%127s %127s", access, secret), 2);
    fclose(in);
    return (struct kiln_s3_options){.endpoint = endpoint, .region = "us-east-1", .bucket_prefix = "kiln", .access_key = access,
                                    .secret_key = secret, .scratch_dir = scratch_path(fleet.rig->scratch, "")};
}

static inline struct kiln_store *fleet_root_store(void) {
    const struct kiln_s3_options options = fleet_root_options();
    struct kiln_store *store = NULL;
    struct kiln_err err = {0};
    fleet_must(kiln_store_open_s3(&options, KILN_ROLE_VERIFIER, &store, &err), &err);
    return store;
}

// Another version over what may stand there, by the storage admin.
static inline void fleet_put_over(const char *key, const struct kiln_buf *bytes) {
    struct kiln_store *root = fleet_root_store();
    struct kiln_err err = {0};
    fleet_must(kiln_store_keep_pointer(root, key, bytes->data, bytes->len, kiln_clock_wall_ms() + FLEET_DAY_MS, true, NULL, &err), &err);
    kiln_store_close(root);
}

// A client with that principal's certificate; a consumer is to be of that group.
static inline rd_kafka_t *fleet_raw_member(rd_kafka_type_t type, const char *principal, const char *group) {
    char why[512];
    kiln_autofree char *brokers = stack_env(&fleet.stack, "KILN_STACK_BROKERS");
    kiln_autofree char *ca = stack_role_file(&fleet.stack, principal, "ca.crt"), *cert = stack_role_file(&fleet.stack, principal, "tls.crt"),
                       *key = stack_role_file(&fleet.stack, principal, "tls.key");
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *settings[][2] = {{"bootstrap.servers", brokers}, {"security.protocol", "ssl"}, {"ssl.ca.location", ca},
                                 {"ssl.certificate.location", cert}, {"ssl.key.location", key},
                                 {"group.id", group}, {"enable.auto.commit", "false"}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings - (type == RD_KAFKA_PRODUCER ? 2 : 0); i++)
        assert_int_equal(rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why), RD_KAFKA_CONF_OK);
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    assert_non_null(client);
    return client;
}

static inline rd_kafka_t *fleet_raw_client(rd_kafka_type_t type, const char *principal) {
    return fleet_raw_member(type, principal, "thief");
}

// Waits until verifiers have committed all that lies in that partition of a topic of theirs: the next owner does not see it.
static inline void fleet_await_committed(const char *topic, uint32_t partition) {
    rd_kafka_t *client = fleet_raw_member(RD_KAFKA_CONSUMER, "operator", "kiln-verifiers");
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    int64_t low, high = -1;
    rd_kafka_topic_partition_list_add(list, topic, (int32_t)partition)->offset = RD_KAFKA_OFFSET_INVALID;
    for (uint64_t deadline_ms = kiln_clock_ms() + FLEET_MS; list->elems[0].offset != high; poll(NULL, 0, 20)) {
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
        assert_int_equal(rd_kafka_query_watermark_offsets(client, topic, (int32_t)partition, &low, &high, (int)FLEET_MS), 0);
        assert_int_equal(rd_kafka_committed(client, list, (int)FLEET_MS), 0);
    }
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(client);
}

// The newest record of that partition, with its headers.
static inline rd_kafka_message_t *fleet_steal(rd_kafka_t *thief, const char *topic, uint32_t partition) {
    int64_t low, high;
    assert_int_equal(rd_kafka_query_watermark_offsets(thief, topic, (int32_t)partition, &low, &high, (int)FLEET_MS), 0);
    assert_true(high > low);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, (int32_t)partition)->offset = high - 1;
    assert_int_equal(rd_kafka_assign(thief, list), 0);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_message_t *message = rd_kafka_consumer_poll(thief, (int)FLEET_MS);
    assert_true(message && !message->err);
    return message;
}

// Writes a record, its headers too, once more where it stands, byte for byte.
static inline void fleet_repeat(const char *principal, const rd_kafka_message_t *message) {
    rd_kafka_t *again = fleet_raw_client(RD_KAFKA_PRODUCER, principal);
    rd_kafka_headers_t *headers;
    assert_int_equal(rd_kafka_message_headers(message, &headers), 0);
    assert_int_equal(rd_kafka_producev(again, RD_KAFKA_V_TOPIC(rd_kafka_topic_name(message->rkt)),
                                       RD_KAFKA_V_PARTITION(message->partition),
                                       RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(message->key, message->key_len),
                                       RD_KAFKA_V_VALUE(message->payload, message->len),
                                       RD_KAFKA_V_HEADERS(rd_kafka_headers_copy(headers)), RD_KAFKA_V_END), 0);
    assert_int_equal(rd_kafka_flush(again, (int)FLEET_MS), 0);
    rd_kafka_destroy(again);
}

// An actor with everything of principal `name`, but for what these settings say: the name of another, say. It only writes.
static inline struct actor fleet_masked(const char *name, enum kiln_role role, const char *settings) {
    static unsigned number;
    struct actor actor = {0};
    struct kiln_err err = {0};
    char dir[64], file[64];
    kiln_autofree char *own = stack_role_file(&fleet.stack, name, "kiln.conf");
    snprintf(dir, sizeof dir, "mask-%u", ++number);
    snprintf(file, sizeof file, "mask-%u.conf", number);
    assert_int_equal(mkdirat(fleet.rig->scratch->fd, dir, 0700), 0);
    scratch_write_text(fleet.rig->scratch, file, settings);
    fleet_must(kiln_conf_new(kiln_fleet_settings, kiln_fleet_settings_count, &actor.conf, &err), &err);
    fleet_must(kiln_conf_load_file(actor.conf, own, &err), &err);
    fleet_must(kiln_conf_load_file(actor.conf, scratch_path(fleet.rig->scratch, file), &err), &err);
    fleet_must(kiln_fleet_open(actor.conf, role, scratch_path(fleet.rig->scratch, dir), &actor.fleet, &err), &err);
    fleet_must(kiln_fleet_open_bus(actor.fleet, &actor.bus, &err), &err);
    fleet_introduce(&actor, role);
    return actor;
}

// The trust roots that the stack has made.
struct fleet_roots {
    uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    struct kiln_roots roots;
    struct kiln_sign_key *private[2];
};

static inline void fleet_roots_release(struct fleet_roots *roots) {
    kiln_sign_key_free(roots->private[0]);
    kiln_sign_key_free(roots->private[1]);
}

static inline void fleet_roots_load(struct fleet_roots *roots) {
    struct kiln_err err = {0};
    fleet_must(kiln_fleet_roots(fleet.agent.conf, roots->keys, &roots->roots, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/roots/root-%zu", fleet.stack.dir, i + 1);
        fleet_must(kiln_sign_key_load(AT_FDCWD, path, &roots->private[i], &err), &err);
    }
}

static inline void fleet_await_log(const char *text) {
    kiln_autobuf struct kiln_buf log = KILN_BUF_INIT(16u << 20);
    for (uint64_t deadline_ms = kiln_clock_ms() + FLEET_MS; kiln_clock_left_ms(deadline_ms); poll(NULL, 0, 20)) {
        kiln_buf_reset(&log);
        assert_int_equal(kiln_fs_read_file(fleet.rig->scratch->fd, "verifier.log", &log, NULL), 0);
        if (strstr(kiln_buf_text(&log), text))
            return;
    }
    fleet_show_log();
    fail_msg("the verifier does not say %s", text);
}

// The next version of the trust record, changed by an operator; known to the verifier and to all actors afterwards.
static inline void fleet_change_trust(void (*change)(struct kiln_trust_record *record)) {
    kiln_auto(fleet_roots_release) struct fleet_roots roots = {0};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX), envelope = KILN_BUF_INIT(KILN_TRUST_BYTES_MAX);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    struct kiln_err err = {0};
    char text[64];
    fleet_roots_load(&roots);
    fleet_must(kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, "trust/record", &bytes, &err), &err);
    fleet_must(kiln_trust_record_open(bytes.data, bytes.len, roots.roots.keys, roots.roots.count, roots.roots.threshold, &record, &err), &err);
    record.version++;
    record.issued_ms = kiln_clock_wall_ms();
    record.expires_ms = record.issued_ms + FLEET_DAY_MS;
    change(&record);
    kiln_trust_record_sort(&record);
    fleet_must(kiln_trust_record_sign(&record, (const struct kiln_sign_key *const *)roots.private, 2, &envelope, &err), &err);
    fleet_put_over("trust/record", &envelope);
    snprintf(text, sizeof text, "event=trust_record version=%llu ", (unsigned long long)record.version);
    fleet_await_log(text);
    struct actor *actors[] = {&fleet.agent, &fleet.second, &fleet.stranger, &fleet.executor, &fleet.rival, &fleet.reader};
    for (size_t i = 0; i < sizeof actors / sizeof *actors; i++)
        fleet_must(kiln_keeper_refresh(kiln_fleet_keeper(actors[i]->fleet), &err), &err);
}

// A list with this package alone, as the operators' newest list of public packages; known to the verifier afterwards.
static inline void fleet_publish_package(const char *package, const struct kiln_digest *tree) {
    static uint64_t version;
    kiln_auto(fleet_roots_release) struct fleet_roots roots = {0};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(KILN_PUBLIC_BYTES_MAX);
    kiln_autopublic_list struct kiln_public_list list = {.version = ++version, .issued_ms = kiln_clock_wall_ms()};
    const struct kiln_digest archive = {{1}};
    struct kiln_err err = {0};
    char text[64];
    list.expires_ms = list.issued_ms + FLEET_DAY_MS;
    fleet_roots_load(&roots);
    fleet_must(kiln_public_list_add(&list, package, &archive, tree, &err), &err);
    fleet_must(kiln_public_list_finish(&list, &err), &err);
    fleet_must(kiln_public_list_sign(&list, (const struct kiln_sign_key *const *)roots.private, 2, &envelope, &err), &err);
    fleet_put_over("trust/public", &envelope);
    snprintf(text, sizeof text, "event=public_list version=%llu ", (unsigned long long)version);
    fleet_await_log(text);
}
