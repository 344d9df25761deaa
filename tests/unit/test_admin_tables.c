// What operators write, read strictly: lists of principals and of checksums; and what follows from them: topics, rights.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "ops/admin/checksums.h"
#include "ops/admin/principals.h"
#include "ops/admin/rights.h"
#include "ops/admin/topics.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define D "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

static int parse(const char *text, struct kiln_trust_record *record, struct kiln_err *err) {
    return kiln_principals_parse(text, strlen(text), 1000, record, err);
}

static void principals_are_read(void **state) {
    (void)state;
    kiln_autotrust_record struct kiln_trust_record record = {0};
    struct kiln_err err;
    assert_int_equal(parse("# who\n\nv verifier - - " A " " B " # two keys\r\n\ta1 agent red - " C "\n", &record, &err), 0);
    assert_int_equal(record.principals_count, 2);
    assert_int_equal(record.keys_count, 1);
    assert_string_equal(record.principals[0].name, "a1"); // sorted
    assert_string_equal(record.principals[0].tenant, "red");
    assert_int_equal(record.principals[0].record_key[0], 0xcc);
    assert_int_equal(record.keys[0].public_key[31], 0xbb);
    assert_int_equal(record.keys[0].not_after_ms, 1000);
    // Enrolled again: put in place, and a verifier's new key beside the old one.
    assert_int_equal(parse("a1 agent blue - " D "\nv verifier - - " A " " D, &record, &err), 0);
    assert_int_equal(record.principals_count, 2);
    assert_int_equal(record.keys_count, 2);
    assert_string_equal(record.principals[0].tenant, "blue");
}

static void bad_principals_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "a agent red -", "a agent red - " A " " B, "a agent - - " A, "a agent red pool " A, "e executor red - " A, "e executor - - " A,
        "v verifier - - " A, "v verifier - - " A " " A, "x king - - " A, "-x reader - - " A, "a/b reader - - " A, "a agent ../x - " A,
        "r reader - - " A "a", "r reader - - AAAA", "r reader - - " A " " B " " C, "x nobody - - " A,
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kiln_autotrust_record struct kiln_trust_record record = {0};
        struct kiln_err err;
        char text[600];
        snprintf(text, sizeof text, "# one\n%s\n", bad[i]);
        assert_int_equal(parse(text, &record, &err), KILN_E_INVAL);
        assert_non_null(strstr(err.text, "line 2"));
        assert_int_equal(record.principals_count + record.keys_count, 0);
    }
    kiln_autotrust_record struct kiln_trust_record record = {0};
    char *line = malloc(2000);
    memset(line, 'a', 2000);
    assert_int_equal(kiln_principals_parse(line, 2000, 0, &record, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_principals_parse("r reader - - " A "\0", 78, 0, &record, NULL), KILN_E_INVAL);
    free(line);
}

static const struct kiln_kafka_topic *topic_called(const struct kiln_kafka_topic *topics, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(topics[i].name, name))
            return &topics[i];
    }
    return NULL;
}

static const char *setting(const struct kiln_kafka_topic *topic, const char *name) {
    for (size_t i = 0; i < KILN_KAFKA_TOPIC_SETTINGS_MAX && topic->settings[i].name; i++) {
        if (!strcmp(topic->settings[i].name, name))
            return topic->settings[i].value;
    }
    return NULL;
}

static void topics_follow_from_the_tenants(void **state) {
    (void)state;
    kiln_autotrust_record struct kiln_trust_record record = {0};
    struct kiln_err err;
    assert_int_equal(parse("a1 agent red - " A "\na2 agent red - " B "\na3 agent blue - " C "\nr reader - - " D, &record, &err), 0);
    const struct kiln_topic_counts counts = {.partitions = 8, .work_partitions = 3, .result_partitions = 5, .replication = 3};
    kiln_autofree struct kiln_kafka_topic *topics = NULL;
    size_t count = 0;
    assert_int_equal(kiln_topics_of_fleet(&counts, "x.", &record, &topics, &count, &err), 0);
    assert_int_equal(count, 11);
    static const struct {
        const char *name;
        uint32_t partitions;
    } wanted[] = {
        {"x.kiln.jobs", 8},  {"x.kiln.credits", 8}, {"x.kiln.leases", 8}, {"x.kiln.candidates", 8}, {"x.kiln.state", 8},       {"x.kiln.ledger", 8},
        {"x.kiln.events", 1}, {"x.kiln.dlq", 1},     {"x.kiln.work", 3},   {"x.kiln.results.red", 5}, {"x.kiln.results.blue", 5},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const struct kiln_kafka_topic *topic = topic_called(topics, count, wanted[i].name);
        assert_non_null(topic);
        assert_int_equal(topic->partitions, wanted[i].partitions);
        assert_int_equal(topic->replication, 3);
        assert_string_equal(setting(topic, "min.insync.replicas"), "2");
        assert_string_equal(setting(topic, "message.timestamp.type"), "LogAppendTime");
        assert_string_equal(setting(topic, "cleanup.policy"), strcmp(wanted[i].name, "x.kiln.state") ? "delete" : "compact");
        bool bounded = !strcmp(wanted[i].name, "x.kiln.dlq") || !strcmp(wanted[i].name, "x.kiln.events"); // copies of what anybody writes
        assert_int_equal(setting(topic, "retention.bytes") != NULL, bounded);
    }
}

