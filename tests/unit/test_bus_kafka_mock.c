// The Kafka bus against librdkafka's own mock brokers: what it does with records, refusals, failures and the end of brokers.
// What the mock cannot show (rights, TLS, logs that are compacted) is in tests/integration/test_bus_kafka.c.
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <librdkafka/rdkafka.h>
#ifndef RD_EXPORT // the mock's header uses what the other one takes back
#define RD_EXPORT
#endif
#include <librdkafka/rdkafka_mock.h>

#include "lib/bus/bus_kafka_handle.h"
#include "tests/unit/kafka_rig.h"

#define PARTITIONS 4u

static rd_kafka_t *mock_host;
static rd_kafka_mock_cluster_t *mock;

// The mock answers an empty fetch only after its whole wait.
static const struct kiln_kafka_setting quick[] = {{"fetch.wait.max.ms", "5"}, {"session.timeout.ms", "6000"}};
#define QUICK quick, 2

static void quiet(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk, (void)level, (void)facility, (void)text;
}

static int setup(void **state) {
    (void)state;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, quiet);
    mock_host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, NULL, 0);
    assert_non_null(mock_host);
    mock = rd_kafka_mock_cluster_new(mock_host, 1);
    assert_non_null(mock);
    static const char *const topics[] = {"kiln.jobs",       "kiln.work",  "kiln.credits", "kiln.leases", "kiln.candidates",
                                         "kiln.results.red", "kiln.state", "kiln.ledger",  "kiln.events", "kiln.dlq",
                                         "kiln.results.blue"};
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        assert_int_equal(rd_kafka_mock_topic_create(mock, topics[i], PARTITIONS, 1), 0);
    snprintf(rig.brokers, sizeof rig.brokers, "%s", rd_kafka_mock_cluster_bootstraps(mock));
    rig.partitions = PARTITIONS;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    rd_kafka_mock_cluster_destroy(mock);
    rd_kafka_destroy(mock_host);
    return 0;
}

static void broker_down(void) { assert_int_equal(rd_kafka_mock_broker_set_down(mock, 1), 0); }
static void broker_up(void) { assert_int_equal(rd_kafka_mock_broker_set_up(mock, 1), 0); }

static const struct kiln_bus_subscription results_now = {KILN_TOPIC_RESULTS, true}, work_now = {KILN_TOPIC_WORK, true};

static struct kiln_bus *open_verifier(int who, uint8_t incarnation, unsigned partitions) {
    struct kiln_bus *bus = rig_open(who, incarnation, QUICK);
    uint64_t mask = 0;
    rig_subscribe(bus, rig_group, RIG_GROUP_COUNT);
    assert_true(rig_await_gained(bus, partitions, 20000, &mask));
    return bus;
}

