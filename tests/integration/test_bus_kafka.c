// The bus on a real broker, by mutual TLS and with the rights of each role: what librdkafka's mock cannot show.
// KILN_TEST_STACK=DIR: a stack that is up already (ops/stack); else one is made for this test.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "lib/bus/kafka_admin.h"
#include "tests/fleet/stack.h"
#include "tests/unit/kafka_rig.h"

#define PARTITIONS 4u
#define ALL_PARTITIONS ((1ull << PARTITIONS) - 1)

static struct stack stack;

// A group that misses a dead member soon. A verifier is told in its [kafka] section.
static const struct kiln_kafka_setting quick[] = {
    {"session.timeout.ms", "6000"}, {"heartbeat.interval.ms", "500"}, {"max.poll.interval.ms", "6000"}};
#define QUICK quick, 3

static void die(const char *what, const struct kiln_err *err) {
    fprintf(stderr, "%s: %s\n", what, err->text);
    exit(1);
}

static void add_right(struct kiln_kafka_right *rights, size_t *count, int who, enum kiln_kafka_thing thing, const char *name,
                      enum kiln_kafka_deed deed) {
    struct kiln_kafka_right *right = &rights[(*count)++];
    *right = (struct kiln_kafka_right){.thing = thing, .deed = deed};
    snprintf(right->principal, sizeof right->principal, "User:%s", rig.all[who].enrolled.name);
    snprintf(right->name, sizeof right->name, "%s%s", rig.prefix, name);
}

static void make_topics(struct kiln_kafka_admin *admin) {
    static const char *const names[] = {"kiln.jobs",         "kiln.work",   "kiln.credits", "kiln.leases", "kiln.candidates", "kiln.results.red",
                                        "kiln.results.blue", "kiln.ledger", "kiln.events",  "kiln.dlq",    "kiln.state"};
    enum { COUNT = sizeof names / sizeof *names };
    struct kiln_kafka_topic topics[COUNT] = {0};
    struct kiln_err err = {0};
    size_t made;
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(topics[i].name, sizeof topics[i].name, "%s%s", rig.prefix, names[i]);
        topics[i].partitions = PARTITIONS;
        topics[i].replication = 1;
        topics[i].settings[0].name = "message.timestamp.type";
        topics[i].settings[0].value = "LogAppendTime";
        topics[i].settings[1].name = i == COUNT - 1 ? "cleanup.policy" : NULL;
        topics[i].settings[1].value = "compact";
    }
    if (kiln_kafka_admin_make_topics(admin, topics, COUNT, &made, &err))
        die("topics", &err);
}

static void give_rights(struct kiln_kafka_admin *admin) {
    static const char *const of_group[] = {"kiln.jobs", "kiln.credits", "kiln.leases", "kiln.candidates", "kiln.state"};
    static const char *const by_executor[] = {"kiln.credits", "kiln.leases", "kiln.candidates", "kiln.events"};
    static const char *const by_verifier[] = {"kiln.state", "kiln.work", "kiln.results.red", "kiln.results.blue", "kiln.ledger", "kiln.events", "kiln.dlq"};
    struct kiln_kafka_right rights[64];
    struct kiln_err err = {0};
    size_t count = 0;
    add_right(rights, &count, RIG_AGENT, KILN_KAFKA_TOPIC, "kiln.jobs", KILN_KAFKA_WRITE);
    add_right(rights, &count, RIG_AGENT, KILN_KAFKA_TOPIC, "kiln.results.red", KILN_KAFKA_READ);
    add_right(rights, &count, RIG_EXECUTOR, KILN_KAFKA_TOPIC, "kiln.work", KILN_KAFKA_READ);
    for (size_t i = 0; i < sizeof by_executor / sizeof *by_executor; i++)
        add_right(rights, &count, RIG_EXECUTOR, KILN_KAFKA_TOPIC, by_executor[i], KILN_KAFKA_WRITE);
    for (int who = RIG_VERIFIER; who <= RIG_VERIFIER_2; who++) {
        add_right(rights, &count, who, KILN_KAFKA_GROUP, "kiln-verifiers", KILN_KAFKA_READ);
        for (size_t i = 0; i < sizeof of_group / sizeof *of_group; i++)
            add_right(rights, &count, who, KILN_KAFKA_TOPIC, of_group[i], KILN_KAFKA_READ);
        for (size_t i = 0; i < sizeof by_verifier / sizeof *by_verifier; i++)
            add_right(rights, &count, who, KILN_KAFKA_TOPIC, by_verifier[i], KILN_KAFKA_WRITE);
    }
    if (kiln_kafka_admin_allow(admin, rights, count, &err))
        die("rights", &err);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    (void)rk, (void)opaque;
    *(rd_kafka_resp_err_t *)message->_private = message->err;
}