static bool has_right(const struct kiln_kafka_right *rights, size_t count, enum kiln_kafka_thing thing, const char *name,
                      enum kiln_kafka_deed deed) {
    for (size_t i = 0; i < count; i++) {
        if (rights[i].thing == thing && rights[i].deed == deed && !strcmp(rights[i].name, name))
            return true;
    }
    return false;
}

// All of them together are tried on a broker by tests/integration/test_fleet_roles_kafka.c.
static void rights_follow_from_the_role(void **state) {
    (void)state;
    static const struct {
        struct kiln_principal principal;
        size_t count;
        enum kiln_kafka_thing thing;
        const char *name;
        enum kiln_kafka_deed deed;
    } cases[] = {
        {{.name = "a", .role = KILN_ROLE_OF_AGENT, .tenant = "red"}, 3, KILN_KAFKA_TOPIC, "p.kiln.results.red", KILN_KAFKA_READ},
        {{.name = "e", .role = KILN_ROLE_OF_EXECUTOR, .pool = "north"}, 5, KILN_KAFKA_TOPIC, "p.kiln.candidates", KILN_KAFKA_WRITE},
        {{.name = "v", .role = KILN_ROLE_OF_VERIFIER}, 12, KILN_KAFKA_TOPICS_BELOW, "p.kiln.results.", KILN_KAFKA_WRITE},
        {{.name = "v", .role = KILN_ROLE_OF_VERIFIER}, 12, KILN_KAFKA_GROUP, "p.kiln-verifiers", KILN_KAFKA_READ},
        {{.name = "r", .role = KILN_ROLE_OF_READER}, 1, KILN_KAFKA_TOPICS_BELOW, "p.kiln.", KILN_KAFKA_READ},
    };
    struct kiln_kafka_right rights[KILN_RIGHTS_MAX];
    size_t count = 99;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(kiln_rights_of(&cases[i].principal, "p.", rights, &count, NULL), 0);
        assert_int_equal(count, cases[i].count);
        assert_true(has_right(rights, count, cases[i].thing, cases[i].name, cases[i].deed));
        for (size_t k = 0; k < count; k++) {
            assert_memory_equal(rights[k].principal, "User:", 5);
            assert_string_equal(rights[k].principal + 5, cases[i].principal.name);
        }
    }
    const struct kiln_principal others[] = {{.name = "o", .role = KILN_ROLE_OF_OPERATOR}, {.name = "n", .role = KILN_ROLE_OF_NOBODY}};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kiln_rights_of(&others[i], "p.", rights, &count, NULL), 0);
        assert_int_equal(count, 0);
    }
}

static struct kiln_digest digest_of(const char *hex) {
    struct kiln_digest digest;
    assert_int_equal(kiln_digest_parse(hex, &digest, NULL), 0);
    return digest;
}

static void checksums_are_read(void **state) {
    (void)state;
    kiln_autochecksums struct kiln_checksums checksums = {.items = NULL};
    static const char lock[] = "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry\"\nchecksum = \"" A "\"\n"
                               "dependencies = [\n \"x\",\n]\n\n[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n\n[[package]]\nname = "
                               "\"last\"\nversion = \"2.0.0-rc.1+b\"\nchecksum = \"" B "\"";
    static const char plain[] = "# archives\n" C "  one-0.1.0.crate\n" D " *some/where/two-0.2.0.crate\n";
    assert_int_equal(kiln_checksums_parse(lock, sizeof lock - 1, &checksums, NULL), 0);
    assert_int_equal(kiln_checksums_parse(plain, sizeof plain - 1, &checksums, NULL), 0);
    assert_int_equal(checksums.count, 4);
    const struct kiln_digest a = digest_of(A), b = digest_of(B), c = digest_of(C), d = digest_of(D);
    assert_true(kiln_checksums_has(&checksums, "serde-1.0.1", &a));
    assert_true(kiln_checksums_has(&checksums, "last-2.0.0-rc.1+b", &b));
    assert_true(kiln_checksums_has(&checksums, "one-0.1.0", &c));
    assert_true(kiln_checksums_has(&checksums, "two-0.2.0", &d));
    assert_false(kiln_checksums_has(&checksums, "serde-1.0.1", &b)); // another archive by its name
    assert_false(kiln_checksums_has(&checksums, "serde-1.0.2", &a)); // its archive by another name
    assert_false(kiln_checksums_has(&checksums, "mine-0.1.0", &a));  // one that has none
}

static void bad_checksums_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "x", A, A "  ", A "  .crate", A "  one-0.1.0.zip", A "one-0.1.0.crate", "AAAA" A "  one-0.1.0.crate",
        "[[package]]\nname = \"a\"\nversion = \"1\"\nchecksum = \"12\"\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kiln_autochecksums struct kiln_checksums checksums = {.items = NULL};
        assert_int_equal(kiln_checksums_parse(bad[i], strlen(bad[i]), &checksums, NULL), KILN_E_INVAL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(principals_are_read),         cmocka_unit_test(bad_principals_are_refused), cmocka_unit_test(topics_follow_from_the_tenants),
        cmocka_unit_test(rights_follow_from_the_role), cmocka_unit_test(checksums_are_read),         cmocka_unit_test(bad_checksums_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