static void records_go_round_with_their_authors(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, 1, PARTITIONS);
    struct kiln_bus *agent = rig_open(RIG_AGENT, 2, QUICK);
    rig_subscribe(agent, &results_now, 1);
    rig_put(agent, KILN_TOPIC_JOBS, 2, "key", "job");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 10000, &record));
    assert_int_equal(record.topic, KILN_TOPIC_JOBS);
    assert_int_equal(record.partition, 2);
    assert_int_equal(record.key_len, 3);
    assert_memory_equal(record.key, "key", 3);
    assert_true(rig_is(&record, "job"));
    assert_int_equal(record.author.role, KILN_ROLE_OF_AGENT);
    assert_string_equal(record.author.principal, "agent-1");
    assert_string_equal(record.author.tenant, "red");
    assert_int_equal(record.author.incarnation.bytes[0], 2);
    assert_true(record.author.sequence > 0);

    unsigned char value[64];
    size_t len = rig_frame(KILN_RECORD_answer, "answer", value);
    uint32_t partition = kiln_kafka_result_partition("agent-1", &record.author.incarnation, PARTITIONS);
    kiln_record_release(&record);
    assert_int_equal(kiln_bus_publish_result(verifier, "blue", partition, "k", 1, value, len, NULL), 0); // not the agent's
    assert_int_equal(kiln_bus_publish_result(verifier, "red", (partition + 1) % PARTITIONS, "k", 1, value, len, NULL), 0);
    assert_int_equal(kiln_bus_publish_result(verifier, "red", partition, "k", 1, value, len, NULL), 0);
    assert_true(rig_await(agent, KILN_NEWS_RECORD, 10000, &record));
    assert_int_equal(record.partition, partition);
    assert_int_equal(record.author.role, KILN_ROLE_OF_VERIFIER);
    assert_true(rig_is(&record, "answer"));
    kiln_record_release(&record);
    assert_int_equal(rig_next(agent, 200, &record), KILN_E_TIMEOUT);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void from_the_end_is_from_the_end(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_bus *verifier = rig_open(RIG_VERIFIER, 1, QUICK), *executor = rig_open(RIG_EXECUTOR, 2, QUICK);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        rig_put(verifier, KILN_TOPIC_WORK, i, "k", "before");
    kiln_kafka_acks_wait_settled(&kiln_kafka_of(verifier)->acks, kiln_clock_ms() + 10000);
    uint64_t begun_ms = kiln_clock_ms();
    rig_subscribe(executor, &work_now, 1);
    assert_true(kiln_clock_ms() - begun_ms < 450); // a logical offset would cost 500 ms
    for (uint32_t i = 0; i < PARTITIONS; i++)
        rig_put(verifier, KILN_TOPIC_WORK, i, "k", "after"); // any partition: an executor reads them all
    for (uint32_t i = 0; i < PARTITIONS; i++) {
        assert_true(rig_await(executor, KILN_NEWS_RECORD, 10000, &record));
        assert_true(rig_is(&record, "after"));
        kiln_record_release(&record);
    }
    struct kiln_bus *reader = rig_open(RIG_READER, 3, QUICK);
    const struct kiln_bus_subscription all_work = {KILN_TOPIC_WORK, false};
    rig_subscribe(reader, &all_work, 1);
    unsigned befores = 0;
    for (uint32_t i = 0; i < 2 * PARTITIONS; i++) {
        assert_true(rig_await(reader, KILN_NEWS_RECORD, 10000, &record));
        befores += rig_is(&record, "before");
        kiln_record_release(&record);
    }
    assert_int_equal(befores, PARTITIONS);
    kiln_bus_close(reader);
    kiln_bus_close(executor);
    kiln_bus_close(verifier);
}

static void the_descriptor_is_readable_with_a_record(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_bus *verifier = rig_open(RIG_VERIFIER, 1, QUICK), *executor = rig_open(RIG_EXECUTOR, 2, QUICK);
    rig_subscribe(executor, &work_now, 1);
    struct pollfd watch = {.fd = kiln_bus_fd(executor), .events = POLLIN};
    assert_int_equal(poll(&watch, 1, 0), 0);
    rig_put(verifier, KILN_TOPIC_WORK, 0, "k", "work");
    assert_int_equal(poll(&watch, 1, 10000), 1);
    assert_int_equal(rig_next(executor, 0, &record), 0);
    kiln_record_release(&record);
    assert_int_equal(poll(&watch, 1, 0), 0);
    kiln_bus_close(executor);
    kiln_bus_close(verifier);
}

static void roles_are_held_to_their_topics(void **state) {
    (void)state;
    struct kiln_bus *agent = rig_open(RIG_AGENT, 1, QUICK), *reader = rig_open(RIG_READER, 2, QUICK);
    assert_int_equal(rig_try_put(agent, KILN_TOPIC_CANDIDATES, 0, "k", "x", NULL), KILN_E_DENIED);
    assert_int_equal(rig_try_put(agent, KILN_TOPIC_STATE, 0, "k", "x", NULL), KILN_E_DENIED);
    assert_int_equal(rig_try_put(reader, KILN_TOPIC_EVENTS, 0, "k", "x", NULL), KILN_E_DENIED);
    assert_int_equal(kiln_bus_publish_result(agent, "red", 0, "k", 1, "\0\0\0\x03\xf3", 5, NULL), KILN_E_DENIED);
    const struct kiln_bus_subscription jobs = {KILN_TOPIC_JOBS, false};
    assert_int_equal(kiln_bus_subscribe(agent, &jobs, 1, NULL), KILN_E_DENIED);
    assert_int_equal(kiln_bus_publish(agent, KILN_TOPIC_JOBS, 0, "k", 1, "no frame", 8, NULL), KILN_E_CORRUPT);
    kiln_bus_close(agent);
    kiln_bus_close(reader);
}