// A client with somebody's certificate and no code of ours.
static rd_kafka_t *stolen_client(rd_kafka_type_t type, const char *principal) {
    char path[1024];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", rig.brokers, NULL, 0), 0);
    assert_int_equal(rd_kafka_conf_set(conf, "security.protocol", "ssl", NULL, 0), 0);
    assert_int_equal(rd_kafka_conf_set(conf, "ssl.ca.location", rig.tls_ca, NULL, 0), 0);
    snprintf(path, sizeof path, "%s/%s/tls.crt", rig.tls_dir, principal);
    assert_int_equal(rd_kafka_conf_set(conf, "ssl.certificate.location", path, NULL, 0), 0);
    snprintf(path, sizeof path, "%s/%s/tls.key", rig.tls_dir, principal);
    assert_int_equal(rd_kafka_conf_set(conf, "ssl.key.location", path, NULL, 0), 0);
    rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", NULL, 0);
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *rk = rd_kafka_new(type, conf, NULL, 0);
    assert_non_null(rk);
    return rk;
}

static rd_kafka_resp_err_t find_topic(rd_kafka_t *rk, rd_kafka_topic_t *topic) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = rd_kafka_metadata(rk, 0, topic, &metadata, 10000);
    if (!error) {
        error = metadata->topics[0].err;
        rd_kafka_metadata_destroy(metadata);
    }
    return error;
}

static rd_kafka_topic_t *topic_of(rd_kafka_t *rk, const char *topic) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", rig.prefix, topic);
    rd_kafka_topic_t *handle = rd_kafka_topic_new(rk, name, NULL);
    assert_non_null(handle);
    return handle;
}

static rd_kafka_resp_err_t try_to_read(const char *principal, const char *topic) {
    rd_kafka_t *rk = stolen_client(RD_KAFKA_CONSUMER, principal);
    rd_kafka_topic_t *handle = topic_of(rk, topic);
    rd_kafka_resp_err_t error = find_topic(rk, handle);
    if (!error) {
        assert_int_equal(rd_kafka_consume_start(handle, 0, 0), 0);
        rd_kafka_message_t *message = rd_kafka_consume(handle, 0, 10000);
        assert_non_null(message);
        error = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF ? 0 : message->err;
        rd_kafka_message_destroy(message);
        rd_kafka_consume_stop(handle, 0);
    }
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(rk);
    return error;
}

static rd_kafka_resp_err_t try_to_write(const char *principal, const char *topic) {
    rd_kafka_t *rk = stolen_client(RD_KAFKA_PRODUCER, principal);
    rd_kafka_topic_t *handle = topic_of(rk, topic);
    rd_kafka_resp_err_t error = find_topic(rk, handle);
    if (!error && rd_kafka_produce(handle, 0, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)"x", 1, NULL, 0, &error))
        error = rd_kafka_last_error();
    rd_kafka_flush(rk, 10000);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(rk);
    return error;
}

// Rights take a moment to be known everywhere; these were given last.
static void await_rights(void) {
    uint64_t until_ms = kiln_clock_ms() + 20000;
    rd_kafka_t *rk = stolen_client(RD_KAFKA_PRODUCER, "verifier-2");
    rd_kafka_topic_t *handle = topic_of(rk, "kiln.dlq");
    while (find_topic(rk, handle) && kiln_clock_ms() < until_ms)
        rd_kafka_poll(rk, 20);
    rd_kafka_topic_destroy(handle);
    rd_kafka_destroy(rk);
}

