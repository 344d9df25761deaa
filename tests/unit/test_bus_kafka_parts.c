// The parts of the Kafka bus that need no broker: names and rights, settings, acks, the queue, the replay window.
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/bus/bus_kafka_handle.h"
#include "tests/unit/kafka_rig.h"

static void names(void **state) {
    (void)state;
    char name[KILN_KAFKA_TOPIC_BYTES], prefix[KILN_KAFKA_TOPIC_BYTES + 1] = {0};
    assert_int_equal(kiln_kafka_topic_name("", KILN_TOPIC_JOBS, NULL, name, NULL), 0);
    assert_string_equal(name, "kiln.jobs");
    assert_int_equal(kiln_kafka_topic_name("two.", KILN_TOPIC_RESULTS, "red", name, NULL), 0);
    assert_string_equal(name, "two.kiln.results.red");
    static const char *const tenants[] = {NULL, "", ".red", "re d", "red/blue"};
    for (size_t i = 0; i < sizeof tenants / sizeof *tenants; i++)
        assert_int_equal(kiln_kafka_topic_name("", KILN_TOPIC_RESULTS, tenants[i], name, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_kafka_topic_name("a b", KILN_TOPIC_JOBS, NULL, name, NULL), KILN_E_INVAL);
    memset(prefix, 'p', KILN_KAFKA_TOPIC_BYTES - 10);
    assert_int_equal(kiln_kafka_topic_name(prefix, KILN_TOPIC_JOBS, NULL, name, NULL), 0);
    assert_int_equal(strlen(name), KILN_KAFKA_TOPIC_BYTES - 1);
    prefix[strlen(prefix)] = 'p';
    assert_int_equal(kiln_kafka_topic_name(prefix, KILN_TOPIC_JOBS, NULL, name, NULL), KILN_E_INVAL);
}

// DESIGN.md section 5, for every role of a fleet. n: nobody, r: reader, o: operator.
static void rights(void **state) {
    (void)state;
    static const char letters[] = "navero"; // in the order of enum kiln_role
    static const struct {
        const char *writers, *readers;
    } table[KILN_TOPIC_COUNT] = {
        [KILN_TOPIC_JOBS] = {"a", "vro"},   [KILN_TOPIC_WORK] = {"v", "ero"},       [KILN_TOPIC_CREDITS] = {"e", "vro"},
        [KILN_TOPIC_LEASES] = {"e", "vro"}, [KILN_TOPIC_CANDIDATES] = {"e", "vro"}, [KILN_TOPIC_RESULTS] = {"v", "aro"},
        [KILN_TOPIC_STATE] = {"v", "vro"},  [KILN_TOPIC_LEDGER] = {"v", "ro"},      [KILN_TOPIC_EVENTS] = {"aveo", "ro"},
        [KILN_TOPIC_DLQ] = {"v", "ro"},
    };
    for (unsigned topic = 0; topic < KILN_TOPIC_COUNT; topic++) {
        for (int role = KILN_ROLE_OF_NOBODY; role <= KILN_ROLE_OF_OPERATOR; role++) {
            assert_int_equal(kiln_kafka_may_write(topic, role), strchr(table[topic].writers, letters[role]) != NULL);
            assert_int_equal(kiln_kafka_may_read(topic, role), strchr(table[topic].readers, letters[role]) != NULL);
        }
    }
}

static void settings_that_break_promises_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "plugin.library.paths", "enable.auto.commit",    "auto.commit.enable", "enable.auto.offset.store", "isolation.level",
        "transactional.id",     "enable.idempotence",    "acks",               "request.required.acks",    "partitioner",
        "bootstrap.servers",    "metadata.broker.list",  "security.protocol",  "ssl.ca.location",          "ssl.ca.pem",
        "ssl.certificate.pem",  "ssl.key.password",      "ssl.keystore.location", "ssl.engine.location",   "client.id",
        "group.id",             "group.instance.id",     "sasl.mechanisms",    "sasl.kerberos.kinit.cmd",  "auto.offset.reset",
        "enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "partition.assignment.strategy",
        "test.mock.num.brokers", "allow.auto.create.topics", "enable.partition.eof",
    };
    struct kiln_err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(kiln_kafka_setting_check(bad[i], &err), KILN_E_DENIED);
        assert_non_null(strstr(err.text, bad[i]));
        struct kiln_bus *bus;
        const struct kiln_kafka_setting setting = {bad[i], "x"};
        const struct rig_open how = {RIG_AGENT, 1, &setting, 1};
        assert_int_equal(rig_try_open(&how, &bus, NULL), KILN_E_DENIED);
    }
    static const char *const good[] = {"session.timeout.ms", "max.poll.interval.ms", "message.timeout.ms", "compression.codec",
                                       "client.rack", "ssl.cipher.suites", "ssl.crl.location", "statistics.interval.ms"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(kiln_kafka_setting_check(good[i], NULL), 0);
}

