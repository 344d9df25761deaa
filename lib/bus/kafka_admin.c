#include "lib/bus/kafka_admin.h"

#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define REQUEST_MS 20000u
#define IN_FORCE_PAUSE_MS 20

struct kiln_kafka_admin {
    rd_kafka_t *client;
    rd_kafka_queue_t *answers;
    int request_ms;
};

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct kiln_err *err) {
    char why[256];
    if (value && rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK)
        return kiln_fail(err, KILN_E_INVAL, "kafka: %s", why);
    return 0;
}

static int configure(rd_kafka_conf_t *conf, const struct kiln_kafka_admin_options *options, struct kiln_err *err) {
    int rc = set(conf, "bootstrap.servers", options->brokers, err);
    if (!rc && options->tls_ca)
        rc = set(conf, "security.protocol", "ssl", err);
    if (!rc)
        rc = set(conf, "ssl.ca.location", options->tls_ca, err);
    if (!rc)
        rc = set(conf, "ssl.certificate.location", options->tls_cert, err);
    if (!rc)
        rc = set(conf, "ssl.key.location", options->tls_key, err);
    if (!rc)
        rc = set(conf, "client.id", "kiln-admin", err);
    return rc;
}

// The library would print.
static void keep_quiet(const rd_kafka_t *client, int level, const char *facility, const char *text) {
    (void)client, (void)level, (void)facility, (void)text;
}

int kiln_kafka_admin_open(const struct kiln_kafka_admin_options *options, struct kiln_kafka_admin **admin, struct kiln_err *err) {
    struct kiln_kafka_admin *made = calloc(1, sizeof *made);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (!made || !conf) {
        free(made);
        return kiln_fail(err, KILN_E_NOMEM, "kafka administration: out of memory");
    }
    made->request_ms = (int)(options->request_ms ? options->request_ms : REQUEST_MS);
    rd_kafka_conf_set_log_cb(conf, keep_quiet);
    int rc = configure(conf, options, err);
    char why[256];
    if (!rc && !(made->client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why)))
        rc = kiln_fail(err, KILN_E_IO, "kafka: %s", why);
    if (rc) {
        rd_kafka_conf_destroy(conf);
        free(made);
        return rc;
    }
    made->answers = rd_kafka_queue_new(made->client);
    *admin = made;
    return 0;
}

void kiln_kafka_admin_close(struct kiln_kafka_admin *admin) {
    if (!admin)
        return;
    rd_kafka_queue_destroy(admin->answers);
    rd_kafka_destroy(admin->client);
    free(admin);
}

static int fail_kafka(struct kiln_err *err, rd_kafka_resp_err_t problem, const char *what, const char *text) {
    int code = KILN_E_IO;
    if (problem == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED || problem == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
        problem == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
        code = KILN_E_DENIED;
    else if (problem == RD_KAFKA_RESP_ERR__TIMED_OUT)
        code = KILN_E_TIMEOUT;
    else if (problem == RD_KAFKA_RESP_ERR_INVALID_PARTITIONS || problem == RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR ||
             problem == RD_KAFKA_RESP_ERR_INVALID_CONFIG || problem == RD_KAFKA_RESP_ERR_POLICY_VIOLATION)
        code = KILN_E_INVAL;
    return kiln_fail(err, code, "%s: %s", what, text && *text ? text : rd_kafka_err2str(problem));
}

// The answer to a request as a whole; the caller destroys it and looks at the results in it.
static int await(struct kiln_kafka_admin *admin, const char *what, rd_kafka_event_t **answer, struct kiln_err *err) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(admin->answers, admin->request_ms + 2000);
    if (!event)
        return kiln_fail(err, KILN_E_TIMEOUT, "%s: no answer from Kafka", what);
    if (rd_kafka_event_error(event)) {
        int rc = fail_kafka(err, rd_kafka_event_error(event), what, rd_kafka_event_error_string(event));
        rd_kafka_event_destroy(event);
        return rc;
    }
    *answer = event;
    return 0;
}

static rd_kafka_AdminOptions_t *options_for(struct kiln_kafka_admin *admin, rd_kafka_admin_op_t operation) {
    char why[256];
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(admin->client, operation);
    rd_kafka_AdminOptions_set_request_timeout(options, admin->request_ms, why, sizeof why);
    return options;
}