// Each test has topics and a group of its own.
static int setup(void **state) {
    (void)state;
    static unsigned number;
    struct kiln_err err = {0};
    struct kiln_kafka_admin *admin;
    snprintf(rig.prefix, sizeof rig.prefix, "t%d-%u.", (int)getpid(), number++);
    char *cert = stack_role_file(&stack, "operator", "tls.crt"), *key = stack_role_file(&stack, "operator", "tls.key");
    const struct kiln_kafka_admin_options options = {.brokers = rig.brokers, .tls_ca = rig.tls_ca, .tls_cert = cert, .tls_key = key};
    if (kiln_kafka_admin_open(&options, &admin, &err))
        die("admin", &err);
    make_topics(admin);
    give_rights(admin);
    kiln_kafka_admin_close(admin);
    await_rights();
    free(cert);
    free(key);
    return 0;
}

static struct kiln_bus *open_verifier(int who, unsigned partitions, uint64_t *mask) {
    struct kiln_bus *bus = rig_open(who, (uint8_t)(0x10 + who), QUICK);
    rig_subscribe(bus, rig_group, RIG_GROUP_COUNT);
    assert_true(rig_await_gained(bus, partitions, 60000, mask));
    return bus;
}

static const struct kiln_bus_subscription results_now = {KILN_TOPIC_RESULTS, true}, work_now = {KILN_TOPIC_WORK, true};

static void put_results(struct kiln_bus *verifier, uint32_t partition, const char *body) {
    unsigned char value[256];
    size_t len = rig_frame(KILN_RECORD_answer, body, value);
    assert_int_equal(kiln_bus_publish_result(verifier, "red", partition, "k", 1, value, len, NULL), 0);
}

static void every_role_does_its_part(void **state) {
    (void)state;
    struct kiln_record record;
    uint64_t mask = 0;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, PARTITIONS, &mask);
    struct kiln_bus *agent = rig_open(RIG_AGENT, 1, NULL, 0), *executor = rig_open(RIG_EXECUTOR, 2, NULL, 0);
    rig_subscribe(agent, &results_now, 1);
    rig_subscribe(executor, &work_now, 1);
    rig_put(executor, KILN_TOPIC_CREDITS, 3, "k", "credit");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 20000, &record));
    assert_true(rig_is(&record, "credit"));
    assert_string_equal(record.author.pool, "north");
    assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
    kiln_record_release(&record);
    rig_put(agent, KILN_TOPIC_JOBS, 3, "k", "job");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 20000, &record));
    assert_true(rig_is(&record, "job"));
    struct kiln_author author = record.author;
    assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
    kiln_record_release(&record);
    rig_put(verifier, KILN_TOPIC_WORK, 2, "k", "work");
    assert_true(rig_await(executor, KILN_NEWS_RECORD, 20000, &record));
    assert_true(rig_is(&record, "work"));
    kiln_record_release(&record);
    put_results(verifier, kiln_kafka_result_partition(author.principal, &author.incarnation, PARTITIONS), "answer");
    assert_true(rig_await(agent, KILN_NEWS_RECORD, 20000, &record));
    assert_true(rig_is(&record, "answer"));
    kiln_record_release(&record);
    assert_int_equal(kiln_bus_healthy(verifier, NULL), 0);
    kiln_bus_close(executor);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void a_role_has_only_its_rights(void **state) {
    (void)state;
    const rd_kafka_resp_err_t denied = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    assert_int_equal(try_to_read("agent-1", "kiln.results.red"), 0);
    assert_int_equal(try_to_read("agent-1", "kiln.results.blue"), denied); // another tenant's
    assert_int_equal(try_to_write("agent-1", "kiln.jobs"), 0);
    assert_int_equal(try_to_read("agent-1", "kiln.jobs"), denied);
    assert_int_equal(try_to_write("agent-1", "kiln.candidates"), denied);
    assert_int_equal(try_to_write("agent-1", "kiln.results.red"), denied);
    assert_int_equal(try_to_write("executor-1", "kiln.jobs"), denied);
    assert_int_equal(try_to_write("executor-1", "kiln.work"), denied);
    assert_int_equal(try_to_read("executor-1", "kiln.candidates"), denied);
}