// What anybody who may write to the topic can put there, without our code.
struct forged {
    const char *reason;
    int who, signs_for; // signs_for: the name in the header
    bool no_signature, twice, no_fingerprint, wrong_fingerprint, other_value, other_topic, other_partition, no_frame;
    int64_t late_ms;
    uint64_t sequence;
};

static void forge(rd_kafka_t *rk, const struct forged *how) {
    unsigned char value[64], fingerprint[8];
    size_t len = rig_frame(KILN_RECORD_credit, how->reason, value);
    if (how->no_frame)
        value[0] = 7;
    struct kiln_author author = {.sequence = how->sequence, .incarnation = rig_incarnation(0x77)};
    author.at_ms = kiln_clock_wall_ms() + (uint64_t)how->late_ms;
    snprintf(author.principal, sizeof author.principal, "%s", rig.all[how->signs_for].enrolled.name);
    const struct kiln_statement statement = {
        .topic = how->other_topic ? "kiln.leases" : "kiln.jobs",
        .partition = how->other_partition ? 3 : 0,
        .key = "k",
        .key_len = 1,
        .value = how->other_value ? (const void *)"else" : value,
        .value_len = how->other_value ? 4 : len,
    };
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    assert_int_equal(kiln_statement_sign(&statement, &author, rig.all[how->who].key, &header, NULL), 0);
    struct kiln_frame frame = {.fingerprint = 0};
    (void)kiln_frame_describe(value, len, &frame, NULL);
    for (int i = 0; i < 8; i++)
        fingerprint[i] = (unsigned char)(frame.fingerprint >> (56 - 8 * i));
    fingerprint[0] ^= how->wrong_fingerprint;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(4);
    for (int i = 0; i < (how->no_signature ? 0 : how->twice ? 2 : 1); i++)
        rd_kafka_header_add(headers, "kiln-sig", -1, header.data, (ssize_t)header.len);
    if (!how->no_fingerprint)
        rd_kafka_header_add(headers, "kiln-fp", -1, fingerprint, sizeof fingerprint);
    rd_kafka_resp_err_t error =
        rd_kafka_producev(rk, RD_KAFKA_V_TOPIC("kiln.jobs"), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                          RD_KAFKA_V_KEY("k", 1), RD_KAFKA_V_VALUE(value, len), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
    assert_int_equal(error, 0);
}

#define BY_AGENT .who = RIG_AGENT, .signs_for = RIG_AGENT
static const struct forged forgeries[] = {
    {"signature: there is not exactly one header kiln-sig", BY_AGENT, .no_signature = true, .sequence = 1},
    {"signature: there is not exactly one header kiln-sig", BY_AGENT, .twice = true, .sequence = 2},
    {"signature: kiln-sig does not hold for this record", .who = RIG_STRANGER, .signs_for = RIG_AGENT, .sequence = 3},
    {"signature: kiln-sig does not hold for this record", BY_AGENT, .other_value = true, .sequence = 4},
    {"signature: kiln-sig does not hold for this record", BY_AGENT, .other_topic = true, .sequence = 5},
    {"signature: kiln-sig does not hold for this record", BY_AGENT, .other_partition = true, .sequence = 6},
    {"unknown_principal: the trust record in force does not have who signed it", .who = RIG_STRANGER,
     .signs_for = RIG_STRANGER, .sequence = 7},
    {"wrong_role: who signed it may not write this topic", .who = RIG_EXECUTOR, .signs_for = RIG_EXECUTOR, .sequence = 8},
    {"clock: it was signed too long ago", BY_AGENT, .late_ms = -11 * 60 * 1000, .sequence = 9},
    {"clock: it was signed in the future", BY_AGENT, .late_ms = 11 * 60 * 1000, .sequence = 10},
    {"fingerprint: there is not exactly one header kiln-fp of 8 bytes", BY_AGENT, .no_fingerprint = true, .sequence = 20},
    {"fingerprint: kiln-fp is not that of the schema the record names", BY_AGENT, .wrong_fingerprint = true, .sequence = 21},
    {"framing: the record names no schema that is known", BY_AGENT, .no_frame = true, .sequence = 22},
    {NULL, BY_AGENT, .sequence = 30},
    {"replayed: its sequence is not above that of an earlier record", BY_AGENT, .sequence = 30},
    {"replayed: its sequence is not above that of an earlier record", BY_AGENT, .sequence = 29},
    {NULL, BY_AGENT, .sequence = 31},
};
enum { FORGERIES = sizeof forgeries / sizeof *forgeries };

static rd_kafka_t *raw_producer(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", rig.brokers, NULL, 0);
    rd_kafka_conf_set(conf, "max.in.flight", "1", NULL, 0);
    rd_kafka_conf_set_log_cb(conf, quiet);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, NULL, 0);
    assert_non_null(rk);
    return rk;
}

