// What a fleet's settings must say, and that its secrets come from files that are nobody else's.
#include "tests/unit/trust_rig.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/fleet/fleet.h"

#define ROOT "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
#define OTHER "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"

static const char complete[] = "[fleet]\nbrokers = 127.0.0.1:1\nprincipal = agent-1\ntenant = blue\npool = a\n"
                               "record_key = /nowhere\nsign_key = /nowhere\ntrust_roots = " ROOT ", " OTHER "\n"
                               "trust_threshold = 2\n[s3]\nendpoint = http://127.0.0.1:1\naccess_key_file = /nowhere\n";

static struct kiln_conf *new_conf(void) {
    struct kiln_conf *conf = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_conf_new(kiln_fleet_settings, kiln_fleet_settings_count, &conf, &err));
    return conf;
}

static struct kiln_conf *load(const char *text) {
    struct kiln_err err = {0};
    struct kiln_conf *conf = new_conf();
    assert_ok(kiln_conf_load_text(conf, "kiln.conf", text, strlen(text), &err));
    return conf;
}

static void set(struct kiln_conf *conf, const char *name, const char *value) {
    struct kiln_err err = {0};
    assert_ok(kiln_conf_set(conf, name, value, "test", &err));
}

static void the_table_explains_itself(void **state) {
    (void)state;
    for (size_t i = 0; i < kiln_fleet_settings_count; i++) {
        const struct kiln_conf_key *key = &kiln_fleet_settings[i];
        size_t len = strlen(key->help);
        if (len < 10 || key->help[len - 1] != '.')
            fail_msg("%s has no sentence", key->name);
        if (key->variable)
            fail_msg("%s could be set by a build's environment", key->name);
        if (key->secret)
            fail_msg("%s is a secret: name a file instead", key->name);
    }
    struct kiln_conf *conf = new_conf();
    assert_false(kiln_fleet_configured(conf)); // the embedded default
    set(conf, "fleet.brokers", "broker:9093");
    assert_true(kiln_fleet_configured(conf));
    kiln_conf_free(conf);
}