static void a_broker_of_another_authority_is_none(void **state) {
    (void)state;
    struct kiln_bus *bus;
    const char *before = rig.tls_ca;
    char own[1024];
    snprintf(own, sizeof own, "%s/agent-1/tls.crt", rig.tls_dir); // a certificate, and no authority of the broker's
    rig.tls_ca = own;
    bus = rig_open(RIG_AGENT, 1, NULL, 0);
    rig.tls_ca = before;
    assert_true(rig_await_health(bus, false, 5000));
    struct kiln_err err = {0};
    assert_true(kiln_bus_subscribe(bus, &results_now, 1, &err) < 0);
    kiln_bus_close(bus);
}

// The other verifier is a process: it says what it gains and gets, acks nothing, and is killed.
struct other {
    pid_t pid;
    FILE *says;
};

static void be_the_other(char **argv) {
    struct kiln_record record;
    snprintf(rig.brokers, sizeof rig.brokers, "%s", argv[2]);
    snprintf(rig.prefix, sizeof rig.prefix, "%s", argv[3]);
    rig.tls_ca = argv[4];
    rig.tls_dir = argv[5];
    rig.partitions = PARTITIONS;
    rig_principals_load(argv[6]);
    struct kiln_bus *bus = rig_open(RIG_VERIFIER_2, 0x99, QUICK);
    rig_subscribe(bus, rig_group, RIG_GROUP_COUNT);
    for (;;) {
        if (rig_next(bus, 1000, &record))
            continue;
        static const char *const words[] = {"record", "gained", "lost", "refused"};
        printf("%s %u\n", words[record.news], record.partition);
        fflush(stdout);
        kiln_record_release(&record);
    }
}

static void start_other(struct other *other) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    other->pid = fork();
    if (other->pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "other", "--verifier", rig.brokers, rig.prefix, rig.tls_ca, rig.tls_dir, rig.keys_dir, NULL);
        _exit(127);
    }
    close(ends[1]);
    other->says = fdopen(ends[0], "r");
    assert_non_null(other->says);
}

static void kill_other(struct other *other) {
    assert_int_equal(kill(other->pid, SIGKILL), 0);
    assert_int_equal(waitpid(other->pid, NULL, 0), other->pid);
    fclose(other->says);
}

