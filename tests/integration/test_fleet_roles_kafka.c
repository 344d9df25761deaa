// Every role's certificate on every topic and group, and on the cluster itself, against the table that is meant: what is not
// in it is denied by the broker, whoever asks.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <librdkafka/rdkafka.h>

#include "lib/base/clock.h"
#include "tests/fleet/stack.h"

#define ANSWER_MS 20000

static const char *const topics[] = {
    "kiln.jobs",         "kiln.work",         "kiln.credits", "kiln.leases", "kiln.candidates", "kiln.results.red",
    "kiln.results.blue", "kiln.state",        "kiln.ledger",  "kiln.events", "kiln.dlq",
};
#define TOPICS_COUNT (sizeof topics / sizeof *topics)

// By topic, in the order above: w written, r read, b both, - neither. Then the group of the verifiers: g joined, - not.
static const struct {
    const char *principal, *topics, *group;
} expected[] = {
    {"agent-1", "w----r---w-", "-"},    {"agent-2", "w----r---w-", "-"},    {"agent-3", "w-----r--w-", "-"},
    {"verifier-1", "rwrrrwwbwww", "g"}, {"verifier-2", "rwrrrwwbwww", "g"}, {"executor-1", "-rwww----w-", "-"},
    {"executor-2", "-rwww----w-", "-"}, {"executor-3", "-rwww----w-", "-"}, {"reader", "rrrrrrrrrrr", "-"},
};

static struct stack stack;

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        fail_msg("%s: %s", name, why);
}

static void set_file(rd_kafka_conf_t *conf, const char *name, const char *principal, const char *file) {
    char *path = stack_role_file(&stack, principal, file);
    assert_non_null(path);
    set(conf, name, path);
    free(path);
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    *(rd_kafka_resp_err_t *)message->_private = message->err;
}

static void quiet(const rd_kafka_t *client, int level, const char *facility, const char *text) {
    (void)client, (void)level, (void)facility, (void)text;
}

static rd_kafka_t *client_of(const char *principal, rd_kafka_type_t type, const char *group) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char *brokers = stack_env(&stack, "KILN_STACK_BROKERS"), why[256];
    set(conf, "bootstrap.servers", brokers);
    free(brokers);
    set(conf, "security.protocol", "ssl");
    set_file(conf, "ssl.ca.location", principal, "ca.crt");
    set_file(conf, "ssl.certificate.location", principal, "tls.crt");
    set_file(conf, "ssl.key.location", principal, "tls.key");
    set(conf, "message.timeout.ms", "15000");
    if (type == RD_KAFKA_CONSUMER) {
        set(conf, "group.id", group);
        set(conf, "enable.auto.commit", "false");
    } else
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_log_cb(conf, quiet);
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    if (!client)
        fail_msg("%s", why);
    return client;
}

static const char *how(rd_kafka_resp_err_t outcome) { return rd_kafka_err2name(outcome); }

// The rest of the table's letters: allowed without an error, or refused for want of a right; anything else is a failure.
static void judge(const char *principal, const char *deed, const char *topic, rd_kafka_resp_err_t outcome, bool allowed) {
    bool denied = outcome == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || outcome == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
                  outcome == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    if (allowed ? outcome != RD_KAFKA_RESP_ERR_NO_ERROR : !denied)
        fail_msg("%s, %s %s: %s, and it should be %s", principal, deed, topic, how(outcome), allowed ? "allowed" : "denied");
}

static void produce_everywhere(const char *principal, rd_kafka_resp_err_t outcomes[TOPICS_COUNT]) {
    rd_kafka_t *client = client_of(principal, RD_KAFKA_PRODUCER, NULL);
    for (size_t i = 0; i < TOPICS_COUNT; i++) {
        outcomes[i] = RD_KAFKA_RESP_ERR__IN_PROGRESS;
        rd_kafka_resp_err_t rc = rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topics[i]), RD_KAFKA_V_PARTITION(0),
                                                   RD_KAFKA_V_KEY("k", 1), RD_KAFKA_V_VALUE((void *)"v", 1),
                                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(&outcomes[i]),
                                                   RD_KAFKA_V_END);
        if (rc)
            outcomes[i] = rc;
    }
    rd_kafka_flush(client, ANSWER_MS);
    rd_kafka_destroy(client);
}

static void writes(const char *principal, const char *letters) {
    rd_kafka_resp_err_t outcomes[TOPICS_COUNT];
    produce_everywhere(principal, outcomes);
    for (size_t i = 0; i < TOPICS_COUNT; i++)
        judge(principal, "writing", topics[i], outcomes[i], letters[i] == 'w' || letters[i] == 'b');
}