static int check_policy(const char *topic, const rd_kafka_ConfigResource_t *resource, const char *wanted, struct kiln_err *err) {
    size_t count;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);
    for (size_t i = 0; i < count; i++) {
        const char *value = rd_kafka_ConfigEntry_value(entries[i]);
        if (!strcmp(rd_kafka_ConfigEntry_name(entries[i]), "cleanup.policy") && (!value || strcmp(value, wanted)))
            return kiln_fail(err, KILN_E_EXISTS, "topic %s has cleanup.policy %s, it must be %s", topic, value ? value : "none",
                             wanted);
    }
    return 0;
}

static const char *wanted_policy(const struct kiln_kafka_topic *topic) {
    for (size_t i = 0; i < KILN_KAFKA_TOPIC_SETTINGS_MAX && topic->settings[i].name; i++) {
        if (!strcmp(topic->settings[i].name, "cleanup.policy"))
            return topic->settings[i].value;
    }
    return "delete";
}

static int check_settings(struct kiln_kafka_admin *admin, const struct kiln_kafka_topic *topic, struct kiln_err *err) {
    rd_kafka_ConfigResource_t *asked = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic->name);
    rd_kafka_AdminOptions_t *options = options_for(admin, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_DescribeConfigs(admin->client, &asked, 1, options, admin->answers);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ConfigResource_destroy(asked);
    rd_kafka_event_t *answer;
    int rc = await(admin, topic->name, &answer, err);
    if (rc)
        return rc;
    size_t count;
    const rd_kafka_ConfigResource_t **found =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(answer), &count);
    if (count != 1)
        rc = kiln_fail(err, KILN_E_IO, "topic %s: Kafka does not describe it", topic->name);
    else if (rd_kafka_ConfigResource_error(found[0]))
        rc = fail_kafka(err, rd_kafka_ConfigResource_error(found[0]), topic->name, rd_kafka_ConfigResource_error_string(found[0]));
    else
        rc = check_policy(topic->name, found[0], wanted_policy(topic), err);
    rd_kafka_event_destroy(answer);
    return rc;
}

static int check_partitions(struct kiln_kafka_admin *admin, const struct kiln_kafka_topic *topic, struct kiln_err *err) {
    rd_kafka_topic_t *handle = rd_kafka_topic_new(admin->client, topic->name, NULL);
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t problem = rd_kafka_metadata(admin->client, 0, handle, &metadata, admin->request_ms);
    rd_kafka_topic_destroy(handle);
    if (problem)
        return fail_kafka(err, problem, topic->name, NULL);
    int rc = 0;
    if (metadata->topic_cnt != 1 || metadata->topics[0].err)
        rc = fail_kafka(err, metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN, topic->name, NULL);
    else if ((uint32_t)metadata->topics[0].partition_cnt != topic->partitions)
        rc = kiln_fail(err, KILN_E_EXISTS, "topic %s has %d partitions, it must have %u", topic->name,
                       metadata->topics[0].partition_cnt, topic->partitions);
    rd_kafka_metadata_destroy(metadata);
    return rc;
}

static int check_existing(struct kiln_kafka_admin *admin, const struct kiln_kafka_topic *topic, struct kiln_err *err) {
    int rc = check_partitions(admin, topic, err);
    return rc ? rc : check_settings(admin, topic, err);
}

static int new_topic(const struct kiln_kafka_topic *topic, rd_kafka_NewTopic_t **out, struct kiln_err *err) {
    char why[256];
    rd_kafka_NewTopic_t *made = rd_kafka_NewTopic_new(topic->name, (int)topic->partitions, (int)topic->replication, why, sizeof why);
    if (!made)
        return kiln_fail(err, KILN_E_INVAL, "topic %s: %s", topic->name, why);
    for (size_t i = 0; i < KILN_KAFKA_TOPIC_SETTINGS_MAX && topic->settings[i].name; i++)
        rd_kafka_NewTopic_set_config(made, topic->settings[i].name, topic->settings[i].value);
    *out = made;
    return 0;
}

static int look_at_created(struct kiln_kafka_admin *admin, rd_kafka_event_t *answer, const struct kiln_kafka_topic *topics,
                           size_t count, size_t *made, struct kiln_err *err) {
    size_t results_count, fresh = 0;
    int rc = 0;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(answer), &results_count);
    for (size_t i = 0; i < results_count && !rc; i++) {
        rd_kafka_resp_err_t problem = rd_kafka_topic_result_error(results[i]);
        if (problem && problem != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            rc = fail_kafka(err, problem, rd_kafka_topic_result_name(results[i]), rd_kafka_topic_result_error_string(results[i]));
        fresh += !problem;
        for (size_t j = 0; j < count && problem && !rc; j++) {
            if (!strcmp(topics[j].name, rd_kafka_topic_result_name(results[i])))
                rc = check_existing(admin, &topics[j], err);
        }
    }
    if (!rc)
        *made = fresh;
    return rc;
}