static void each_misfit_is_named(void **state) {
    (void)state;
    static const struct {
        enum kiln_role role;
        const char *name, *value, *word;
    } cases[] = {
        {KILN_ROLE_OF_AGENT, NULL, NULL, NULL},
        {KILN_ROLE_OF_VERIFIER, NULL, NULL, NULL},
        {KILN_ROLE_OF_EXECUTOR, NULL, NULL, NULL},
        {KILN_ROLE_OF_READER, "fleet.record_key", "", NULL},
        {KILN_ROLE_OF_AGENT, "fleet.record_key", "", "fleet.record_key"},
        {KILN_ROLE_OF_OPERATOR, "fleet.record_key", "", "fleet.record_key"},
        {KILN_ROLE_OF_VERIFIER, "fleet.sign_key", "", "fleet.sign_key"},
        {KILN_ROLE_OF_AGENT, "fleet.tenant", "", "fleet.tenant"},
        {KILN_ROLE_OF_AGENT, "fleet.tenant", "a/b", "fleet.tenant"},
        {KILN_ROLE_OF_EXECUTOR, "fleet.tenant", "", NULL},
        {KILN_ROLE_OF_EXECUTOR, "fleet.pool", "", "fleet.pool"},
        {KILN_ROLE_OF_EXECUTOR, "fleet.pool", "-x", "fleet.pool"},
        {KILN_ROLE_OF_AGENT, "fleet.principal", "", "fleet.principal"},
        {KILN_ROLE_OF_AGENT, "fleet.principal", "..", "fleet.principal"},
        {KILN_ROLE_OF_AGENT, "s3.endpoint", "", "s3.endpoint"},
        {KILN_ROLE_OF_AGENT, "s3.endpoint", "127.0.0.1:9000", "s3.endpoint"},
        {KILN_ROLE_OF_AGENT, "s3.access_key_file", "", "s3.access_key_file"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_roots", "", "fleet.trust_roots"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_roots", ROOT, "fleet.trust_threshold"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_roots", ROOT "," ROOT, "twice"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_roots", ROOT ",zz", "\"zz\" is no public key"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_roots", ROOT OTHER, "is no public key"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_threshold", "0", "fleet.trust_threshold"},
        {KILN_ROLE_OF_AGENT, "fleet.trust_threshold", "3", "fleet.trust_threshold"},
        {KILN_ROLE_OF_AGENT, "fleet.partitions", "0", "fleet.partitions"},
        {KILN_ROLE_OF_AGENT, "fleet.partitions", "4294967297", "fleet.partitions"},
        {KILN_ROLE_OF_AGENT, "fleet.work_partitions", "257", "fleet.work_partitions"},
        {KILN_ROLE_OF_AGENT, "fleet.result_partitions", "0", "fleet.result_partitions"},
        {KILN_ROLE_OF_VERIFIER, "fleet.agreement_public", "0", "fleet.agreement_public"},
        {KILN_ROLE_OF_VERIFIER, "fleet.agreement_tenant", "17", "fleet.agreement_tenant"},
        {KILN_ROLE_OF_VERIFIER, "fleet.content_days", "30", "fleet.content_days"},
        {KILN_ROLE_OF_AGENT, "tls.cert", "/nowhere", "tls.ca, tls.cert and tls.key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        struct kiln_conf *conf = load(complete);
        if (cases[i].name)
            set(conf, cases[i].name, cases[i].value);
        int rc = kiln_fleet_check(conf, cases[i].role, &err);
        if (rc != (cases[i].word ? KILN_E_INVAL : 0) || !strstr(err.text, cases[i].word ? cases[i].word : ""))
            fail_msg("case %zu: %d \"%s\" does not name %s", i, rc, err.text, cases[i].word);
        kiln_conf_free(conf);
    }
}

static void roots_are_read_in_order(void **state) {
    (void)state;
    struct kiln_err err = {0};
    uint8_t keys[KILN_TRUST_ROOTS_MAX][KILN_PUBLIC_KEY_BYTES];
    struct kiln_roots roots;
    struct kiln_conf *conf = load(complete);
    assert_ok(kiln_fleet_roots(conf, keys, &roots, &err));
    assert_int_equal(roots.count, 2);
    assert_int_equal(roots.threshold, 2);
    assert_int_equal(roots.keys[0][0], 0xd7);
    assert_int_equal(roots.keys[1][31], 0x0c);
    kiln_autobuf struct kiln_buf many = KILN_BUF_INIT(4000);
    for (unsigned i = 0; i < KILN_TRUST_ROOTS_MAX + 1; i++)
        kiln_buf_addf(&many, "%062d%02x,", 0, i);
    set(conf, "fleet.trust_roots", kiln_buf_text(&many));
    assert_int_equal(kiln_fleet_roots(conf, keys, &roots, &err), KILN_E_INVAL);
    assert_non_null(strstr(err.text, "at most 16"));
    kiln_conf_free(conf);
}

// A port that nobody listens on: bound and closed again.
static unsigned dead_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    kiln_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    return ntohs(address.sin_port);
}

static struct kiln_conf *usable(struct scratch *scratch) {
    char endpoint[64];
    struct kiln_conf *conf = load(complete);
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", dead_port());
    kiln_sign_key_free(rig_key(scratch, "record.key"));
    scratch_write_text(scratch, "s3.key", "access-1\nsecret-word\n");
    assert_int_equal(fchmodat(scratch->fd, "s3.key", 0600, 0), 0);
    set(conf, "s3.endpoint", endpoint);
    set(conf, "fleet.record_key", scratch_path(scratch, "record.key"));
    set(conf, "s3.access_key_file", scratch_path(scratch, "s3.key"));
    return conf;
}

static int open_fleet(struct scratch *scratch, const struct kiln_conf *conf, struct kiln_fleet **fleet, struct kiln_err *err) {
    return kiln_fleet_open(conf, KILN_ROLE_OF_AGENT, scratch_path(scratch, "state"), fleet, err);
}

static void a_fleet_that_is_down_opens_and_says_so(void **state) {
    struct kiln_err err = {0};
    struct kiln_fleet *fleet = NULL;
    struct kiln_conf *conf = usable(*state);
    uint64_t before = kiln_clock_ms();
    assert_ok(open_fleet(*state, conf, &fleet, &err));
    assert_true(kiln_clock_ms() - before < 5000);
    assert_int_equal(kiln_keeper_valid(kiln_fleet_keeper(fleet), &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "trust_unreachable"));
    assert_int_equal(kiln_fleet_enrolled(fleet, &err), KILN_E_DENIED);
    assert_string_equal(kiln_fleet_principal(fleet), "agent-1");
    assert_string_equal(kiln_fleet_tenant(fleet), "blue");
    assert_non_null(kiln_fleet_record_key(fleet));
    assert_null(kiln_fleet_sign_key(fleet)); // an agent does not even read it
    static const struct kiln_job_id none;
    assert_memory_not_equal(kiln_fleet_incarnation(fleet), &none, sizeof none);
    kiln_fleet_close(fleet);
    assert_true(kiln_clock_ms() - before < 15000);
    kiln_conf_free(conf);
}