// Whether the broker shows the topic at all; a consumer of one that it does not show waits without a word.
static rd_kafka_resp_err_t find(rd_kafka_t *client, const char *name) {
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t outcome = rd_kafka_metadata(client, 0, topic, &metadata, ANSWER_MS);
    if (!outcome) {
        outcome = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN;
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(topic);
    return outcome;
}

// A consumer assigned to partition 0 of one topic: the first record (the operator wrote one) or the first error.
static rd_kafka_resp_err_t read_one(rd_kafka_t *client, const char *topic) {
    rd_kafka_resp_err_t outcome = find(client, topic);
    if (outcome)
        return outcome;
    rd_kafka_topic_partition_list_t *places = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(places, topic, 0)->offset = 0;
    outcome = rd_kafka_assign(client, places);
    rd_kafka_topic_partition_list_destroy(places);
    uint64_t deadline_ms = kiln_clock_ms() + ANSWER_MS;
    while (!outcome) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(client, kiln_clock_left_ms(deadline_ms));
        if (!message)
            return RD_KAFKA_RESP_ERR__TIMED_OUT;
        rd_kafka_resp_err_t problem = message->err;
        bool theirs = message->rkt && !strcmp(rd_kafka_topic_name(message->rkt), topic);
        rd_kafka_message_destroy(message);
        if (!problem && theirs)
            return RD_KAFKA_RESP_ERR_NO_ERROR;
        // The coordinator refuses the group of a reader that has none; it needs none.
        if (problem && problem != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
            outcome = problem;
    }
    return outcome;
}

static void reads(const char *principal, const char *letters) {
    for (size_t i = 0; i < TOPICS_COUNT; i++) {
        rd_kafka_t *client = client_of(principal, RD_KAFKA_CONSUMER, "nobodys-group");
        judge(principal, "reading", topics[i], read_one(client, topics[i]), letters[i] == 'r' || letters[i] == 'b');
        rd_kafka_destroy(client);
    }
}

// Until the group has given it partitions, or will not have it.
static rd_kafka_resp_err_t join(rd_kafka_t *client) {
    rd_kafka_topic_partition_list_t *places = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(places, "kiln.jobs", RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t outcome = rd_kafka_subscribe(client, places);
    rd_kafka_topic_partition_list_destroy(places);
    bool joined = false;
    for (uint64_t deadline_ms = kiln_clock_ms() + ANSWER_MS; !outcome && !joined;) {
        if (!kiln_clock_left_ms(deadline_ms))
            return RD_KAFKA_RESP_ERR__TIMED_OUT;
        rd_kafka_message_t *message = rd_kafka_consumer_poll(client, 50);
        if (message && message->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
            outcome = message->err;
        if (message)
            rd_kafka_message_destroy(message);
        rd_kafka_topic_partition_list_t *given = NULL;
        joined = !rd_kafka_assignment(client, &given) && given->cnt > 0;
        if (given)
            rd_kafka_topic_partition_list_destroy(given);
    }
    return outcome;
}

static void joins(const char *principal, const char *group, bool allowed) {
    rd_kafka_t *client = client_of(principal, RD_KAFKA_CONSUMER, group);
    judge(principal, "joining", group, join(client), allowed);
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
}

static rd_kafka_resp_err_t outcome_of(rd_kafka_queue_t *answers) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(answers, ANSWER_MS);
    if (!event)
        return RD_KAFKA_RESP_ERR__TIMED_OUT;
    rd_kafka_resp_err_t outcome = rd_kafka_event_error(event);
    size_t count = 0;
    if (!outcome && rd_kafka_event_CreateTopics_result(event)) {
        const rd_kafka_topic_result_t **results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
        outcome = rd_kafka_topic_result_error(results[0]);
    } else if (!outcome && rd_kafka_event_DeleteTopics_result(event)) {
        const rd_kafka_topic_result_t **results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count);
        outcome = rd_kafka_topic_result_error(results[0]);
    } else if (!outcome && rd_kafka_event_CreateAcls_result(event)) {
        const rd_kafka_acl_result_t **results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event), &count);
        outcome = rd_kafka_error_code(rd_kafka_acl_result_error(results[0]));
    } else if (!outcome && rd_kafka_event_DeleteRecords_result(event))
        outcome = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event))->elems[0].err;
    else if (!outcome && rd_kafka_event_AlterConfigs_result(event)) {
        const rd_kafka_ConfigResource_t **results =
            rd_kafka_AlterConfigs_result_resources(rd_kafka_event_AlterConfigs_result(event), &count);
        outcome = rd_kafka_ConfigResource_error(results[0]);
    }
    rd_kafka_event_destroy(event);
    return outcome;
}

