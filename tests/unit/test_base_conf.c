#include "tests/unit/scratch.h"

#include "lib/base/conf.h"

static const struct kiln_conf_key keys[] = {
    {"name", KILN_CONF_TEXT, "", "K_NAME", NULL, false, "A name."},
    {"cache.max_size", KILN_CONF_BYTES, "10G", "K_MAX", NULL, false, "How large."},
    {"cache.incremental", KILN_CONF_CHOICE, "keep", NULL, "keep|drop", false, "What to do."},
    {"agent.wait", KILN_CONF_MS, "30s", "K_WAIT", NULL, false, "How long."},
    {"agent.slots", KILN_CONF_COUNT, "2", "K_SLOTS", NULL, false, "How many."},
    {"agent.on", KILN_CONF_BOOL, "yes", "K_ON", NULL, false, "Whether."},
    {"agent.token", KILN_CONF_TEXT, "", "K_TOKEN", NULL, true, "A secret."},
};
#define KEYS (sizeof keys / sizeof *keys)

static struct kiln_conf *new_conf(void) {
    struct kiln_conf *conf = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_conf_new(keys, KEYS, &conf, &err));
    return conf;
}

static void the_later_origin_wins(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_conf *conf = new_conf();
    assert_int_equal(kiln_conf_number(conf, "cache.max_size"), 10ull << 30);
    assert_int_equal(kiln_conf_number(conf, "agent.wait"), 30000);
    assert_string_equal(kiln_conf_text(conf, "cache.incremental"), "keep");
    assert_true(kiln_conf_bool(conf, "agent.on"));
    const char text[] = "# comment\n\nname = from = file # kept\r\n[cache]\n  max_size=3M\n"
                        "incremental =drop\n[agent]\non = off\nwait = 5m\n[ cache ]\n";
    assert_ok(kiln_conf_load_text(conf, "f.conf", text, sizeof text - 1, &err));
    char *env[] = {TEXT("K_MAX=7K"), TEXT("K_MAXIMUM=9"), TEXT("K_ON="), TEXT("OTHER=1"), NULL};
    assert_ok(kiln_conf_load_env(conf, env, &err));
    assert_ok(kiln_conf_set(conf, "agent.slots", "9", "flag --slots", &err));
    assert_string_equal(kiln_conf_text(conf, "name"), "from = file # kept");
    assert_int_equal(kiln_conf_number(conf, "cache.max_size"), 7168);
    assert_int_equal(kiln_conf_number(conf, "agent.wait"), 300000);
    assert_int_equal(kiln_conf_number(conf, "agent.slots"), 9);
    assert_false(kiln_conf_bool(conf, "agent.on")); // an empty variable is not one
    kiln_autobuf struct kiln_buf shown = KILN_BUF_INIT(4096);
    assert_ok(kiln_conf_show(conf, false, &shown));
    assert_string_equal(kiln_buf_text(&shown), "name = from = file # kept  # f.conf:3\n"
                                               "cache.max_size = 7K  # environment K_MAX\n"
                                               "cache.incremental = drop  # f.conf:6\n"
                                               "agent.wait = 5m  # f.conf:9\n"
                                               "agent.slots = 9  # flag --slots\n"
                                               "agent.on = off  # f.conf:8\n"
                                               "agent.token = (not set)  # default\n");
    kiln_conf_free(conf);
}