int kiln_kafka_admin_make_topics(struct kiln_kafka_admin *admin, const struct kiln_kafka_topic *topics, size_t count,
                                 size_t *made, struct kiln_err *err) {
    kiln_autofree rd_kafka_NewTopic_t **fresh = calloc(count + 1, sizeof *fresh);
    if (!fresh)
        return kiln_fail(err, KILN_E_NOMEM, "topics: out of memory");
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = new_topic(&topics[i], &fresh[i], err);
    if (!rc) {
        rd_kafka_AdminOptions_t *options = options_for(admin, RD_KAFKA_ADMIN_OP_CREATETOPICS);
        char why[256];
        rd_kafka_AdminOptions_set_operation_timeout(options, admin->request_ms, why, sizeof why);
        rd_kafka_CreateTopics(admin->client, fresh, count, options, admin->answers);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_event_t *answer;
        rc = await(admin, "making topics", &answer, err);
        if (!rc) {
            rc = look_at_created(admin, answer, topics, count, made, err);
            rd_kafka_event_destroy(answer);
        }
    }
    for (size_t i = 0; i < count && fresh[i]; i++)
        rd_kafka_NewTopic_destroy(fresh[i]);
    return rc;
}

static rd_kafka_AclOperation_t operation_of(enum kiln_kafka_deed deed) {
    switch (deed) {
    case KILN_KAFKA_READ: return RD_KAFKA_ACL_OPERATION_READ;
    case KILN_KAFKA_WRITE: return RD_KAFKA_ACL_OPERATION_WRITE;
    case KILN_KAFKA_DESCRIBE: break;
    }
    return RD_KAFKA_ACL_OPERATION_DESCRIBE;
}

static rd_kafka_AclBinding_t *binding_of(const struct kiln_kafka_right *right) {
    bool topic = right->thing == KILN_KAFKA_TOPIC || right->thing == KILN_KAFKA_TOPICS_BELOW;
    bool below = right->thing == KILN_KAFKA_TOPICS_BELOW || right->thing == KILN_KAFKA_GROUPS_BELOW;
    char why[256];
    return rd_kafka_AclBinding_new(topic ? RD_KAFKA_RESOURCE_TOPIC : RD_KAFKA_RESOURCE_GROUP, right->name,
                                   below ? RD_KAFKA_RESOURCE_PATTERN_PREFIXED : RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                                   right->principal, "*", operation_of(right->deed), RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW, why,
                                   sizeof why);
}

static int look_at_allowed(rd_kafka_event_t *answer, struct kiln_err *err) {
    size_t count;
    const rd_kafka_acl_result_t **results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(answer), &count);
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_error_t *problem = rd_kafka_acl_result_error(results[i]);
        if (problem)
            return fail_kafka(err, rd_kafka_error_code(problem), "giving rights", rd_kafka_error_string(problem));
    }
    return 0;
}

static bool is_binding(const rd_kafka_AclBinding_t *a, const rd_kafka_AclBinding_t *b) {
    return rd_kafka_AclBinding_restype(a) == rd_kafka_AclBinding_restype(b) &&
           rd_kafka_AclBinding_resource_pattern_type(a) == rd_kafka_AclBinding_resource_pattern_type(b) &&
           rd_kafka_AclBinding_operation(a) == rd_kafka_AclBinding_operation(b) &&
           !strcmp(rd_kafka_AclBinding_name(a), rd_kafka_AclBinding_name(b)) &&
           !strcmp(rd_kafka_AclBinding_principal(a), rd_kafka_AclBinding_principal(b));
}

// How many of the bindings a broker knows.
static int count_in_force(struct kiln_kafka_admin *admin, rd_kafka_AclBinding_t *const *bindings, size_t count, size_t *known,
                          struct kiln_err *err) {
    char why[256];
    rd_kafka_AclBindingFilter_t *all =
        rd_kafka_AclBindingFilter_new(RD_KAFKA_RESOURCE_ANY, NULL, RD_KAFKA_RESOURCE_PATTERN_ANY, NULL, NULL,
                                      RD_KAFKA_ACL_OPERATION_ANY, RD_KAFKA_ACL_PERMISSION_TYPE_ANY, why, sizeof why);
    if (!all)
        return kiln_fail(err, KILN_E_INVAL, "rights: %s", why);
    rd_kafka_AdminOptions_t *options = options_for(admin, RD_KAFKA_ADMIN_OP_DESCRIBEACLS);
    rd_kafka_DescribeAcls(admin->client, all, options, admin->answers);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_AclBinding_destroy(all);
    rd_kafka_event_t *answer;
    int rc = await(admin, "looking at rights", &answer, err);
    if (rc)
        return rc;
    size_t found_count;
    const rd_kafka_AclBinding_t **found = rd_kafka_DescribeAcls_result_acls(rd_kafka_event_DescribeAcls_result(answer), &found_count);
    *known = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < found_count && !is_binding(found[at], bindings[i]))
            at++;
        *known += at < found_count;
    }
    rd_kafka_event_destroy(answer);
    return 0;
}