static void administers_nothing(const char *principal) {
    rd_kafka_t *client = client_of(principal, RD_KAFKA_PRODUCER, NULL);
    rd_kafka_queue_t *answers = rd_kafka_queue_new(client);
    char why[256], user[80];
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new("kiln.mine", 1, 1, why, sizeof why);
    rd_kafka_CreateTopics(client, &topic, 1, NULL, answers);
    judge(principal, "making", "kiln.mine", outcome_of(answers), false);
    rd_kafka_NewTopic_destroy(topic);
    for (size_t i = 0; i < TOPICS_COUNT; i++) {
        rd_kafka_DeleteTopic_t *gone = rd_kafka_DeleteTopic_new(topics[i]);
        rd_kafka_DeleteTopics(client, &gone, 1, NULL, answers);
        judge(principal, "deleting", topics[i], outcome_of(answers), false);
        rd_kafka_DeleteTopic_destroy(gone);
        rd_kafka_ConfigResource_t *config = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topics[i]);
        rd_kafka_ConfigResource_set_config(config, "retention.ms", "1");
        rd_kafka_AlterConfigs(client, &config, 1, NULL, answers);
        judge(principal, "changing the settings of", topics[i], outcome_of(answers), false);
        rd_kafka_ConfigResource_destroy(config);
    }
    snprintf(user, sizeof user, "User:%s", principal);
    rd_kafka_AclBinding_t *right = rd_kafka_AclBinding_new(RD_KAFKA_RESOURCE_TOPIC, "kiln.", RD_KAFKA_RESOURCE_PATTERN_PREFIXED, user,
                                                           "*", RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW, why,
                                                           sizeof why);
    rd_kafka_CreateAcls(client, &right, 1, NULL, answers);
    judge(principal, "giving itself rights on", "kiln.", outcome_of(answers), false);
    rd_kafka_AclBinding_destroy(right);
    rd_kafka_queue_destroy(answers);
    rd_kafka_destroy(client);
}

static void delete_nothing(const char *principal, const char *letters) {
    rd_kafka_t *client = client_of(principal, RD_KAFKA_PRODUCER, NULL);
    rd_kafka_queue_t *answers = rd_kafka_queue_new(client);
    for (size_t i = 0; i < TOPICS_COUNT; i++) {
        if (letters[i] == '-') // the library does not even find the leader of such a topic
            continue;
        rd_kafka_topic_partition_list_t *places = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(places, topics[i], 0)->offset = 1;
        rd_kafka_DeleteRecords_t *gone = rd_kafka_DeleteRecords_new(places);
        rd_kafka_DeleteRecords(client, &gone, 1, NULL, answers);
        judge(principal, "deleting records of", topics[i], outcome_of(answers), false);
        rd_kafka_DeleteRecords_destroy(gone);
        rd_kafka_topic_partition_list_destroy(places);
    }
    rd_kafka_queue_destroy(answers);
    rd_kafka_destroy(client);
}

static void each_role_writes_what_the_table_says(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        writes(expected[i].principal, expected[i].topics);
}

static void each_role_reads_what_the_table_says(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        reads(expected[i].principal, expected[i].topics);
}

static void only_verifiers_join_their_group(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        joins(expected[i].principal, "kiln-verifiers", *expected[i].group == 'g');
        joins(expected[i].principal, "another-group", false);
    }
}

static void no_role_changes_the_cluster(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        administers_nothing(expected[i].principal);
        delete_nothing(expected[i].principal, expected[i].topics);
    }
}

// A certificate of another authority, or none at all.
static void strangers_get_no_connection(void **state) {
    (void)state;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char *brokers = stack_env(&stack, "KILN_STACK_BROKERS"), why[256];
    set(conf, "bootstrap.servers", brokers);
    set(conf, "security.protocol", "ssl");
    set_file(conf, "ssl.ca.location", "agent-1", "ca.crt");
    rd_kafka_conf_set_log_cb(conf, quiet);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    assert_non_null(client);
    const struct rd_kafka_metadata *metadata = NULL;
    assert_int_not_equal(rd_kafka_metadata(client, 1, NULL, &metadata, 2000), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_destroy(client);
    free(brokers);
}

static int start(void **state) {
    (void)state;
    if (!stack_up(&stack))
        return -1;
    rd_kafka_resp_err_t outcomes[TOPICS_COUNT]; // so that there is something to read everywhere
    produce_everywhere("operator", outcomes);
    for (size_t i = 0; i < TOPICS_COUNT; i++) {
        if (outcomes[i]) {
            fprintf(stderr, "operator, writing %s: %s\n", topics[i], how(outcomes[i]));
            return -1;
        }
    }
    return 0;
}

static int stop(void **state) {
    (void)state;
    stack_down(&stack);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_role_writes_what_the_table_says), cmocka_unit_test(each_role_reads_what_the_table_says),
        cmocka_unit_test(only_verifiers_join_their_group),      cmocka_unit_test(no_role_changes_the_cluster),
        cmocka_unit_test(strangers_get_no_connection),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