static void mistakes_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *in_message[3];
    } cases[] = {
        {"x = 1", {"f.conf:1", "\"x\"", "cache.max_size"}},
        {"\n[cache]\nmax_sise = 1", {"f.conf:3", "cache.max_sise", "known are cache.max_size, cache.incremental"}},
        {"[cache]\nmax_size = 1Q", {"f.conf:2", "cache.max_size = 1Q", "K, M, G or T"}},
        {"[cache]\nmax_size = 99999999999T", {"99999999999T", "", ""}},
        {"[cache]\nmax_size = 18446744073709551616", {"18446744073709551616", "", ""}},
        {"[cache]\nmax_size = -1", {"-1", "", ""}},
        {"[cache]\nmax_size =", {"cache.max_size", "", ""}},
        {"[cache]\nincremental = maybe", {"maybe", "keep|drop", ""}},
        {"[cache]\nincremental = kee", {"kee", "keep|drop", ""}},
        {"[cache]\nincremental = keep|drop", {"keep|drop", "", ""}},
        {"[agent]\nwait = 5", {"5", "ms, s, m or h", ""}},
        {"[agent]\nslots = 5K", {"5K", "whole number", ""}},
        {"[agent]\non = maybe", {"maybe", "true, yes, on", ""}},
        {"name = a\nname = b", {"f.conf:2", "second time", "f.conf:1"}},
        {"[cache\n", {"f.conf:1", "[name]", ""}},
        {"[]\n", {"f.conf:1", "[name]", ""}},
        {"just words", {"f.conf:1", "just words", "key = value"}},
        {"name = a\x01", {"f.conf:1", "control characters", ""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_err err = {0};
        struct kiln_conf *conf = new_conf();
        char *text = NULL; // a good line before it must not stick either
        assert_true(asprintf(&text, "%s", cases[i].text) >= 0);
        assert_int_equal(kiln_conf_load_text(conf, "f.conf", text, strlen(text), &err), KILN_E_INVAL);
        for (size_t k = 0; k < 3; k++)
            if (cases[i].in_message[k] && !strstr(err.text, cases[i].in_message[k]))
                fail_msg("\"%s\" does not name \"%s\"", err.text, cases[i].in_message[k]);
        assert_string_equal(kiln_conf_text(conf, "name"), "");
        free(text);
        kiln_conf_free(conf);
    }
    struct kiln_conf *conf = new_conf();
    assert_int_equal(kiln_conf_load_text(conf, "f", "name = a\0b", 10, NULL), KILN_E_INVAL);
    kiln_conf_free(conf);
}

static void a_secret_is_never_shown(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_conf *conf = new_conf();
    char *env[] = {TEXT("K_TOKEN=hunter2"), NULL};
    assert_ok(kiln_conf_load_env(conf, env, &err));
    assert_string_equal(kiln_conf_text(conf, "agent.token"), "hunter2");
    for (int json = 0; json < 2; json++) {
        kiln_autobuf struct kiln_buf shown = KILN_BUF_INIT(4096);
        assert_ok(kiln_conf_show(conf, json, &shown));
        assert_null(strstr(kiln_buf_text(&shown), "hunter2"));
        assert_non_null(strstr(kiln_buf_text(&shown), "(set)"));
    }
    assert_int_equal(kiln_conf_set(conf, "agent.token", "hunter\n3", "flag", &err), KILN_E_INVAL);
    assert_null(strstr(err.text, "hunter"));
    assert_string_equal(kiln_conf_text(conf, "agent.token"), "hunter2");
    kiln_conf_free(conf);
}

static void files(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_conf *conf = new_conf();
    assert_int_equal(kiln_conf_load_file(conf, scratch_path(scratch, "absent"), &err), KILN_E_NOTFOUND);
    scratch_write(scratch, "k.conf", "name = x", 8);
    assert_ok(kiln_conf_load_file(conf, scratch_path(scratch, "k.conf"), &err));
    assert_string_equal(kiln_conf_text(conf, "name"), "x");
    kiln_conf_free(conf);
}

static void tables(void **state) {
    (void)state;
    struct kiln_conf *conf = NULL;
    const struct kiln_conf_key twice[] = {keys[0], keys[0]};
    assert_int_equal(kiln_conf_new(twice, 2, &conf, NULL), KILN_E_INTERNAL);
    struct kiln_conf_key bad = keys[1];
    bad.fallback = "many";
    assert_int_equal(kiln_conf_new(&bad, 1, &conf, NULL), KILN_E_INVAL);
    assert_null(conf);
    kiln_autobuf struct kiln_buf help = KILN_BUF_INIT(4096);
    assert_int_equal(kiln_conf_help(keys, KEYS, &help), 0);
    assert_non_null(strstr(kiln_buf_text(&help), "cache.max_size (size; default 10G; variable K_MAX)\n    How large.\n"));
    assert_non_null(strstr(kiln_buf_text(&help), "cache.incremental (keep|drop; default keep)\n"));
}

static void json_form(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_conf *conf = NULL;
    assert_ok(kiln_conf_new(keys, 1, &conf, &err));
    assert_ok(kiln_conf_set(conf, "name", "a\"b", "flag", &err));
    kiln_autobuf struct kiln_buf shown = KILN_BUF_INIT(4096), small = KILN_BUF_INIT(10);
    assert_ok(kiln_conf_show(conf, true, &shown));
    assert_string_equal(kiln_buf_text(&shown), "[\n {\"name\":\"name\",\"value\":\"a\\\"b\",\"origin\":\"flag\"}\n]\n");
    assert_int_equal(kiln_conf_show(conf, true, &small), KILN_E_LIMIT);
    kiln_conf_free(conf);
}

static const struct kiln_conf_key open_keys[] = {
    {"name", KILN_CONF_TEXT, "", NULL, NULL, false, "A name."},
    {"lib.*", KILN_CONF_TEXT, NULL, NULL, NULL, false, "For the library."},
    {"lib.own", KILN_CONF_COUNT, "3", NULL, NULL, false, "Ours in the same section."},
};

static struct kiln_conf *new_open_conf(void) {
    struct kiln_conf *conf = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_conf_new(open_keys, 3, &conf, &err));
    return conf;
}