// A broker takes rights over from the cluster's log after they were given: who connects at once would be refused.
static int await_in_force(struct kiln_kafka_admin *admin, rd_kafka_AclBinding_t *const *bindings, size_t count, struct kiln_err *err) {
    const uint64_t deadline_ms = kiln_clock_ms() + (uint64_t)admin->request_ms;
    for (;;) {
        size_t known = 0;
        int rc = count_in_force(admin, bindings, count, &known, err);
        if (rc || known == count)
            return rc;
        if (kiln_clock_left_ms(deadline_ms) == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "giving rights: only %zu of %zu are in force", known, count);
        poll(NULL, 0, IN_FORCE_PAUSE_MS);
    }
}

int kiln_kafka_admin_allow(struct kiln_kafka_admin *admin, const struct kiln_kafka_right *rights, size_t count,
                           struct kiln_err *err) {
    kiln_autofree rd_kafka_AclBinding_t **bindings = calloc(count + 1, sizeof *bindings);
    if (!bindings)
        return kiln_fail(err, KILN_E_NOMEM, "rights: out of memory");
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        if (!(bindings[i] = binding_of(&rights[i])))
            rc = kiln_fail(err, KILN_E_INVAL, "right of %s on %s: refused by librdkafka", rights[i].principal, rights[i].name);
    }
    if (!rc && count) {
        rd_kafka_AdminOptions_t *options = options_for(admin, RD_KAFKA_ADMIN_OP_CREATEACLS);
        rd_kafka_CreateAcls(admin->client, bindings, count, options, admin->answers);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_event_t *answer;
        rc = await(admin, "giving rights", &answer, err);
        if (!rc) {
            rc = look_at_allowed(answer, err);
            rd_kafka_event_destroy(answer);
        }
        if (!rc)
            rc = await_in_force(admin, bindings, count, err);
    }
    for (size_t i = 0; i < count && bindings[i]; i++)
        rd_kafka_AclBinding_destroy(bindings[i]);
    return rc;
}

static int count_taken(rd_kafka_event_t *answer, size_t *taken, struct kiln_err *err) {
    size_t count, gone = 0;
    const rd_kafka_DeleteAcls_result_response_t **responses =
        rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(answer), &count);
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_error_t *problem = rd_kafka_DeleteAcls_result_response_error(responses[i]);
        if (problem)
            return fail_kafka(err, rd_kafka_error_code(problem), "taking rights", rd_kafka_error_string(problem));
        size_t matching;
        rd_kafka_DeleteAcls_result_response_matching_acls(responses[i], &matching);
        gone += matching;
    }
    *taken = gone;
    return 0;
}

int kiln_kafka_admin_forbid(struct kiln_kafka_admin *admin, const char *principal, size_t *taken, struct kiln_err *err) {
    char why[256];
    rd_kafka_AclBindingFilter_t *filter =
        rd_kafka_AclBindingFilter_new(RD_KAFKA_RESOURCE_ANY, NULL, RD_KAFKA_RESOURCE_PATTERN_ANY, principal, NULL,
                                      RD_KAFKA_ACL_OPERATION_ANY, RD_KAFKA_ACL_PERMISSION_TYPE_ANY, why, sizeof why);
    if (!filter)
        return kiln_fail(err, KILN_E_INVAL, "rights of %s: %s", principal, why);
    rd_kafka_AdminOptions_t *options = options_for(admin, RD_KAFKA_ADMIN_OP_DELETEACLS);
    rd_kafka_DeleteAcls(admin->client, &filter, 1, options, admin->answers);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_AclBinding_destroy(filter);
    rd_kafka_event_t *answer;
    int rc = await(admin, "taking rights", &answer, err);
    if (!rc) {
        rc = count_taken(answer, taken, err);
        rd_kafka_event_destroy(answer);
    }
    return rc;
}
