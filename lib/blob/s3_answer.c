#include "lib/blob/s3_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define HEAD_BYTES_MAX (64u << 10)

void kiln_s3_time_format(uint64_t wall_ms, char text[KILN_S3_TIME_LEN + 1]) {
    time_t seconds = (time_t)(wall_ms / 1000 + (wall_ms % 1000 != 0));
    struct tm utc;
    if (!gmtime_r(&seconds, &utc) || strftime(text, KILN_S3_TIME_LEN + 1, "%Y-%m-%dT%H:%M:%SZ", &utc) != KILN_S3_TIME_LEN)
        snprintf(text, KILN_S3_TIME_LEN + 1, "9999-12-31T23:59:59Z");
}

static bool number(const char *text, size_t len, int max, int *value) {
    *value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *value = *value * 10 + (text[i] - '0');
    }
    return *value <= max;
}

uint64_t kiln_s3_time_parse(const char *text) {
    struct tm utc = {0};
    if (strlen(text) < KILN_S3_TIME_LEN || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':')
        return 0;
    const char *rest = text + 19;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (strcmp(rest, "Z") != 0 || !number(text, 4, 9999, &utc.tm_year) || !number(text + 5, 2, 12, &utc.tm_mon) ||
        !number(text + 8, 2, 31, &utc.tm_mday) || !number(text + 11, 2, 23, &utc.tm_hour) || !number(text + 14, 2, 59, &utc.tm_min) ||
        !number(text + 17, 2, 60, &utc.tm_sec) || utc.tm_year < 1970 || utc.tm_mon < 1 || utc.tm_mday < 1)
        return 0;
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    time_t seconds = timegm(&utc);
    return seconds > 0 ? (uint64_t)seconds * 1000 : 0;
}

static void begin(struct kiln_s3_answer *answer, const char *line) {
    *answer = (struct kiln_s3_answer){.bytes = answer->bytes};
    const char *space = strchr(line, ' ');
    if (!space || strlen(space) < 4 || !number(space + 1, 3, 599, &answer->status) || answer->status < 100)
        answer->problem = "no status";
}

static void take_text(struct kiln_s3_answer *answer, char *slot, size_t size, const char *value) {
    if (slot[0])
        answer->problem = "a header comes twice";
    else if (strlen(value) >= size)
        answer->problem = "a header is too long";
    else
        memcpy(slot, value, strlen(value) + 1);
}

static void take_size(struct kiln_s3_answer *answer, const char *value) {
    size_t digits = strspn(value, "0123456789");
    if (answer->has_size)
        answer->problem = "two lengths";
    else if (digits == 0 || value[digits] || digits > 18)
        answer->problem = "a length that is none";
    else
        answer->size = strtoull(value, NULL, 10);
    answer->has_size = true;
}

static void take_until(struct kiln_s3_answer *answer, const char *value) {
    uint64_t until_ms = kiln_s3_time_parse(value);
    if (answer->retain_until_ms || !until_ms)
        answer->problem = "a retention date that is none, or two";
    answer->retain_until_ms = until_ms;
}

static void take(struct kiln_s3_answer *answer, const char *name, const char *value) {
    if (strcasecmp(name, "content-length") == 0)
        take_size(answer, value);
    else if (strcasecmp(name, "x-amz-version-id") == 0)
        take_text(answer, answer->version, sizeof answer->version, value);
    else if (strcasecmp(name, "x-amz-object-lock-mode") == 0)
        take_text(answer, answer->lock_mode, sizeof answer->lock_mode, value);
    else if (strcasecmp(name, "etag") == 0)
        take_text(answer, answer->etag, sizeof answer->etag, value);
    else if (strcasecmp(name, "x-amz-object-lock-retain-until-date") == 0)
        take_until(answer, value);
    else if (strcasecmp(name, "x-amz-delete-marker") == 0)
        answer->delete_marker = strcasecmp(value, "true") == 0;
}

void kiln_s3_answer_line(struct kiln_s3_answer *answer, const char *line, size_t len) {
    char text[1024];
    answer->bytes += len;
    if (answer->bytes > HEAD_BYTES_MAX) {
        answer->problem = "too large a head";
        return;
    }
    while (len && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    if (len >= sizeof text || memchr(line, 0, len))
        return; // none of those we read are so long
    memcpy(text, line, len);
    text[len] = 0;
    if (strncmp(text, "HTTP/", 5) == 0) {
        begin(answer, text);
        return;
    }
    char *colon = strchr(text, ':');
    if (!colon || answer->problem)
        return;
    *colon = 0;
    take(answer, text, colon + 1 + strspn(colon + 1, " \t"));
}