static void a_section_is_passed_through(void **state) {
    (void)state;
    struct kiln_err err = {0};
    struct kiln_conf *conf = new_open_conf();
    struct kiln_conf_item item;
    assert_false(kiln_conf_item(conf, "lib.*", 0, &item));
    const char text[] = "name = x\n[lib]\nsocket.keepalive = true\nown = 5\nsasl.password = hunter2\n";
    assert_ok(kiln_conf_load_text(conf, "f.conf", text, sizeof text - 1, &err));
    const char more[] = "[lib]\nsocket.keepalive=false\nx=";
    assert_ok(kiln_conf_load_text(conf, "g.conf", more, sizeof more - 1, &err));
    assert_ok(kiln_conf_set(conf, "lib.more", "1", "flag", &err));
    static const char *const expected[][2] = {
        {"socket.keepalive", "false"}, {"sasl.password", "hunter2"}, {"x", ""}, {"more", "1"}};
    for (size_t i = 0; i < 4; i++) {
        assert_true(kiln_conf_item(conf, "lib.*", i, &item));
        assert_string_equal(item.name, expected[i][0]);
        assert_string_equal(item.value, expected[i][1]);
    }
    assert_false(kiln_conf_item(conf, "lib.*", 4, &item));
    assert_int_equal(kiln_conf_number(conf, "lib.own"), 5);
    kiln_autobuf struct kiln_buf shown = KILN_BUF_INIT(4096), json = KILN_BUF_INIT(4096);
    assert_ok(kiln_conf_show(conf, false, &shown));
    assert_string_equal(kiln_buf_text(&shown), "name = x  # f.conf:1\n"
                                               "lib.socket.keepalive = false  # g.conf:2\n"
                                               "lib.sasl.password = (set)  # f.conf:5\n"
                                               "lib.x =   # g.conf:3\n"
                                               "lib.more = 1  # flag\n"
                                               "lib.own = 5  # f.conf:4\n");
    assert_ok(kiln_conf_show(conf, true, &json));
    assert_null(strstr(kiln_buf_text(&json), "hunter2"));
    assert_non_null(strstr(kiln_buf_text(&json), "{\"name\":\"lib.more\",\"value\":\"1\",\"origin\":\"flag\"}"));
    kiln_conf_free(conf);
}

static void what_is_passed_through_has_bounds(void **state) {
    (void)state;
    static const char *const refused[] = {"[lib]\n* = 1",      "[lib]\n = 1",   "[lib]\na b = 1", "[lib]\na = 1\na = 2",
                                          "[lib]\nown = many", "[lob]\nx = 1", "lib. = 1",      "[lib]\nx = \x01"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct kiln_conf_item item;
        struct kiln_conf *conf = new_open_conf();
        if (kiln_conf_load_text(conf, "f", refused[i], strlen(refused[i]), NULL) != KILN_E_INVAL)
            fail_msg("accepted: %s", refused[i]);
        assert_false(kiln_conf_item(conf, "lib.*", 0, &item)); // nothing of a bad file sticks
        kiln_conf_free(conf);
    }
    struct kiln_err err = {0};
    struct kiln_conf_item item;
    struct kiln_conf *conf = new_open_conf();
    kiln_autobuf struct kiln_buf many = KILN_BUF_INIT(1 << 20);
    kiln_buf_add_str(&many, "[lib]\n");
    for (int i = 0; i < 200; i++)
        kiln_buf_addf(&many, "a%d = 1\n", i);
    assert_ok(kiln_conf_load_text(conf, "f", kiln_buf_text(&many), many.len, &err));
    kiln_buf_reset(&many);
    kiln_buf_add_str(&many, "name = changed\n[lib]\n");
    for (int i = 0; i < 200; i++)
        kiln_buf_addf(&many, "b%d = 1\n", i);
    assert_int_equal(kiln_conf_load_text(conf, "g", kiln_buf_text(&many), many.len, &err), KILN_E_LIMIT);
    assert_true(kiln_conf_item(conf, "lib.*", 199, &item));
    assert_false(kiln_conf_item(conf, "lib.*", 200, &item)); // all or nothing
    assert_string_equal(kiln_conf_text(conf, "name"), "");
    kiln_conf_free(conf);
    struct kiln_conf_key number = {"lib.*", KILN_CONF_COUNT, "1", NULL, NULL, false, "No."};
    assert_int_equal(kiln_conf_new(&number, 1, &conf, NULL), KILN_E_INTERNAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_later_origin_wins), cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(a_secret_is_never_shown), scratch_test(files),
        cmocka_unit_test(tables), cmocka_unit_test(json_form),
        cmocka_unit_test(a_section_is_passed_through), cmocka_unit_test(what_is_passed_through_has_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