static void expect_refusal(struct scratch *scratch, const struct kiln_conf *conf, int code, const char *word) {
    struct kiln_err err = {0};
    struct kiln_fleet *fleet = NULL;
    int rc = open_fleet(scratch, conf, &fleet, &err);
    if (rc != code || !strstr(err.text, word))
        fail_msg("%d \"%s\" does not say %s", rc, err.text, word);
    assert_null(fleet);
    assert_null(strstr(err.text, "secret-word"));
}

static void a_secret_that_others_may_read_is_refused(void **state) {
    struct scratch *scratch = *state;
    struct kiln_conf *conf = usable(scratch);
    static const char *const files[] = {"record.key", "s3.key"}, *const names[] = {"fleet.record_key", "s3.access_key_file"};
    for (size_t i = 0; i < 2; i++) {
        static const mode_t modes[] = {0640, 0604, 0610, 0602};
        for (size_t k = 0; k < 4; k++) {
            assert_int_equal(fchmodat(scratch->fd, files[i], modes[k], 0), 0);
            expect_refusal(scratch, conf, KILN_E_DENIED, names[i]);
        }
        assert_int_equal(fchmodat(scratch->fd, files[i], 0600, 0), 0);
        if (geteuid() == 0) {
            assert_int_equal(fchownat(scratch->fd, files[i], 12345, (gid_t)-1, 0), 0);
            expect_refusal(scratch, conf, KILN_E_DENIED, "belongs to another user");
            assert_int_equal(fchownat(scratch->fd, files[i], 0, (gid_t)-1, 0), 0);
        }
        assert_int_equal(symlinkat(files[i], scratch->fd, "link"), 0);
        set(conf, names[i], scratch_path(scratch, "link"));
        expect_refusal(scratch, conf, KILN_E_DENIED, names[i]);
        assert_int_equal(unlinkat(scratch->fd, "link", 0), 0);
        set(conf, names[i], scratch_path(scratch, "absent"));
        expect_refusal(scratch, conf, KILN_E_NOTFOUND, names[i]);
        set(conf, names[i], scratch->path);
        expect_refusal(scratch, conf, KILN_E_DENIED, "no regular file");
        set(conf, names[i], scratch_path(scratch, files[i]));
    }
    kiln_conf_free(conf);
}

static void a_file_of_keys_has_two_lines(void **state) {
    struct scratch *scratch = *state;
    struct kiln_conf *conf = usable(scratch);
    static const char *const contents[] = {"",     "access-1",           "access-1\n",          "\nsecret-word\n", "a\nsecret-word\nmore\n",
                                           "a b\nsecret-word\n", "a\nsecret-word \n", "a\r\nsecret-word\n"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        scratch_write_text(scratch, "s3.key", contents[i]);
        expect_refusal(scratch, conf, KILN_E_INVAL, "s3.access_key_file");
    }
    kiln_conf_free(conf);
}

static void what_kafka_is_passed_is_checked(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        const char *name, *value;
        int code;
    } cases[] = {
        {"kafka.socket.keepalive.enable", "true", 0},
        {"kafka.no.such.setting", "1", KILN_E_INVAL},
        {"kafka.enable.idempotence", "false", KILN_E_DENIED},
        {"kafka.group.id", "mine", KILN_E_DENIED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        struct kiln_fleet *fleet = NULL;
        struct kiln_bus *bus = NULL;
        struct kiln_conf *conf = usable(scratch);
        set(conf, cases[i].name, cases[i].value);
        assert_ok(open_fleet(scratch, conf, &fleet, &err));
        int rc = kiln_fleet_open_bus(fleet, &bus, &err);
        if (rc != cases[i].code)
            fail_msg("%s: %d \"%s\"", cases[i].name, rc, err.text);
        if (!rc)
            kiln_bus_close(bus);
        kiln_fleet_close(fleet);
        kiln_conf_free(conf);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_explains_itself),
        cmocka_unit_test(each_misfit_is_named),
        cmocka_unit_test(roots_are_read_in_order),
        scratch_test(a_fleet_that_is_down_opens_and_says_so),
        scratch_test(a_secret_that_others_may_read_is_refused),
        scratch_test(a_file_of_keys_has_two_lines),
        scratch_test(what_kafka_is_passed_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