static void a_killed_verifiers_jobs_come_to_the_other(void **state) {
    (void)state;
    struct kiln_record record;
    struct other other;
    char line[64];
    unsigned partition;
    uint64_t mine = 0, others = 0;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, PARTITIONS, &mine), *agent = rig_open(RIG_AGENT, 1, NULL, 0);
    start_other(&other);
    uint64_t until_ms = kiln_clock_ms() + 60000; // LOST of all, then GAINED of half
    do
        rig_await_gained(verifier, PARTITIONS / 2, 1000, &mine);
    while (__builtin_popcountll(mine) != PARTITIONS / 2 && kiln_clock_ms() < until_ms);
    while (__builtin_popcountll(others) < (int)PARTITIONS / 2 && fgets(line, sizeof line, other.says)) {
        if (sscanf(line, "gained %u", &partition) == 1)
            others |= 1ull << partition;
    }
    // Going through zero on the way down, mine may be met with two of four that are lost next: wait until both agree.
    while ((mine | others) != ALL_PARTITIONS && kiln_clock_ms() < until_ms) {
        if (kiln_bus_poll(verifier, kiln_clock_ms() + 100, &record, NULL) == 0)
            mine = record.news == KILN_NEWS_GAINED ? mine | 1ull << record.partition : record.news == KILN_NEWS_LOST ? mine & ~(1ull << record.partition) : mine;
    }
    assert_int_equal(mine | others, ALL_PARTITIONS);
    assert_int_equal(mine & others, 0);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        rig_put(agent, KILN_TOPIC_JOBS, i, "k", "job");
    for (unsigned got = 0; got < PARTITIONS / 2;) { // the other has its jobs in hand, and no ack of them
        assert_non_null(fgets(line, sizeof line, other.says));
        got += sscanf(line, "record %u", &partition) == 1;
    }
    for (unsigned got = 0; got < PARTITIONS / 2; got++) {
        assert_true(rig_await(verifier, KILN_NEWS_RECORD, 20000, &record));
        assert_true(mine >> record.partition & 1);
        assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
        kiln_record_release(&record);
    }
    kill_other(&other);
    uint64_t begun_ms = kiln_clock_ms(), gained = 0, jobs = 0;
    while (jobs != others && kiln_clock_ms() < begun_ms + 60000) {
        if (kiln_bus_poll(verifier, kiln_clock_ms() + 1000, &record, NULL))
            continue;
        if (record.news == KILN_NEWS_GAINED)
            gained |= 1ull << record.partition;
        if (record.news == KILN_NEWS_LOST)
            gained &= ~(1ull << record.partition);
        if (record.news == KILN_NEWS_RECORD) {
            assert_true(gained >> record.partition & 1); // never before it is said to be ours
            jobs |= 1ull << record.partition;
        }
        kiln_record_release(&record);
    }
    assert_int_equal(jobs, others); // the unacked ones, and not those that were acked here
    printf("partitions of a killed verifier come after %llu ms\n", (unsigned long long)(kiln_clock_ms() - begun_ms));
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void a_busy_verifier_stays_in_its_group(void **state) {
    (void)state;
    struct kiln_record record;
    struct kiln_kafka_stats stats;
    uint64_t mask = 0;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, PARTITIONS, &mask), *agent = rig_open(RIG_AGENT, 1, NULL, 0);
    rig_put(agent, KILN_TOPIC_JOBS, 0, "k", "long");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 20000, &record));
    kiln_record_release(&record);
    rig_put(agent, KILN_TOPIC_JOBS, 0, "k", "next");
    struct timespec busy = {.tv_sec = 20}; // the work itself, more than three times max.poll.interval.ms
    nanosleep(&busy, NULL);
    assert_int_equal(rig_next(verifier, 0, &record), 0);
    assert_int_equal(record.news, KILN_NEWS_RECORD);
    assert_true(rig_is(&record, "next"));
    assert_int_equal(kiln_bus_ack(verifier, &record, NULL), 0);
    kiln_record_release(&record);
    uint64_t until_ms = kiln_clock_ms() + 10000;
    do {
        assert_int_equal(rig_next(verifier, 50, &record), KILN_E_TIMEOUT); // no LOST either
        kiln_bus_kafka_stats(verifier, &stats);
    } while (!stats.commits && kiln_clock_ms() < until_ms);
    assert_true(stats.commits > 0); // as a member in good standing
    assert_int_equal(stats.commits_failed, 0);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

static void a_slow_reader_loses_nothing(void **state) {
    (void)state;
    enum { RECORDS = 6000, BYTES = 8 << 10 };
    static char body[BYTES + 1];
    unsigned char *value = malloc(BYTES + 64);
    struct kiln_record record;
    uint64_t mask = 0;
    memset(body, 'x', BYTES);
    struct kiln_kafka_stats stats;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, PARTITIONS, &mask), *executor = rig_open(RIG_EXECUTOR, 1, NULL, 0);
    for (unsigned i = 0; i < RECORDS; i++) { // 48 MiB: more than our own queue takes
        char number[9];
        snprintf(number, sizeof number, "%08u", i);
        memcpy(body, number, 8);
        size_t len = rig_frame(KILN_RECORD_credit, body, value);
        uint64_t until_ms = kiln_clock_ms() + 60000;
        while (kiln_bus_publish(executor, KILN_TOPIC_CREDITS, i % PARTITIONS, "k", 1, value, len, NULL))
            assert_true(kiln_clock_ms() < until_ms);
    }
    unsigned next[PARTITIONS] = {0, 1, 2, 3};
    for (unsigned i = 0; i < RECORDS; i++) {
        assert_true(rig_await(verifier, KILN_NEWS_RECORD, 30000, &record));
        assert_int_equal(strtoul((const char *)record.value + 5, NULL, 10), next[record.partition]);
        next[record.partition] += PARTITIONS;
        kiln_record_release(&record);
    }
    assert_int_equal(rig_next(verifier, 500, &record), KILN_E_TIMEOUT);
    kiln_bus_kafka_stats(executor, &stats);
    assert_int_equal(stats.failed, 0);
    kiln_bus_close(executor);
    kiln_bus_close(verifier);
    free(value);
}

