#include "lib/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/base/json.h"

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

static void add_quoted(struct kiln_buf *line, const char *value) {
    size_t len = strlen(value);
    kiln_json_add_string(line, value, len < VALUE_BYTES_MAX ? len : VALUE_BYTES_MAX);
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