static void what_cannot_be_believed_is_refused(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_kafka_stats stats;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, 1, PARTITIONS);
    rd_kafka_t *rk = raw_producer();
    unsigned refusals = 0;
    for (int i = 0; i < FORGERIES; i++) {
        struct forged forged = forgeries[i];
        forged.reason = forged.reason ? "bad" : "good";
        forge(rk, &forged);
    }
    assert_int_equal(rd_kafka_flush(rk, 10000), 0);
    rd_kafka_destroy(rk);
    for (int i = 0; i < FORGERIES; i++) {
        assert_int_equal(rig_next(verifier, 10000, &record), 0);
        assert_int_equal(record.offset, i);
        if (forgeries[i].reason) {
            assert_int_equal(record.news, KILN_NEWS_REFUSED);
            assert_string_equal(record.why, forgeries[i].reason);
            assert_true(forgeries[i].no_frame || rig_is(&record, "bad")); // verbatim, for kiln.dlq
            refusals++;
        } else {
            assert_int_equal(record.news, KILN_NEWS_RECORD);
            assert_true(rig_is(&record, "good"));
        }
        assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
        kiln_record_release(&record);
    }
    kiln_bus_kafka_stats(verifier, &stats);
    assert_int_equal(stats.refused, refusals);
    kiln_bus_close(verifier);
}

static bool await_commits(struct kiln_bus *bus, uint64_t at_least) {
    struct kiln_kafka_stats stats;
    struct kiln_record record;
    uint64_t until_ms = kiln_clock_ms() + 10000;
    do {
        kiln_bus_kafka_stats(bus, &stats);
        if (stats.commits < at_least && kiln_bus_poll(bus, kiln_clock_ms() + 20, &record, NULL) == 0)
            kiln_record_release(&record);
    } while (stats.commits < at_least && kiln_clock_ms() < until_ms);
    return stats.commits >= at_least;
}

static int64_t committed(const char *topic, int32_t partition) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", rig.brokers, NULL, 0);
    rd_kafka_conf_set(conf, "group.id", "kiln-verifiers", NULL, 0);
    rd_kafka_conf_set_log_cb(conf, quiet);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, NULL, 0);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition);
    assert_int_equal(rd_kafka_committed(rk, list, 10000), 0);
    int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return offset;
}

static void acks_are_committed_and_unacked_records_come_again(void **state) {
    (void)state;
    struct kiln_record records[5], record;
    struct kiln_bus *agent = rig_open(RIG_AGENT, 2, QUICK);
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, 1, PARTITIONS);
    static const char *const names[] = {"0", "1", "2", "3", "4"};
    for (int i = 0; i < 5; i++)
        rig_put(agent, KILN_TOPIC_JOBS, 1, "k", names[i]);
    for (int i = 0; i < 5; i++)
        assert_true(rig_await(verifier, KILN_NEWS_RECORD, 10000, &records[i]));
    rig_put(verifier, KILN_TOPIC_STATE, 1, "k", "state");
    assert_int_equal(kiln_bus_ack(verifier, &records[2], NULL), 0); // and 0, 1
    assert_int_equal(kiln_bus_ack(verifier, &records[0], NULL), 0); // out of order: nothing is taken back
    assert_true(await_commits(verifier, 1));
    assert_int_equal(committed("kiln.jobs", 1), 3);
    assert_int_equal(kiln_bus_ack(verifier, &records[3], NULL), 0); // the close commits this one
    kiln_bus_close(verifier);
    assert_int_equal(committed("kiln.jobs", 1), 4);
    verifier = open_verifier(RIG_VERIFIER, 3, PARTITIONS);
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 10000, &record));
    assert_true(rig_is(&record, "4"));
    kiln_record_release(&record);
    for (int i = 0; i < 5; i++)
        kiln_record_release(&records[i]);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