struct echo {
    struct kiln_bus *bus;
    _Atomic bool stop;
};

static void *echo_run(void *arg) {
    struct echo *echo = arg;
    struct kiln_record record;
    while (!echo->stop) {
        if (kiln_bus_poll(echo->bus, kiln_clock_ms() + 100, &record, NULL))
            continue;
        if (record.news == KILN_NEWS_RECORD) {
            uint32_t partition = kiln_kafka_result_partition(record.author.principal, &record.author.incarnation, PARTITIONS);
            (void)kiln_bus_publish_result(echo->bus, "red", partition, "k", 1, record.value, record.value_len, NULL);
            (void)kiln_bus_ack(echo->bus, &record, NULL);
        }
        kiln_record_release(&record);
    }
    return NULL;
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;
    return one < two ? -1 : one > two;
}

static void two_hops_take_milliseconds(void **state) {
    (void)state;
    enum { ROUNDS = 300 };
    static uint64_t took_us[ROUNDS];
    struct kiln_record record;
    uint64_t mask = 0;
    struct echo echo = {.bus = open_verifier(RIG_VERIFIER, PARTITIONS, &mask)};
    struct kiln_bus *agent = rig_open(RIG_AGENT, 1, NULL, 0);
    pthread_t thread;
    rig_subscribe(agent, &results_now, 1);
    assert_int_equal(pthread_create(&thread, NULL, echo_run, &echo), 0);
    for (int i = -10; i < ROUNDS; i++) {
        uint64_t begun_us = kiln_clock_us();
        rig_put(agent, KILN_TOPIC_JOBS, (uint32_t)(i + 10) % PARTITIONS, "k", "ping");
        assert_true(rig_await(agent, KILN_NEWS_RECORD, 20000, &record));
        kiln_record_release(&record);
        if (i == -10)
            printf("the first round takes %llu us\n", (unsigned long long)(kiln_clock_us() - begun_us));
        if (i >= 0)
            took_us[i] = kiln_clock_us() - begun_us;
    }
    qsort(took_us, ROUNDS, sizeof *took_us, compare_numbers);
    printf("two hops: p50 %llu us, p90 %llu us, p99 %llu us\n", (unsigned long long)took_us[ROUNDS / 2],
           (unsigned long long)took_us[ROUNDS * 9 / 10], (unsigned long long)took_us[ROUNDS * 99 / 100]);
    assert_true(took_us[ROUNDS / 2] < 60000); // a trap of the library costs more
    echo.stop = true;
    pthread_join(thread, NULL);
    kiln_bus_close(agent);
    kiln_bus_close(echo.bus);
}

static int count_states(void *context, const struct kiln_record *record) {
    unsigned *counts = context;
    counts[0]++;
    counts[1] += rig_is(record, "new");
    return 0;
}