static void what_is_no_setting_is_refused(void **state) {
    (void)state;
    struct kiln_bus *bus;
    struct kiln_err err = {0};
    const struct kiln_kafka_setting unknown = {"fetch.wait.max", "5"}, wrong = {"fetch.wait.max.ms", "soon"};
    struct rig_open how = {RIG_AGENT, 1, &unknown, 1};
    assert_int_equal(rig_try_open(&how, &bus, &err), KILN_E_INVAL);
    assert_non_null(strstr(err.text, "fetch.wait.max"));
    how.settings = &wrong;
    assert_int_equal(rig_try_open(&how, &bus, NULL), KILN_E_INVAL);
    rig.partitions = KILN_BUS_KAFKA_PARTITIONS_MAX + 1;
    how.settings_count = 0;
    assert_int_equal(rig_try_open(&how, &bus, NULL), KILN_E_INVAL);
    rig.partitions = 4;
}

static const char *conf_value(const rd_kafka_conf_t *conf, const char *name, char value[256]) {
    size_t size = 256;
    assert_int_equal(rd_kafka_conf_get(conf, name, value, &size), RD_KAFKA_CONF_OK);
    return value;
}

static void promises_are_in_the_settings(void **state) {
    (void)state;
    char value[256];
    rd_kafka_conf_t *conf;
    const struct kiln_kafka_setting own = {"linger.ms", "3"};
    const struct kiln_kafka_options options = {.brokers = "b:1", .role = KILN_ROLE_OF_VERIFIER, .principal = "v", .topic_prefix = "two.",
                                               .tls_ca = "/ca", .tls_cert = "/crt", .tls_key = "/key", .settings = &own, .settings_count = 1};
    assert_int_equal(kiln_kafka_conf_new(&options, KILN_KAFKA_PRODUCES, &conf, NULL), 0);
    assert_string_equal(conf_value(conf, "enable.idempotence", value), "true");
    assert_string_equal(conf_value(conf, "acks", value), "-1");
    assert_string_equal(conf_value(conf, "linger.ms", value), "3");
    assert_string_equal(conf_value(conf, "message.timeout.ms", value), "60000");
    assert_string_equal(conf_value(conf, "socket.nagle.disable", value), "true");
    assert_string_equal(conf_value(conf, "security.protocol", value), "ssl");
    assert_string_equal(conf_value(conf, "enable.ssl.certificate.verification", value), "true");
    rd_kafka_conf_destroy(conf);
    assert_int_equal(kiln_kafka_conf_new(&options, KILN_KAFKA_IN_GROUP, &conf, NULL), 0);
    assert_string_equal(conf_value(conf, "group.id", value), "two.kiln-verifiers");
    size_t size = sizeof value; // a static member could not leave
    assert_int_not_equal(rd_kafka_conf_get(conf, "group.instance.id", value, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(conf_value(conf, "session.timeout.ms", value), "6000");
    assert_string_equal(conf_value(conf, "heartbeat.interval.ms", value), "1000");
    assert_string_equal(conf_value(conf, "enable.auto.commit", value), "false");
    assert_string_equal(conf_value(conf, "partition.assignment.strategy", value), "range");
    assert_string_equal(conf_value(conf, "isolation.level", value), "read_committed");
    rd_kafka_conf_destroy(conf);
}

static void result_partitions(void **state) {
    (void)state;
    struct kiln_job_id one = rig_incarnation(1), two = rig_incarnation(2);
    // SHA-256 of 00000007 "agent-1" and 16 times 01 begins with the number of this vector.
    assert_int_equal(kiln_kafka_result_partition("agent-1", &one, 1), 0);
    unsigned differ = 0;
    for (uint32_t count = 2; count <= 256; count++)
        differ += kiln_kafka_result_partition("agent-1", &one, count) != kiln_kafka_result_partition("agent-1", &two, count);
    assert_true(differ > 200);
    uint32_t whole = kiln_kafka_result_partition("agent-1", &one, UINT32_MAX);
    assert_int_equal(kiln_kafka_result_partition("agent-1", &one, 64), whole % 64);
    assert_int_equal(whole, 0x77803777);
}

struct commits {
    unsigned count;
    uint64_t end;
};

static void on_commit(void *context, enum kiln_topic topic, uint32_t partition, uint64_t end) {
    struct commits *commits = context;
    assert_int_equal(topic, KILN_TOPIC_JOBS);
    assert_int_equal(partition, 5);
    commits->count++;
    commits->end = end;
}

static uint64_t collect(struct kiln_kafka_acks *acks) {
    struct commits commits = {0};
    kiln_kafka_acks_collect(acks, on_commit, &commits);
    assert_true(commits.count <= 1);
    return commits.end;
}

static void take_and_ack(struct kiln_kafka_acks *acks, uint64_t offset) {
    kiln_kafka_acks_take(acks, KILN_TOPIC_JOBS, 5, offset);
    assert_int_equal(kiln_kafka_acks_ack(acks, KILN_TOPIC_JOBS, 5, offset, NULL), 0);
}

static void acks_wait_for_what_was_published_before(void **state) {
    (void)state;
    struct kiln_kafka_acks acks;
    assert_int_equal(kiln_kafka_acks_init(&acks, NULL), 0);
    kiln_kafka_acks_gain(&acks, KILN_TOPIC_JOBS, 5);
    take_and_ack(&acks, 0);
    assert_int_equal(collect(&acks), 1); // nothing was published before
    assert_int_equal(collect(&acks), 0); // once
    uint64_t one = kiln_kafka_acks_begin(&acks), two = kiln_kafka_acks_begin(&acks);
    take_and_ack(&acks, 1);
    uint64_t three = kiln_kafka_acks_begin(&acks);
    take_and_ack(&acks, 2);
    kiln_kafka_acks_settle(&acks, two, false);
    assert_int_equal(collect(&acks), 0); // one has no report yet
    kiln_kafka_acks_settle(&acks, one, false);
    assert_int_equal(collect(&acks), 2);
    kiln_kafka_acks_settle(&acks, three, false);
    assert_int_equal(collect(&acks), 3);
    assert_int_equal(kiln_kafka_acks_ack(&acks, KILN_TOPIC_JOBS, 5, 0, NULL), 0); // goes nowhere
    assert_int_equal(collect(&acks), 0);
    kiln_kafka_acks_uncommitted(&acks, KILN_TOPIC_JOBS, 5, 3);
    assert_int_equal(collect(&acks), 3);
    kiln_kafka_acks_release(&acks);
}

static void acks_of_what_is_not_ours_are_nothing(void **state) {
    (void)state;
    struct kiln_kafka_acks acks;
    assert_int_equal(kiln_kafka_acks_init(&acks, NULL), 0);
    take_and_ack(&acks, 0); // never gained
    assert_int_equal(collect(&acks), 0);
    kiln_kafka_acks_gain(&acks, KILN_TOPIC_JOBS, 5);
    assert_int_equal(kiln_kafka_acks_ack(&acks, KILN_TOPIC_JOBS, 5, 7, NULL), 0); // of an earlier ownership
    assert_int_equal(collect(&acks), 0);
    take_and_ack(&acks, 3);
    kiln_kafka_acks_lose(&acks, KILN_TOPIC_JOBS, 5);
    assert_int_equal(collect(&acks), 0);
    assert_int_equal(kiln_kafka_acks_ack(&acks, KILN_TOPIC_LEDGER, 5, 0, NULL), 0); // no topic of the group
    assert_int_equal(kiln_kafka_acks_ack(&acks, KILN_TOPIC_JOBS, 100000, 0, NULL), 0);
    kiln_kafka_acks_release(&acks);
}

static void a_failed_publish_voids_the_acks_behind_it(void **state) {
    (void)state;
    struct kiln_kafka_acks acks;
    assert_int_equal(kiln_kafka_acks_init(&acks, NULL), 0);
    kiln_kafka_acks_gain(&acks, KILN_TOPIC_JOBS, 5);
    uint64_t good = kiln_kafka_acks_begin(&acks);
    take_and_ack(&acks, 0);
    uint64_t lost = kiln_kafka_acks_begin(&acks);
    take_and_ack(&acks, 1);
    uint64_t pending = kiln_kafka_acks_begin(&acks);
    kiln_kafka_acks_settle(&acks, lost, true);
    kiln_kafka_acks_settle(&acks, good, false);
    assert_true(kiln_kafka_acks_broken(&acks));
    assert_int_equal(collect(&acks), 1); // what came before it counts
    take_and_ack(&acks, 2);
    assert_int_equal(collect(&acks), 0);
    kiln_kafka_acks_lose(&acks, KILN_TOPIC_JOBS, 5);
    kiln_kafka_acks_rewind(&acks);
    kiln_kafka_acks_gain(&acks, KILN_TOPIC_JOBS, 5);
    kiln_kafka_acks_settle(&acks, pending, true); // of before: its cause is read again already
    assert_false(kiln_kafka_acks_broken(&acks));
    take_and_ack(&acks, 1);
    assert_int_equal(collect(&acks), 2);
    kiln_kafka_acks_release(&acks);
}

static void what_nobody_reports_on_has_failed(void **state) {
    (void)state;
    struct kiln_kafka_acks acks;
    assert_int_equal(kiln_kafka_acks_init(&acks, NULL), 0);
    kiln_kafka_acks_gain(&acks, KILN_TOPIC_JOBS, 5);
    (void)kiln_kafka_acks_begin(&acks);
    uint64_t reported = kiln_kafka_acks_begin(&acks), last = kiln_kafka_acks_begin(&acks), next = kiln_kafka_acks_begin(&acks);
    take_and_ack(&acks, 0);
    kiln_kafka_acks_settle(&acks, reported, false);
    assert_int_equal(kiln_kafka_acks_last(&acks), next);
    kiln_kafka_acks_abandon(&acks, last);
    assert_int_equal(acks.settled, last);
    kiln_kafka_acks_settle(&acks, next, false);
    assert_int_equal(acks.settled, next);
    assert_true(kiln_kafka_acks_broken(&acks));
    assert_int_equal(collect(&acks), 0);
    kiln_kafka_acks_release(&acks);
}

static void unsettled_publishes_are_bounded(void **state) {
    (void)state;
    struct kiln_kafka_acks acks;
    assert_int_equal(kiln_kafka_acks_init(&acks, NULL), 0);
    for (unsigned round = 0; round < 2; round++) { // round the ring
        uint64_t first = kiln_kafka_acks_begin(&acks);
        for (unsigned i = 1; i < KILN_KAFKA_UNSETTLED_MAX; i++)
            assert_int_equal(kiln_kafka_acks_begin(&acks), first + i);
        assert_int_equal(kiln_kafka_acks_begin(&acks), 0);
        for (unsigned i = KILN_KAFKA_UNSETTLED_MAX; i > 0; i--)
            kiln_kafka_acks_settle(&acks, first + i - 1, false);
        assert_int_equal(acks.settled, first + KILN_KAFKA_UNSETTLED_MAX - 1);
    }
    kiln_kafka_acks_release(&acks);
}

static void put(struct kiln_kafka_queue *queue, enum kiln_record_news news, uint32_t partition, uint64_t offset, size_t len) {
    struct kiln_record record = {.news = news, .partition = partition, .offset = offset, .value = len ? calloc(1, len) : NULL, .value_len = len};
    assert_int_equal(kiln_kafka_queue_put(queue, &record, NULL), 0);
}

static struct kiln_record take(struct kiln_kafka_queue *queue) {
    struct kiln_record record = {0};
    assert_int_equal(kiln_kafka_queue_take(queue, 0, &record, NULL), 0);
    free(record.value);
    record.value = NULL;
    return record;
}

static void lost_comes_first_and_is_waited_for(void **state) {
    (void)state;
    struct kiln_kafka_queue queue;
    assert_int_equal(kiln_kafka_queue_init(&queue, NULL), 0);
    put(&queue, KILN_NEWS_GAINED, 1, 0, 0);
    assert_int_equal(take(&queue).news, KILN_NEWS_GAINED);
    put(&queue, KILN_NEWS_RECORD, 2, 7, 10);
    put(&queue, KILN_NEWS_RECORD, 1, 8, 10);
    assert_int_equal(kiln_kafka_queue_put_lost(&queue, 1, NULL), 0);
    assert_int_equal(take(&queue).news, KILN_NEWS_LOST);
    uint64_t begun_ms = kiln_clock_ms();
    kiln_kafka_queue_wait_for_lost(&queue, begun_ms + 50); // taken, but its taker may still act on what it has
    assert_true(kiln_clock_ms() - begun_ms >= 50);
    assert_int_equal(take(&queue).partition, 2); // the record of 1 is gone
    begun_ms = kiln_clock_ms();
    kiln_kafka_queue_wait_for_lost(&queue, begun_ms + 10000);
    assert_true(kiln_clock_ms() - begun_ms < 5000);
    struct kiln_record record;
    assert_int_equal(kiln_kafka_queue_take(&queue, 0, &record, NULL), KILN_E_TIMEOUT);
    put(&queue, KILN_NEWS_GAINED, 3, 0, 0); // never told, so never taken back
    put(&queue, KILN_NEWS_RECORD, 3, 0, 10);
    assert_int_equal(kiln_kafka_queue_put_lost(&queue, 3, NULL), 0);
    assert_int_equal(kiln_kafka_queue_take(&queue, 0, &record, NULL), KILN_E_TIMEOUT);
    kiln_kafka_queue_release(&queue);
}

static void the_queue_is_bounded_and_seen(void **state) {
    (void)state;
    struct kiln_kafka_queue queue;
    assert_int_equal(kiln_kafka_queue_init(&queue, NULL), 0);
    struct pollfd watch = {.fd = queue.event_fd, .events = POLLIN};
    assert_int_equal(poll(&watch, 1, 0), 0);
    for (unsigned i = 0; i < KILN_KAFKA_QUEUE_RECORDS_MAX; i++) {
        assert_true(kiln_kafka_queue_wait_for_room(&queue, 0));
        put(&queue, KILN_NEWS_RECORD, 0, i, 1);
    }
    assert_false(kiln_kafka_queue_wait_for_room(&queue, 0));
    assert_int_equal(poll(&watch, 1, 0), 1);
    for (unsigned i = 0; i < KILN_KAFKA_QUEUE_RECORDS_MAX; i++)
        assert_int_equal(take(&queue).offset, i);
    assert_int_equal(poll(&watch, 1, 0), 0);
    for (unsigned i = 0; i < KILN_KAFKA_QUEUE_BYTES_MAX / KILN_RECORD_BYTES_MAX; i++)
        put(&queue, KILN_NEWS_RECORD, 0, i, KILN_RECORD_BYTES_MAX);
    assert_false(kiln_kafka_queue_wait_for_room(&queue, 0));
    const struct kiln_err failure = {.code = KILN_E_CLOSED, .fatal = true, .text = "fenced"};
    kiln_kafka_queue_fail(&queue, &failure);
    struct kiln_err err = {0};
    struct kiln_record record;
    for (unsigned i = 0; i < KILN_KAFKA_QUEUE_BYTES_MAX / KILN_RECORD_BYTES_MAX; i++)
        take(&queue);
    assert_int_equal(kiln_kafka_queue_take(&queue, kiln_clock_ms() + 10000, &record, &err), KILN_E_CLOSED); // at once, and for ever
    assert_string_equal(err.text, "fenced");
    assert_int_equal(poll(&watch, 1, 0), 1);
    kiln_kafka_queue_release(&queue);
}

// One record through a gate: NULL when it comes in.
static const char *admit(struct kiln_kafka_gate *gate, uint8_t incarnation, uint32_t partition, uint64_t sequence, uint64_t offset) {
    unsigned char value[64], fingerprint[8];
    struct kiln_frame frame;
    size_t len = rig_frame(KILN_RECORD_job_uploaded, "x", value);
    assert_int_equal(kiln_frame_describe(value, len, &frame, NULL), 0);
    for (int i = 0; i < 8; i++)
        fingerprint[i] = (unsigned char)(frame.fingerprint >> (56 - 8 * i));
    struct kiln_author author = {.incarnation = rig_incarnation(incarnation), .sequence = sequence, .at_ms = 1000000};
    strcpy(author.principal, "agent-1");
    const struct kiln_statement statement = {.topic = "kiln.jobs", .partition = partition, .value = value, .value_len = len};
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    assert_int_equal(kiln_statement_sign(&statement, &author, rig.all[RIG_AGENT].key, &header, NULL), 0);
    const struct kiln_kafka_arrival arrival = {
        .topic = KILN_TOPIC_JOBS, .topic_name = "kiln.jobs", .partition = partition, .offset = offset, .value = value, .value_len = len,
        .signature = header.data, .signature_len = header.len, .fingerprint = fingerprint, .fingerprint_len = 8, .now_ms = 1000000};
    struct kiln_author found;
    return kiln_kafka_gate_admit(gate, &arrival, &found);
}

static void replays_are_told_from_deliveries_again(void **state) {
    (void)state;
    struct kiln_kafka_gate *gate;
    const struct kiln_kafka_gate_options options = {.find = rig_find, .window_max = 4};
    assert_int_equal(kiln_kafka_gate_new(&options, &gate, NULL), 0);
    assert_null(admit(gate, 1, 0, 5, 10));
    assert_null(admit(gate, 1, 0, 5, 10)); // the bus gives it again
    assert_null(admit(gate, 1, 0, 6, 11));
    assert_null(admit(gate, 1, 0, 5, 10));
    assert_non_null(admit(gate, 1, 0, 6, 12)); // somebody wrote it again
    assert_non_null(admit(gate, 1, 0, 5, 12));
    assert_null(admit(gate, 1, 1, 3, 0)); // each partition for itself
    assert_null(admit(gate, 2, 0, 1, 13)); // each incarnation too
    assert_null(admit(gate, 1, 0, 7, 14));
    for (uint8_t other = 10; other < 14; other++) // the window is bounded: the oldest go
        assert_null(admit(gate, other, 0, 1, 20));
    assert_null(admit(gate, 1, 0, 7, 30));
    assert_non_null(admit(gate, 13, 0, 1, 31));
    kiln_kafka_gate_free(gate);
}

static int setup(void **state) {
    (void)state;
    snprintf(rig.brokers, sizeof rig.brokers, "127.0.0.1:1");
    rig.partitions = 4;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(rights),
        cmocka_unit_test(settings_that_break_promises_are_refused),
        cmocka_unit_test(what_is_no_setting_is_refused),
        cmocka_unit_test(promises_are_in_the_settings),
        cmocka_unit_test(result_partitions),
        cmocka_unit_test(acks_wait_for_what_was_published_before),
        cmocka_unit_test(acks_of_what_is_not_ours_are_nothing),
        cmocka_unit_test(a_failed_publish_voids_the_acks_behind_it),
        cmocka_unit_test(what_nobody_reports_on_has_failed),
        cmocka_unit_test(unsettled_publishes_are_bounded),
        cmocka_unit_test(lost_comes_first_and_is_waited_for),
        cmocka_unit_test(the_queue_is_bounded_and_seen),
        cmocka_unit_test(replays_are_told_from_deliveries_again),
    };
    rig_principals_new();
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    rig_principals_free();
    return failed;
}