// A verifier's record is lost after publish() took it: what caused it is given again, after LOST and GAINED.
static void a_lost_publish_brings_its_cause_again(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_kafka_stats stats;
    const struct kiln_kafka_setting hasty[] = {{"fetch.wait.max.ms", "5"}, {"message.timeout.ms", "1000"}};
    struct kiln_bus *agent = rig_open(RIG_AGENT, 2, QUICK), *verifier = rig_open(RIG_VERIFIER, 1, hasty, 2);
    uint64_t mask = 0;
    rig_subscribe(verifier, rig_group, RIG_GROUP_COUNT);
    assert_true(rig_await_gained(verifier, PARTITIONS, 20000, &mask));
    rig_put(agent, KILN_TOPIC_JOBS, 0, "k", "job");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 10000, &record));
    rd_kafka_mock_topic_set_error(mock, "kiln.state", RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    for (int i = 0; i < 64; i++) // whatever the client tries within its second
        rd_kafka_mock_push_request_errors(mock, 0 /* Produce */, 1, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    rig_put(verifier, KILN_TOPIC_STATE, 0, "k", "state");
    assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
    kiln_record_release(&record);
    assert_true(rig_await(verifier, KILN_NEWS_LOST, 20000, &record));
    assert_true(rig_await(verifier, KILN_NEWS_GAINED, 20000, &record));
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 20000, &record));
    assert_true(rig_is(&record, "job"));
    kiln_bus_kafka_stats(verifier, &stats);
    assert_true(stats.failed >= 1);
    assert_int_equal(stats.rewinds, 1);
    assert_int_equal(committed("kiln.jobs", 0), RD_KAFKA_OFFSET_INVALID);
    rd_kafka_mock_clear_request_errors(mock, 0);
    rd_kafka_mock_topic_set_error(mock, "kiln.state", RD_KAFKA_RESP_ERR_NO_ERROR);
    rig_put(verifier, KILN_TOPIC_STATE, 0, "k", "state"); // and now it holds
    assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
    kiln_record_release(&record);
    assert_true(await_commits(verifier, 1));
    assert_int_equal(committed("kiln.jobs", 0), 1);
    kiln_bus_close(verifier);
    kiln_bus_close(agent);
}

static void a_fatal_producer_is_made_anew(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_kafka_stats stats;
    struct kiln_bus *verifier = rig_open(RIG_VERIFIER, 1, QUICK), *executor = rig_open(RIG_EXECUTOR, 2, QUICK);
    rig_subscribe(executor, &work_now, 1);
    rig_put(verifier, KILN_TOPIC_WORK, 0, "k", "one");
    assert_true(rig_await(executor, KILN_NEWS_RECORD, 10000, &record));
    kiln_record_release(&record);
    assert_int_equal(rd_kafka_test_fatal_error(kiln_kafka_of(verifier)->producer.rk, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "test"), 0);
    uint64_t until_ms = kiln_clock_ms() + 10000;
    while (rig_try_put(verifier, KILN_TOPIC_WORK, 0, "k", "two", NULL) && kiln_clock_ms() < until_ms)
        rig_next(executor, 10, &record);
    assert_true(rig_await(executor, KILN_NEWS_RECORD, 10000, &record)); // and its sequence goes on: it is no replay
    assert_true(rig_is(&record, "two"));
    kiln_record_release(&record);
    kiln_bus_kafka_stats(verifier, &stats);
    assert_int_equal(stats.producers, 2);
    kiln_bus_close(executor);
    kiln_bus_close(verifier);
}

static void health_follows_the_brokers(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_bus *agent = rig_open(RIG_AGENT, 1, QUICK);
    assert_true(rig_await_health(agent, true, 5000));
    broker_down();
    assert_true(rig_await_health(agent, false, 5000));
    assert_int_equal(kiln_bus_healthy(agent, &err), KILN_E_IO);
    assert_int_equal(strncmp(err.text, "brokers: ", 9), 0);
    assert_true(err.retriable);
    uint64_t begun_us = kiln_clock_us();
    for (int i = 0; i < 1000; i++)
        (void)kiln_bus_healthy(agent, NULL);
    assert_true(kiln_clock_us() - begun_us < 100000);
    broker_up();
    assert_true(rig_await_health(agent, true, 10000));
    kiln_bus_close(agent);
}

