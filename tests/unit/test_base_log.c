#include "tests/unit/scratch.h"

#include "lib/base/cleanup.h"
#include "lib/base/json.h"
#include "lib/base/log.h"

// What one call wrote, after its time stamp.
static const char *logged(int fd, struct kiln_buf *line) {
    kiln_buf_reset(line);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(kiln_fs_read_fd(fd, line, NULL), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    lseek(fd, 0, SEEK_SET);
    const char *text = kiln_buf_text(line);
    const char *after = strstr(text, "Z");
    return after ? after + 1 : text;
}

static void lines_in_both_forms(void **state) {
    struct scratch *scratch = *state;
    kiln_autofd int fd = openat(scratch->fd, "log", O_RDWR | O_CREAT, 0600);
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1 << 20);
    kiln_log_init(fd, "prog", KILN_LOG_INFO, false);
    kiln_log(KILN_LOG_INFO, "job_done", "plain", "a/b-1.2", "quoted", "two \"words\"\n\\", "none", (char *)NULL, "empty", "",
             NULL);
    assert_string_equal(logged(fd, &line), " level=info program=prog event=job_done plain=a/b-1.2 "
                                           "quoted=\"two \\\"words\\\"\\n\\\\\" none=\"\" empty=\"\"\n");
    assert_memory_equal(kiln_buf_text(&line), "time=20", 7);
    kiln_log_init(fd, "prog", KILN_LOG_INFO, true);
    kiln_log(KILN_LOG_ERROR, "bad", "a key", "v\x01\xff\xc3\xa9", "none", (char *)NULL, NULL);
    assert_string_equal(logged(fd, &line), "\",\"level\":\"error\",\"program\":\"prog\",\"event\":\"bad\","
                                           "\"a key\":\"v\\u0001\\ufffd\xc3\xa9\",\"none\":\"\"}\n");
    kiln_log_init(-1, NULL, KILN_LOG_ERROR, false);
}

static void levels_filter(void **state) {
    struct scratch *scratch = *state;
    kiln_autofd int fd = openat(scratch->fd, "log", O_RDWR | O_CREAT, 0600);
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1 << 20);
    assert_false(kiln_log_enabled(KILN_LOG_ERROR)); // silent before it is set up
    kiln_log_init(fd, "prog", KILN_LOG_WARN, false);
    assert_true(kiln_log_enabled(KILN_LOG_WARN));
    assert_false(kiln_log_enabled(KILN_LOG_INFO));
    kiln_log(KILN_LOG_INFO, "x", NULL);
    assert_string_equal(logged(fd, &line), "");
    kiln_log(KILN_LOG_WARN, "x", NULL);
    assert_string_equal(logged(fd, &line), " level=warn program=prog event=x\n");
    enum kiln_log_level level = KILN_LOG_INFO;
    assert_int_equal(kiln_log_level_parse("debug", &level), 0);
    assert_int_equal(level, KILN_LOG_DEBUG);
    assert_int_equal(kiln_log_level_parse("loud", &level), KILN_E_INVAL);
    assert_int_equal(level, KILN_LOG_DEBUG);
    kiln_log_init(-1, NULL, KILN_LOG_ERROR, false);
}

static void a_long_line_stays_a_line(void **state) {
    struct scratch *scratch = *state;
    kiln_autofd int fd = openat(scratch->fd, "log", O_RDWR | O_CREAT, 0600);
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1 << 20);
    char *value = malloc(100000);
    memset(value, '\x01', 99999);
    value[99999] = 0;
    for (int json = 0; json < 2; json++) {
        kiln_log_init(fd, "prog", KILN_LOG_WARN, json);
        kiln_log(KILN_LOG_WARN, "x", "a", value, "b", value, "c", value, NULL);
        const char *text = logged(fd, &line);
        size_t len = strlen(text);
        assert_true(len > 8000 && len < 70000);
        assert_string_equal(text + len - 2, json ? "}\n" : "\"\n");
        assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    }
    kiln_log_init(-1, NULL, KILN_LOG_ERROR, false);
    free(value);
}

static void json_strings(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"a\"b\\c", "\"a\\\"b\\\\c\""},
        {"\t\n\x1f\x7f", "\"\\t\\n\\u001f\\u007f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xc0\x80", "\"\\ufffd\\ufffd\""},                 // overlong
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},      // surrogate
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, // above U+10FFFF
        {"\xe2\x82", "\"\\ufffd\\ufffd\""},                 // cut off
        {"\xe2\x28\xa1", "\"\\ufffd(\\ufffd\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100);
        kiln_json_add_string(&out, cases[i][0], strlen(cases[i][0]));
        assert_string_equal(kiln_buf_text(&out), cases[i][1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(levels_filter), // first: it sees the state before any kiln_log_init
        scratch_test(lines_in_both_forms),
        scratch_test(a_long_line_stays_a_line),
        cmocka_unit_test(json_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