static void state_is_restored(void **state) {
    (void)state;
    unsigned counts[2] = {0};
    char key[16];
    struct kiln_bus *verifier = rig_open(RIG_VERIFIER, 1, QUICK), *next = rig_open(RIG_VERIFIER_2, 2, QUICK);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 500; i++) {
            snprintf(key, sizeof key, "key %d", i);
            rig_put(verifier, KILN_TOPIC_STATE, 1, key, round ? "new" : "old");
        }
    }
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key %d", i);
        assert_int_equal(kiln_bus_publish(verifier, KILN_TOPIC_STATE, 1, key, strlen(key), NULL, 0, NULL), 0);
    }
    kiln_bus_close(verifier); // everything is delivered
    uint64_t begun_ms = kiln_clock_ms();
    assert_int_equal(kiln_bus_restore(next, 1, kiln_clock_ms() + 20000, count_states, counts, NULL), 0);
    printf("1100 states are restored in %llu ms\n", (unsigned long long)(kiln_clock_ms() - begun_ms));
    assert_int_equal(counts[0], 400);
    assert_int_equal(counts[1], 400);
    begun_ms = kiln_clock_ms();
    assert_int_equal(kiln_bus_restore(next, 2, kiln_clock_ms() + 20000, count_states, counts, NULL), 0); // nothing there
    assert_int_equal(counts[0], 400);
    assert_true(kiln_clock_ms() - begun_ms < 5000);
    kiln_bus_close(next);
}

static void a_restart_of_the_broker_is_survived(void **state) {
    (void)state;
    struct kiln_record record;
    uint64_t mask = 0;
    struct kiln_bus *verifier = open_verifier(RIG_VERIFIER, PARTITIONS, &mask), *agent = rig_open(RIG_AGENT, 1, NULL, 0);
    rig_subscribe(agent, &results_now, 1);
    uint32_t partition = kiln_kafka_result_partition("agent-1", &(struct kiln_job_id){{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}, PARTITIONS);
    assert_int_equal(stack_stop(&stack, "kafka", true), 0);
    assert_true(rig_await_health(agent, false, 5000));
    rig_put(verifier, KILN_TOPIC_STATE, 0, "k", "while it is away"); // within its minute
    uint64_t begun_ms = kiln_clock_ms();
    struct kiln_bus *late = rig_open(RIG_AGENT, 9, NULL, 0);
    kiln_bus_close(late);
    assert_true(kiln_clock_ms() - begun_ms < 3500);
    assert_int_equal(stack_start(&stack, "kafka"), 0);
    assert_true(rig_await_health(agent, true, 30000));
    rig_put(agent, KILN_TOPIC_JOBS, 1, "k", "after");
    assert_true(rig_await(verifier, KILN_NEWS_RECORD, 60000, &record));
    assert_true(rig_is(&record, "after"));
    kiln_record_release(&record);
    put_results(verifier, partition, "answer");
    assert_true(rig_await(agent, KILN_NEWS_RECORD, 60000, &record));
    assert_true(rig_is(&record, "answer"));
    kiln_record_release(&record);
    kiln_bus_close(agent);
    kiln_bus_close(verifier);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--only") == 0)
        cmocka_set_test_filter(argv[2]);
    if (argc == 7 && strcmp(argv[1], "--verifier") == 0)
        be_the_other(argv);
    if (!stack_up(&stack)) {
        fprintf(stderr, "no stack: Kafka could not be started (ops/stack up)\n");
        return 77;
    }
    char *brokers = stack_env(&stack, "KILN_STACK_BROKERS"), *ca = stack_env(&stack, "KILN_STACK_CA"), *roles = stack_env(&stack, "KILN_STACK_ROLES");
    assert(brokers && ca && roles);
    snprintf(rig.brokers, sizeof rig.brokers, "%s", brokers);
    rig.tls_ca = ca;
    rig.tls_dir = roles;
    rig.partitions = PARTITIONS;
    rig_principals_new();
#define CASE(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        CASE(every_role_does_its_part),
        CASE(a_role_has_only_its_rights),
        CASE(a_broker_of_another_authority_is_none),
        CASE(a_killed_verifiers_jobs_come_to_the_other),
        CASE(a_busy_verifier_stays_in_its_group),
        CASE(a_slow_reader_loses_nothing),
        CASE(two_hops_take_milliseconds),
        CASE(state_is_restored),
        CASE(a_restart_of_the_broker_is_survived),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rig_principals_free();
    stack_down(&stack);
    free(brokers);
    free(ca);
    free(roles);
    return failed;
}