static void nobody_answers(void **state) { // a port that is listened on and never served
    (void)state;
    char before[sizeof rig.brokers];
    memcpy(before, rig.brokers, sizeof before);
    snprintf(rig.brokers, sizeof rig.brokers, "127.0.0.1:1");
    struct kiln_bus *agent = rig_open(RIG_AGENT, 1, QUICK);
    assert_true(rig_await_health(agent, false, 3000));
    rig_put(agent, KILN_TOPIC_JOBS, 0, "k", "job"); // taken, and lost
    memcpy(rig.brokers, before, sizeof before);
    uint64_t begun_ms = kiln_clock_ms();
    kiln_bus_close(agent);
    assert_true(kiln_clock_ms() - begun_ms < 3500);
}

static void closing_is_bounded(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, 1, PARTITIONS), *agent = rig_open(RIG_AGENT, 2, QUICK);
    rig_subscribe(agent, &results_now, 1);
    rig_put(agent, KILN_TOPIC_JOBS, 0, "k", "job");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 10000, &record));
    broker_down();
    rig_put(verifier, KILN_TOPIC_STATE, 0, "k", "state"); // never delivered
    (void)kiln_bus_ack(verifier, &record, NULL);
    kiln_record_release(&record);
    uint64_t begun_ms = kiln_clock_ms();
    kiln_bus_close(verifier);
    assert_true(kiln_clock_ms() - begun_ms < 3500);
    begun_ms = kiln_clock_ms();
    kiln_bus_close(agent);
    assert_true(kiln_clock_ms() - begun_ms < 3500);
    broker_up();
}

static int keep_text(void *context, const struct kiln_record *record) {
    char *text = context;
    snprintf(text + strlen(text), 64 - strlen(text), "%.*s=%.*s ", (int)record->key_len, record->key,
             (int)record->value_len - 5, record->value + 5);
    return record->author.role == KILN_ROLE_OF_VERIFIER ? 0 : KILN_E_INTERNAL;
}

static void state_is_restored(void **state) {
    (void)state;
    char text[64] = "";
    struct kiln_bus *verifier = rig_open(RIG_VERIFIER, 1, QUICK), *next = rig_open(RIG_VERIFIER_2, 2, QUICK);
    assert_int_equal(kiln_bus_restore(next, 1, kiln_clock_ms() + 10000, keep_text, text, NULL), 0);
    assert_string_equal(text, "");
    rig_put(verifier, KILN_TOPIC_STATE, 1, "a", "old");
    rig_put(verifier, KILN_TOPIC_STATE, 1, "b", "b");
    rig_put(verifier, KILN_TOPIC_STATE, 2, "c", "elsewhere");
    rig_put(verifier, KILN_TOPIC_STATE, 1, "a", "new");
    rig_put(verifier, KILN_TOPIC_STATE, 1, "d", "gone");
    assert_int_equal(kiln_bus_publish(verifier, KILN_TOPIC_STATE, 1, "d", 1, NULL, 0, NULL), 0);
    kiln_kafka_acks_wait_settled(&kiln_kafka_of(verifier)->acks, kiln_clock_ms() + 10000);
    assert_int_equal(kiln_bus_restore(next, 1, kiln_clock_ms() + 10000, keep_text, text, NULL), 0);
    assert_string_equal(text, "a=new b=b ");
    kiln_bus_close(next);
    kiln_bus_close(verifier);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--only") == 0)
        cmocka_set_test_filter(argv[2]);
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(records_go_round_with_their_authors),
        CASE(from_the_end_is_from_the_end),
        CASE(the_descriptor_is_readable_with_a_record),
        CASE(roles_are_held_to_their_topics),
        CASE(what_cannot_be_believed_is_refused),
        CASE(acks_are_committed_and_unacked_records_come_again),
        CASE(a_lost_publish_brings_its_cause_again),
        CASE(a_fatal_producer_is_made_anew),
        CASE(health_follows_the_brokers),
        CASE(nobody_answers),
        CASE(closing_is_bounded),
        CASE(state_is_restored),
    };
    rig_principals_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rig_principals_free();
    return failed;
}
