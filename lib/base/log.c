#include "lib/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/buf.h"

#define LINE_BYTES_MAX ((size_t)64 << 10)
#define VALUE_BYTES_MAX ((size_t)8 << 10)

// The one sink of a program, set once in main before there are threads. Silent until then: a library that is used
// without a log must not write to anybody's descriptor.
static struct {
    int fd;
    const char *program;
    enum kiln_log_level level;
    bool json;
} sink = {.fd = -1};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void kiln_log_init(int fd, const char *program, enum kiln_log_level level, bool json) {
    sink.fd = fd;
    sink.program = program;
    sink.level = level;
    sink.json = json;
}

bool kiln_log_enabled(enum kiln_log_level level) { return sink.fd >= 0 && level <= sink.level; }

int kiln_log_level_parse(const char *text, enum kiln_log_level *level) {
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum kiln_log_level)i;
            return 0;
        }
    }
    return KILN_E_INVAL;
}

// Length of the well-formed UTF-8 sequence at `at` (RFC 3629), 0 when there is none.
static size_t utf8_length(const unsigned char *at, size_t left) {
    static const struct {
        unsigned char first_low, first_high, second_low, second_high, length;
    } forms[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (at[0] < forms[i].first_low || at[0] > forms[i].first_high)
            continue;
        if (forms[i].length > left)
            return 0;
        if (forms[i].length > 1 && (at[1] < forms[i].second_low || at[1] > forms[i].second_high))
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((at[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

static void add_quoted(struct kiln_buf *line, const char *value) {
    const unsigned char *at = (const unsigned char *)value;
    size_t left = strlen(value);
    bool cut = left > VALUE_BYTES_MAX;
    if (cut)
        left = VALUE_BYTES_MAX;
    kiln_buf_add_str(line, "\"");
    while (left) {
        size_t len = utf8_length(at, left);
        if (len == 0)
            kiln_buf_add_str(line, "\\ufffd");
        else if (*at == '"' || *at == '\\')
            kiln_buf_addf(line, "\\%c", *at);
        else if (*at == '\n')
            kiln_buf_add_str(line, "\\n");
        else if (*at == '\t')
            kiln_buf_add_str(line, "\\t");
        else if (*at < 0x20 || *at == 0x7f)
            kiln_buf_addf(line, "\\u%04x", *at);
        else
            kiln_buf_add(line, at, len);
        size_t step = len ? len : 1;
        at += step;
        left -= step;
    }
    kiln_buf_add_str(line, cut ? "...\"" : "\"");
}

static bool is_plain(const char *value) {
    size_t len = strlen(value);
    return len && len <= VALUE_BYTES_MAX &&
           strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:/+@%#*~()[]") == len;
}

static void add_pair(struct kiln_buf *line, const char *key, const char *value) {
    if (!value)
        value = "";
    if (sink.json) {
        kiln_buf_add_str(line, line->len > 1 ? "," : "");
        add_quoted(line, key);
        kiln_buf_add_str(line, ":");
        add_quoted(line, value);
        return;
    }
    kiln_buf_addf(line, "%s%s=", line->len ? " " : "", key);
    if (is_plain(value))
        kiln_buf_add_str(line, value);
    else
        add_quoted(line, value);
}

static void add_time(struct kiln_buf *line) {
    struct timespec now;
    struct tm tm;
    char day[32], text[48];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, sizeof text, "%s.%03dZ", day, (int)(now.tv_nsec / 1000000));
    add_pair(line, "time", text);
}

void kiln_log(enum kiln_log_level level, const char *event, ...) {
    if (!kiln_log_enabled(level))
        return;
    int saved_errno = errno;
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(LINE_BYTES_MAX);
    if (sink.json)
        kiln_buf_add_str(&line, "{");
    add_time(&line);
    add_pair(&line, "level", level_names[level]);
    add_pair(&line, "program", sink.program);
    add_pair(&line, "event", event);
    va_list fields;
    va_start(fields, event);
    for (const char *key; (key = va_arg(fields, const char *));) {
        const char *value = va_arg(fields, const char *);
        size_t whole = line.len;
        add_pair(&line, key, value);
        if (line.failed || line.len > LINE_BYTES_MAX - 8) { // a field that does not fit is left out whole
            line.len = whole;
            line.failed = false;
            break;
        }
    }
    va_end(fields);
    kiln_buf_add_str(&line, sink.json ? "}\n" : "\n");
    ssize_t wrote = write(sink.fd, line.data, line.len); // a log that cannot be written must not stop the program
    (void)wrote;
    errno = saved_errno;
}
